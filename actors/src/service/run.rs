//! Stopping and starting units in the order of their dependencies.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use apt_ostree_proto::service::{UnitAction, UnitState};
use apt_ostree_proto::{ErrorCode, Failure, UnitName};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::ServicePlan;
use super::manner::Manner;
use super::order::Order;
use crate::context::StepContext;
use crate::health::change_within;
use crate::port::{JobOutcome, PortResult, Systemd, UnitDependencies};

/// How many jobs run at once: about as many as an admin restarts with one command, for most of what a start
/// takes is waiting; and few enough that a host of hundreds of units can go on with its work.
const JOBS_AT_ONCE: usize = 32;

/// How long the units of one group may take to keep up in turn, all of them together: the rescue guard
/// takes an update off that is not done in its time.
const LONGEST_TURNS: Duration = Duration::from_secs(3 * 60);

/// How much of a unit's log a failure quotes.
const MOST_QUOTED_CHARACTERS: usize = 600;

/// The units that a step works on, as they are when it begins.
pub(super) struct Units {
    pub(super) dependencies: BTreeMap<UnitName, UnitDependencies>,
    pub(super) states: BTreeMap<UnitName, UnitState>,
    pub(super) order: Order,
    pub(super) manner: Manner,
}

impl Units {
    pub(super) async fn load(
        systemd: &dyn Systemd,
        units: &[UnitName],
        manner: Manner,
    ) -> PortResult<Self> {
        let (dependencies, states) =
            futures_util::try_join!(systemd.dependencies(units), systemd.states(units))?;
        let order =
            Order::of(units.iter().cloned(), &dependencies).one_by_one(|unit| manner.group(unit));
        Ok(Self { dependencies, states, order, manner })
    }

    pub(super) fn state(&self, unit: &UnitName) -> UnitState {
        self.states.get(unit).cloned().unwrap_or_default()
    }
}

/// What a failure does to the units that are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnFailure {
    GiveUp,
    GoOn,
}

/// Runs `task` for each unit once all that it waits for are done, side by side where they do not
/// wait for each other. Answers the first failure.
pub(super) async fn in_order<F>(
    order: &Order,
    on_failure: OnFailure,
    context: &StepContext,
    task: impl Fn(UnitName) -> F,
) -> PortResult<()>
where
    F: Future<Output = PortResult<()>>,
{
    let mut waiting = order.units.clone();
    let mut done = BTreeSet::new();
    let mut running = FuturesUnordered::new();
    let mut first_failure = None;
    loop {
        while running.len() < JOBS_AT_ONCE {
            let is_ready = |unit: &UnitName| {
                order.waits_for.get(unit).is_none_or(|before| before.is_subset(&done))
            };
            let Some(position) = waiting.iter().position(is_ready) else { break };
            let unit = waiting.remove(position);
            let task = task(unit.clone());
            running.push(async move { (unit, task.await) });
        }
        let Some((unit, result)) = running.next().await else { break };
        done.insert(unit);
        report_share(context, done.len(), order.units.len());
        match result {
            Ok(()) => {}
            Err(failure) if on_failure == OnFailure::GiveUp => return Err(failure),
            Err(failure) => {
                tracing::warn!(%failure, "unit not put back");
                first_failure.get_or_insert(failure);
            }
        }
    }
    first_failure.map_or(Ok(()), Err)
}

#[expect(clippy::cast_precision_loss, reason = "the number of units is small")]
fn report_share(context: &StepContext, done: usize, total: usize) {
    context.report.fraction(done as f64 / total as f64);
}

/// Runs `work` until it ends or the step is cancelled. Jobs that were queued go on in systemd; the
/// undo's jobs take their place.
async fn cancellable<T>(
    context: &StepContext,
    work: impl Future<Output = PortResult<T>>,
) -> PortResult<T> {
    tokio::select! {
        biased;
        () = context.cancel.cancelled() => {
            Err(Failure::new(ErrorCode::Cancelled, "cancelled while units were stopped or started"))
        }
        result = work => result,
    }
}

/// Stops the units that the plan wants down for the switch.
pub(super) async fn stop(
    systemd: &dyn Systemd,
    plan: &ServicePlan,
    context: &StepContext,
) -> PortResult<()> {
    let work = async {
        let units = plan.with(&[UnitAction::StopStart, UnitAction::Stop]);
        let units = &Units::load(systemd, &units, Manner::of(plan)).await?;
        in_order(&units.order.reversed(), OnFailure::GiveUp, context, |unit| async move {
            context.report.item(unit.as_str(), "stopping", 0);
            stop_one(systemd, units, &unit).await?;
            context.report.item(unit.as_str(), "stopped", 100);
            Ok(())
        })
        .await
    };
    cancellable(context, work).await
}

/// Stops one unit, whatever it does; a unit that is down or unknown is stopped.
pub(super) async fn stop_one(
    systemd: &dyn Systemd,
    units: &Units,
    unit: &UnitName,
) -> PortResult<()> {
    let limit = units.manner.job_timeout(unit);
    let outcome = systemd.stop(unit, limit).await?;
    let state = state_of(systemd, unit).await?;
    if outcome == JobOutcome::Done || !(state.is_up() || state.active.ends_with("activating")) {
        return Ok(());
    }
    Err(unit_failed(systemd, unit, "did not stop", &outcome, &state).await)
}

/// Starts, restarts and reloads what the plan says, and has the followers up again.
pub(super) async fn start(
    systemd: &dyn Systemd,
    plan: &ServicePlan,
    dwell: Duration,
    context: &StepContext,
) -> PortResult<Vec<UnitName>> {
    let actions: BTreeMap<&UnitName, UnitAction> = plan
        .effects
        .iter()
        .filter(|effect| !matches!(effect.action, UnitAction::Leave | UnitAction::Stop))
        .map(|effect| (&effect.unit, effect.action))
        .collect();
    let names: BTreeSet<UnitName> =
        actions.keys().map(|unit| (*unit).clone()).chain(plan.followers.iter().cloned()).collect();
    let names: Vec<UnitName> = names.into_iter().collect();
    let stays_up = RefCell::new(BTreeSet::new());
    let work = async {
        let units = &Units::load(systemd, &names, Manner::of(plan)).await?;
        let dwell = dwell.min(LONGEST_TURNS / units.manner.most_in_a_group());
        for (unit, other) in &units.order.given_up {
            context.report.warning(format!(
                "{unit} is ordered after {other}, which in the end is ordered after {unit}: it did not wait"
            ));
        }
        in_order(&units.order, OnFailure::GiveUp, context, |unit| {
            let action = actions.get(&unit).copied();
            let stays_up = &stays_up;
            let goes_down = |unit: &UnitName| {
                let action = actions.get(unit);
                matches!(action, Some(UnitAction::Restart | UnitAction::StopStart))
            };
            async move {
                if start_one(systemd, units, &unit, action, goes_down, context).await? {
                    if units.manner.group(&unit).is_some() {
                        keeps_up(systemd, &unit, dwell).await?;
                    }
                    stays_up.borrow_mut().insert(unit);
                }
                Ok(())
            }
        })
        .await
    };
    cancellable(context, work).await?;
    Ok(stays_up.into_inner().into_iter().collect())
}

/// Does with one unit what the plan says; a follower has no action of its own. `goes_down` tells the
/// units that the plan itself takes down. Answers whether the unit is up afterwards and so expected to
/// stay up.
async fn start_one(
    systemd: &dyn Systemd,
    units: &Units,
    unit: &UnitName,
    action: Option<UnitAction>,
    goes_down: impl Fn(&UnitName) -> bool,
    context: &StepContext,
) -> PortResult<bool> {
    let at_first = units.state(unit);
    let state = match action {
        Some(UnitAction::Start) if !at_first.is_up() && !is_enabled(&at_first) => {
            context.report.item(unit.as_str(), "not enabled", 100);
            return Ok(false);
        }
        None | Some(UnitAction::Start) => {
            context.report.item(unit.as_str(), "starting", 0);
            bring_up(systemd, units, unit).await?
        }
        // Its file went with the update.
        Some(_) if at_first.is_up() && at_first.load == "not-found" => {
            context.report.item(unit.as_str(), "stopping", 0);
            stop_one(systemd, units, unit).await?;
            systemd.reset_failed(unit).await?;
            context.report.warning(format!("the new tree has no {unit}: it was stopped"));
            context.report.item(unit.as_str(), "stopped", 100);
            return Ok(false);
        }
        Some(UnitAction::Reload) if at_first.is_up() => {
            context.report.item(unit.as_str(), "reloading", 0);
            let outcome = systemd.reload_or_restart(unit, units.manner.job_timeout(unit)).await?;
            expect_up(systemd, unit, &outcome, "did not reload").await?
        }
        Some(_) => {
            context.report.item(unit.as_str(), "restarting", 0);
            restart_once(systemd, units, unit, goes_down).await?
        }
    };
    let done = match action {
        Some(UnitAction::Reload) => "reloaded",
        Some(UnitAction::Restart | UnitAction::StopStart) => "restarted",
        _ => "started",
    };
    context.report.item(unit.as_str(), done, 100);
    Ok(state.is_up())
}

/// Whether a lone `start` means this unit: as deb-systemd-invoke(1p) has it, a disabled or static
/// unit that does not run is not started.
fn is_enabled(state: &UnitState) -> bool {
    matches!(state.unit_file.as_str(), "enabled" | "enabled-runtime" | "generated" | "alias")
}

/// Starts a unit unless it is up; waits for a job that is already queued. Answers its state.
pub(super) async fn bring_up(
    systemd: &dyn Systemd,
    units: &Units,
    unit: &UnitName,
) -> PortResult<UnitState> {
    // Several updates in a row would run into the unit's start limit.
    systemd.reset_failed(unit).await?;
    let outcome = systemd.start(unit, units.manner.job_timeout(unit)).await?;
    expect_up(systemd, unit, &outcome, "did not start").await
}

/// Restarts a unit, unless it has been restarted since `units` was read: the restart of what it
/// requires has then taken it along. Answers its state.
///
/// A socket does not restart under a running service, so those of its services that `may_stop`
/// allows go down first; their own turn comes after.
pub(super) async fn restart_once(
    systemd: &dyn Systemd,
    units: &Units,
    unit: &UnitName,
    may_stop: impl Fn(&UnitName) -> bool,
) -> PortResult<UnitState> {
    let at_first = units.state(unit);
    let now = state_of(systemd, unit).await?;
    if !now.is_up() || (at_first.is_up() && now.main_pid != at_first.main_pid) {
        return bring_up(systemd, units, unit).await;
    }
    if unit.kind() == "socket" {
        let triggers = units.dependencies.get(unit).map(|own| own.triggers.as_slice());
        for service in triggers.unwrap_or_default() {
            if state_of(systemd, service).await?.is_up() {
                if !may_stop(service) {
                    tracing::warn!(%unit, "left as it is: {service} runs and is not to be stopped");
                    return Ok(now);
                }
                stop_one(systemd, units, service).await?;
            }
        }
    }
    systemd.reset_failed(unit).await?;
    let outcome = systemd.restart(unit, units.manner.job_timeout(unit)).await?;
    expect_up(systemd, unit, &outcome, "did not restart").await
}

/// Tells a job that did what was asked from one that did not. A unit that ends by itself with
/// success, as a one-shot service does, has done what was asked.
pub(super) async fn expect_up(
    systemd: &dyn Systemd,
    unit: &UnitName,
    outcome: &JobOutcome,
    what: &str,
) -> PortResult<UnitState> {
    let state = state_of(systemd, unit).await?;
    if *outcome == JobOutcome::Done && !state.is_failed() {
        return Ok(state);
    }
    Err(unit_failed(systemd, unit, what, outcome, &state).await)
}

/// Watches a unit for the dwell time before the next of its group has its turn.
async fn keeps_up(systemd: &dyn Systemd, unit: &UnitName, dwell: Duration) -> PortResult<()> {
    let at_first = state_of(systemd, unit).await?;
    let end = Instant::now() + dwell;
    loop {
        let now = state_of(systemd, unit).await?;
        if !now.is_up() || now.restarts != at_first.restarts || now.main_pid != at_first.main_pid {
            return Err(
                unit_failed(systemd, unit, "did not stay up", &JobOutcome::Done, &now).await
            );
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        change_within(systemd, left).await?;
    }
}

pub(super) async fn state_of(systemd: &dyn Systemd, unit: &UnitName) -> PortResult<UnitState> {
    let states = systemd.states(std::slice::from_ref(unit)).await?;
    Ok(states.into_values().next().unwrap_or_default())
}

/// A failure that names the unit, how its job ended, its state, and the end of its log.
async fn unit_failed(
    systemd: &dyn Systemd,
    unit: &UnitName,
    what: &str,
    outcome: &JobOutcome,
    state: &UnitState,
) -> Failure {
    let how = match outcome {
        JobOutcome::Done => "its job ended well".to_owned(),
        JobOutcome::Failed(result) => format!("its job ended with {result:?}"),
        JobOutcome::TimedOut => "its job took too long".to_owned(),
    };
    let mut message = format!("{unit} {what}: {how}, its state is {}", describe(state));
    message.push_str(&quoted_log(systemd, unit).await);
    Failure::new(ErrorCode::UnitFailed, message)
        .with_hint(format!("See the unit's log: journalctl -u {unit}."))
}

/// A unit's state in a few words: `failed (exit-code)`.
pub(crate) fn describe(state: &UnitState) -> String {
    match state.result.as_str() {
        "" | "success" => state.active.clone(),
        result => format!("{} ({result})", state.active),
    }
}

/// The end of a unit's log as a clause for a message, bounded and without control characters. Empty
/// when there is none: a message does without it.
pub(crate) async fn quoted_log(systemd: &dyn Systemd, unit: &UnitName) -> String {
    let lines = match systemd.last_log_lines(unit).await {
        Ok(lines) => lines,
        Err(failure) => {
            tracing::warn!(%unit, %failure, "log not read");
            return String::new();
        }
    };
    let text = lines.join(" | ");
    if text.is_empty() {
        return text;
    }
    let length = text.chars().count();
    let end: String = text
        .chars()
        .skip(length.saturating_sub(MOST_QUOTED_CHARACTERS))
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect();
    format!("; its log ends: {end}")
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
