//! What happens to the units after the restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use apt_ostree_proto::service::UnitState;
use apt_ostree_proto::{ErrorCode, Failure, UnitName};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::usage::Samples;
use super::verdict::{Expectation, verdict};
use super::{CheckHealth, HealthReport};
use crate::context::StepContext;
use crate::port::{PortResult, Systemd};
use crate::service::quoted_log;

/// The longest between two looks at the units, for changes that no signal told.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The shortest, so that a storm of signals does not become a storm of questions.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// Watches the units for the dwell time, and then until their probes have `settled`.
pub(super) async fn watch(
    systemd: &dyn Systemd,
    request: &CheckHealth,
    settled: &CancellationToken,
) -> PortResult<HealthReport> {
    let expectations = Expectation::all(&request.baseline.states, &request.touched);
    let mut watched: Vec<UnitName> = expectations.keys().cloned().collect();
    let dependencies = systemd.dependencies(&watched).await?;
    // What a socket or timer starts may go down by itself when it has nothing to do.
    let is_triggered =
        |unit: &UnitName| dependencies.get(unit).is_some_and(|own| !own.triggered_by.is_empty());
    watched.sort();
    let started = Instant::now();
    let end = started + request.dwell;
    let mut samples = Samples::new(&request.touched, request.dwell);
    let mut first: Option<BTreeMap<UnitName, UnitState>> = None;
    let mut looks = 0;
    loop {
        let is_last = Instant::now() >= end && settled.is_cancelled();
        let states = systemd.states(&watched).await?;
        looks += 1;
        let first = first.get_or_insert_with(|| states.clone());
        for (unit, expectation) in &expectations {
            let (Some(now), Some(at_first)) = (states.get(unit), first.get(unit)) else { continue };
            if let Some(what) = verdict(expectation, at_first, now, is_triggered(unit)) {
                return Err(unhealthy(systemd, unit, &what, started.elapsed()).await);
            }
        }
        if is_last {
            break;
        }
        samples.take_if_due(systemd, started.elapsed()).await;
        report_share(&request.context, started.elapsed(), request.dwell);
        pause(systemd, end, settled).await?;
    }
    let warnings = samples.judge(systemd, &request.baseline.usage, started.elapsed()).await;
    let baseline = &request.baseline.states;
    let not_judged = baseline.iter().filter(|(_, state)| !state.is_up() && !is_quiet(state));
    let failed_before: Vec<UnitName> = not_judged
        .map(|(unit, _)| unit.clone())
        .filter(|unit| !expectations.contains_key(unit))
        .collect();
    Ok(HealthReport { healthy: watched, failed_before, warnings, looks })
}

fn is_quiet(state: &UnitState) -> bool {
    matches!(state.active.as_str(), "inactive" | "")
}

/// Waits for a change, at a bounded rate, and not past `end` if that is yet to come, nor past the moment
/// when the probes have `settled` if it is not.
async fn pause(systemd: &dyn Systemd, end: Instant, settled: &CancellationToken) -> PortResult<()> {
    let now = Instant::now();
    let left = if now < end { end - now } else { LONGEST_PAUSE };
    let change = change_within(systemd, left);
    tokio::select! {
        () = settled.cancelled(), if now >= end => Ok(()),
        changed = change => changed,
    }
}

/// Waits until units may have changed, at a bounded rate, and no longer than `left`.
pub(crate) async fn change_within(systemd: &dyn Systemd, left: Duration) -> PortResult<()> {
    let earliest = Instant::now() + SHORTEST_PAUSE.min(left);
    systemd.wait_for_change(left.min(LONGEST_PAUSE)).await?;
    tokio::time::sleep_until(earliest).await;
    Ok(())
}

fn report_share(context: &StepContext, elapsed: Duration, dwell: Duration) {
    if !dwell.is_zero() {
        context.report.fraction((elapsed.as_secs_f64() / dwell.as_secs_f64()).min(1.0));
    }
}

async fn unhealthy(systemd: &dyn Systemd, unit: &UnitName, what: &str, after: Duration) -> Failure {
    let log = quoted_log(systemd, unit).await;
    let seconds = after.as_secs_f64();
    Failure::new(
        ErrorCode::Unhealthy,
        format!("{unit} did not stay healthy: {what}, {seconds:.1} s after the restarts{log}"),
    )
    .with_hint(format!("See the unit's log: journalctl -u {unit}."))
}
