//! Health: whether the host's units stand the update.

mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use apt_ostree_proto::service::UnitState;
use apt_ostree_proto::{ErrorCode, Failure, UnitName};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::context::StepContext;
use crate::port::{PortResult, Systemd};
use crate::service::quoted_log;
use verdict::{Expectation, verdict};

/// How long units must stay up where nobody says otherwise: long enough for a service to fail on its
/// first work, short enough to wait for.
pub const DEFAULT_DWELL: Duration = Duration::from_secs(5);

/// The longest between two looks at the units, for changes that no signal told.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The shortest, so that a storm of signals does not become a storm of questions.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// How far dependents of dependents are followed; real chains have two or three links.
const DEEPEST_CHAIN: usize = 16;

/// The states of all units that matter, before anything was touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// By unit.
    pub states: BTreeMap<UnitName, UnitState>,
}

/// What a health check found: nothing that speaks against the update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// Units that stayed up for the whole dwell time.
    pub healthy: Vec<UnitName>,
    /// Units that had failed or flapped before the update, and so are not judged.
    pub failed_before: Vec<UnitName>,
    /// How often the units were looked at.
    pub looks: u32,
}

/// The actor that watches units.
#[derive(Debug)]
pub struct HealthActor {
    systemd: Rc<dyn Systemd>,
}

impl HealthActor {
    /// An actor for the host behind the port.
    pub fn new(systemd: Rc<dyn Systemd>) -> Self {
        Self { systemd }
    }
}

impl Actor for HealthActor {
    type Context = Context<Self>;
}

/// Request: read the states of `units` and of what needs them, before any is touched.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<Baseline>")]
pub struct RecordBaseline {
    /// The units that the update will touch and leave running: `ServicePlan::watched`.
    pub units: Vec<UnitName>,
    /// The step.
    pub context: StepContext,
}

impl Handler<RecordBaseline> for HealthActor {
    type Result = ResponseFuture<PortResult<Baseline>>;

    fn handle(&mut self, request: RecordBaseline, _: &mut Self::Context) -> Self::Result {
        let systemd = Rc::clone(&self.systemd);
        Box::pin(async move { record_baseline(systemd.as_ref(), &request.units).await })
    }
}

/// Request: watch the touched units and what needs them for the dwell time. Answers at once when one
/// fails. Errors: `Unhealthy` names the unit, what changed, and its last log lines; `Cancelled`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<HealthReport>")]
pub struct CheckHealth {
    /// What [`RecordBaseline`] read.
    pub baseline: Baseline,
    /// The units that were started, restarted or reloaded and are expected to stay up.
    pub touched: Vec<UnitName>,
    /// How long they must stay up: [`DEFAULT_DWELL`].
    pub dwell: Duration,
    /// The step.
    pub context: StepContext,
}

impl Handler<CheckHealth> for HealthActor {
    type Result = ResponseFuture<PortResult<HealthReport>>;

    fn handle(&mut self, request: CheckHealth, _: &mut Self::Context) -> Self::Result {
        let systemd = Rc::clone(&self.systemd);
        Box::pin(async move {
            let cancel = request.context.cancel.clone();
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(Failure::new(
                    ErrorCode::Cancelled,
                    "cancelled while the units' health was watched",
                )),
                result = check_health(systemd.as_ref(), &request) => result,
            }
        })
    }
}

/// Reads the states of `units` and, link by link, of what needs them.
async fn record_baseline(systemd: &dyn Systemd, units: &[UnitName]) -> PortResult<Baseline> {
    let mut all: BTreeSet<UnitName> = units.iter().cloned().collect();
    let mut newest = units.to_vec();
    for _ in 0..DEEPEST_CHAIN {
        if newest.is_empty() {
            break;
        }
        let dependencies = systemd.dependencies(&newest).await?;
        newest = dependencies
            .into_values()
            .flat_map(|own| own.required_by)
            .filter(|unit| all.insert(unit.clone()))
            .collect();
    }
    let all: Vec<UnitName> = all.into_iter().collect();
    Ok(Baseline { states: systemd.states(&all).await? })
}

async fn check_health(systemd: &dyn Systemd, request: &CheckHealth) -> PortResult<HealthReport> {
    let expectations = Expectation::all(&request.baseline.states, &request.touched);
    let mut watched: Vec<UnitName> = expectations.keys().cloned().collect();
    let dependencies = systemd.dependencies(&watched).await?;
    // What a socket or timer starts may go down by itself when it has nothing to do.
    let is_triggered =
        |unit: &UnitName| dependencies.get(unit).is_some_and(|own| !own.triggered_by.is_empty());
    watched.sort();
    let started = Instant::now();
    let end = started + request.dwell;
    let mut first: Option<BTreeMap<UnitName, UnitState>> = None;
    let mut looks = 0;
    loop {
        let is_last = Instant::now() >= end;
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
        report_share(&request.context, started.elapsed(), request.dwell);
        pause(systemd, end).await?;
    }
    request.context.report.fraction(1.0);
    let baseline = &request.baseline.states;
    let not_judged = baseline.iter().filter(|(_, state)| !state.is_up() && !is_quiet(state));
    let failed_before: Vec<UnitName> = not_judged
        .map(|(unit, _)| unit.clone())
        .filter(|unit| !expectations.contains_key(unit))
        .collect();
    Ok(HealthReport { healthy: watched, failed_before, looks })
}

fn is_quiet(state: &UnitState) -> bool {
    matches!(state.active.as_str(), "inactive" | "")
}

/// Waits for a change, at a bounded rate, and not past `end`.
async fn pause(systemd: &dyn Systemd, end: Instant) -> PortResult<()> {
    let earliest = Instant::now() + SHORTEST_PAUSE;
    let left = end.saturating_duration_since(Instant::now());
    systemd.wait_for_change(left.min(LONGEST_PAUSE)).await?;
    tokio::time::sleep_until(earliest.min(end)).await;
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

#[cfg(test)]
#[path = "health/tests.rs"]
mod tests;
