//! What services use: the manager reads it from their control groups.

use std::collections::BTreeMap;
use std::time::Duration;

use apt_ostree_actors::port::PortResult;
use apt_ostree_proto::UnitName;
use apt_ostree_proto::service::UnitUsage;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use rustix::time::ClockId;
use systemd_zbus::ManagerProxy;

use super::jobs::refusal;
use super::units::{QUESTIONS_AT_ONCE, property};
use super::{answered, failure};

const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// What each of `units` uses. One that is not loaded or not up is left out.
pub(super) async fn of(
    connection: &zbus::Connection,
    manager: &ManagerProxy<'static>,
    units: &[UnitName],
) -> PortResult<BTreeMap<UnitName, UnitUsage>> {
    let found: Vec<Option<(UnitName, UnitUsage)>> = stream::iter(units)
        .map(|unit| async {
            let usage = of_one(connection, manager, unit).await?;
            Ok(usage.map(|usage| (unit.clone(), usage)))
        })
        .buffer_unordered(QUESTIONS_AT_ONCE)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

async fn of_one(
    connection: &zbus::Connection,
    manager: &ManagerProxy<'static>,
    unit: &UnitName,
) -> PortResult<Option<UnitUsage>> {
    let loaded = async { Ok(manager.get_unit(unit.as_str()).await) };
    let path = match answered("a unit", loaded).await? {
        Ok(path) => path,
        Err(error) if refusal(&error).is_some() => return Ok(None),
        Err(error) => return Err(failure("a unit cannot be asked for", &error)),
    };
    let (memory, processor, since): (u64, u64, u64) = futures_util::try_join!(
        property(connection, &path, SERVICE, "MemoryCurrent"),
        property(connection, &path, SERVICE, "CPUUsageNSec"),
        property(connection, &path, UNIT, "ActiveEnterTimestampMonotonic"),
    )?;
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    let now = Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0));
    let since = (since != 0).then(|| Duration::from_micros(since));
    Ok(Some(UnitUsage {
        memory_bytes: accounted(memory),
        processor_time: accounted(processor).map(Duration::from_nanos),
        up_for: since.and_then(|since| now.checked_sub(since)),
    }))
}

/// All ones stand for what is not accounted for.
fn accounted(value: u64) -> Option<u64> {
    (value != u64::MAX).then_some(value)
}
