//! Whether a unit takes far more memory or processor time than before: a warning, for nobody but the
//! admin knows whether the new version may.

use std::collections::BTreeMap;
use std::time::Duration;

use apt_ostree_proto::UnitName;
use apt_ostree_proto::service::UnitUsage;

use crate::port::Systemd;

/// By how much memory must have grown to be worth a word: a fresh process uses less than one that has
/// run for weeks, as a rule.
const MEMORY_FACTOR: u64 = 2;
const MEMORY_BYTES: u64 = 64 << 20;

/// The share of one processor that a unit which runs wild takes, and the factor over what it took before.
const BUSY: f64 = 0.9;
const BUSY_FACTOR: f64 = 2.0;

/// The shortest time over which a share is told; in less of it a service may still be starting.
const SHORTEST_SAMPLE: Duration = Duration::from_secs(1);

/// What the units used in the second half of the dwell time.
pub(super) struct Samples {
    units: Vec<UnitName>,
    due: Duration,
    first: Option<(Duration, BTreeMap<UnitName, UnitUsage>)>,
}

impl Samples {
    pub(super) fn new(touched: &[UnitName], dwell: Duration) -> Self {
        let services = touched.iter().filter(|unit| unit.kind() == "service");
        Self { units: services.cloned().collect(), due: dwell / 2, first: None }
    }

    pub(super) async fn take_if_due(&mut self, systemd: &dyn Systemd, elapsed: Duration) {
        if self.first.is_none() && elapsed >= self.due && self.due >= SHORTEST_SAMPLE {
            self.first = read(systemd, &self.units).await.map(|usage| (elapsed, usage));
        }
    }

    /// What is worth a warning.
    pub(super) async fn judge(
        self,
        systemd: &dyn Systemd,
        before: &BTreeMap<UnitName, UnitUsage>,
        elapsed: Duration,
    ) -> Vec<String> {
        let Some(now) = read(systemd, &self.units).await else { return Vec::new() };
        let mut warnings = Vec::new();
        for (unit, now) in &now {
            let Some(before) = before.get(unit) else { continue };
            warnings.extend(memory(unit, before, now));
            let first = self.first.as_ref().and_then(|(at, usage)| Some((*at, usage.get(unit)?)));
            let Some((at, first)) = first else { continue };
            let over = elapsed.saturating_sub(at);
            if over >= SHORTEST_SAMPLE {
                warnings.extend(processor(unit, before, first, now, over));
            }
        }
        warnings
    }
}

/// What a host does not account for is not judged.
pub(super) async fn read(
    systemd: &dyn Systemd,
    units: &[UnitName],
) -> Option<BTreeMap<UnitName, UnitUsage>> {
    if units.is_empty() {
        return None;
    }
    let usage = systemd.usage(units).await;
    usage.inspect_err(|failure| tracing::warn!(%failure, "what units use is not known")).ok()
}

fn memory(unit: &UnitName, before: &UnitUsage, now: &UnitUsage) -> Option<String> {
    let (before, now) = (before.memory_bytes?, now.memory_bytes?);
    let grown = now.saturating_sub(before);
    (now >= before.saturating_mul(MEMORY_FACTOR) && grown >= MEMORY_BYTES).then(|| {
        let (now, before) = (now >> 20, before >> 20);
        format!("{unit} uses {now} MiB of memory after the update, {before} MiB before")
    })
}

fn processor(
    unit: &UnitName,
    before: &UnitUsage,
    first: &UnitUsage,
    now: &UnitUsage,
    over: Duration,
) -> Option<String> {
    let used = now.processor_time?.checked_sub(first.processor_time?)?;
    let share = used.as_secs_f64() / over.as_secs_f64();
    let usual = match (before.processor_time, before.up_for) {
        (Some(used), Some(up)) if !up.is_zero() => used.as_secs_f64() / up.as_secs_f64(),
        _ => 0.0,
    };
    (share >= BUSY && share >= usual * BUSY_FACTOR).then(|| {
        let (share, usual) = (share * 100.0, usual * 100.0);
        format!(
            "{unit} takes {share:.0} % of a processor after the update, {usual:.0} % on average before"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(memory_mebibytes: u64, seconds: f64, up: u64) -> UnitUsage {
        UnitUsage {
            memory_bytes: Some(memory_mebibytes << 20),
            processor_time: Some(Duration::from_secs_f64(seconds)),
            up_for: Some(Duration::from_secs(up)),
        }
    }

    #[test]
    fn a_unit_is_told_that_takes_far_more_than_before() {
        let unit = UnitName::parse("x.service").unwrap();
        for (before, now, is_told) in
            [(100, 300, true), (100, 150, false), (10, 40, false), (500, 900, false)]
        {
            let told = memory(&unit, &used(before, 0.0, 1), &used(now, 0.0, 1));
            assert_eq!(told.is_some(), is_told, "{before} to {now}: {told:?}");
        }
        let nothing = UnitUsage::default();
        assert_eq!(memory(&unit, &nothing, &used(1 << 20, 0.0, 1)), None);
        // Over two seconds, of a unit that took this share of a thousand seconds before.
        for (before, taken, is_told) in
            [(10.0, 1.9, true), (10.0, 1.0, false), (900.0, 1.9, false), (900.0, 4.0, true)]
        {
            let over = Duration::from_secs(2);
            let (first, now) = (used(0, 5.0, 0), used(0, 5.0 + taken, 0));
            let told = processor(&unit, &used(0, before, 1_000), &first, &now, over);
            assert_eq!(told.is_some(), is_told, "{before}, then {taken}: {told:?}");
        }
        // Its counter began anew in between.
        let over = Duration::from_secs(2);
        assert_eq!(processor(&unit, &nothing, &used(0, 9.0, 0), &used(0, 1.0, 0), over), None);
    }
}
