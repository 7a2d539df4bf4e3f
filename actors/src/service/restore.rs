//! Putting units back: the undo of stopping and starting them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use apt_ostree_proto::service::UnitState;
use apt_ostree_proto::{ErrorCode, Failure, UnitName};

use super::ServicePlan;
use super::manner::Manner;
use super::run::{
    OnFailure, Units, bring_up, describe, expect_up, in_order, quoted_log, restart_once, stop_one,
};
use crate::context::StepContext;
use crate::port::{PortResult, Systemd};

/// The longest that a reload may take before the unit is restarted instead.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Stops the units that did not run before.
pub(super) async fn stop_started(
    systemd: &dyn Systemd,
    before: &BTreeMap<UnitName, UnitState>,
    plan: &ServicePlan,
    context: &StepContext,
) -> PortResult<()> {
    let new: Vec<UnitName> =
        plan.touched().into_iter().filter(|unit| !was_up(before, unit)).collect();
    stop_all(systemd, &new, Manner::of(plan), context).await
}

/// Brings every touched unit back to its recorded state.
pub(super) async fn restore(
    systemd: &dyn Systemd,
    before: &BTreeMap<UnitName, UnitState>,
    plan: &ServicePlan,
    context: &StepContext,
) -> PortResult<()> {
    let (ran, stopped): (Vec<UnitName>, Vec<UnitName>) =
        plan.touched().into_iter().partition(|unit| was_up(before, unit));
    let manner = Manner::of(plan);
    let stops = stop_all(systemd, &stopped, manner.clone(), context).await;
    let units = &Units::load(systemd, &ran, manner).await?;
    let ran: &BTreeSet<UnitName> = &ran.into_iter().collect();
    let starts = in_order(&units.order, OnFailure::GoOn, context, |unit| async move {
        let Some(recorded) = before.get(&unit) else { return Ok(()) };
        put_back(systemd, units, &unit, recorded, ran, context).await
    })
    .await;
    stops.and(starts)
}

/// Starts the units that ran before and do not any more.
pub(super) async fn start_again(
    systemd: &dyn Systemd,
    before: &BTreeMap<UnitName, UnitState>,
    plan: &ServicePlan,
    context: &StepContext,
) -> PortResult<()> {
    let ran: Vec<UnitName> =
        plan.touched().into_iter().filter(|unit| was_up(before, unit)).collect();
    let units = &Units::load(systemd, &ran, Manner::of(plan)).await?;
    in_order(&units.order, OnFailure::GoOn, context, |unit| async move {
        if !units.state(&unit).is_up() {
            bring_up(systemd, units, &unit).await?;
        }
        Ok(())
    })
    .await
}

fn was_up(before: &BTreeMap<UnitName, UnitState>, unit: &UnitName) -> bool {
    before.get(unit).is_some_and(UnitState::is_up)
}

/// Stops units that did not run before. Always by a job, whatever their state: it takes the place
/// of a start that may still be queued.
async fn stop_all(
    systemd: &dyn Systemd,
    units: &[UnitName],
    manner: Manner,
    context: &StepContext,
) -> PortResult<()> {
    let units = &Units::load(systemd, units, manner).await?;
    in_order(&units.order.reversed(), OnFailure::GoOn, context, |unit| async move {
        stop_one(systemd, units, &unit).await?;
        systemd.reset_failed(&unit).await?;
        context.report.item(unit.as_str(), "stopped", 100);
        Ok(())
    })
    .await
}

/// Has one unit run as it did before. Its first process is still the recorded one when nobody
/// restarted it: then a reload, if it can, takes back what a reload may have told it.
async fn put_back(
    systemd: &dyn Systemd,
    units: &Units,
    unit: &UnitName,
    recorded: &UnitState,
    ran: &BTreeSet<UnitName>,
    context: &StepContext,
) -> PortResult<()> {
    let now = units.state(unit);
    let is_same_process = now.is_up() && now.main_pid != 0 && now.main_pid == recorded.main_pid;
    let can_reload = units.dependencies.get(unit).is_some_and(|own| own.can_reload);
    let state = if is_same_process && !can_reload {
        context.report.item(unit.as_str(), "undisturbed", 100);
        return Ok(());
    } else if is_same_process {
        let outcome = systemd.reload_or_restart(unit, RELOAD_TIMEOUT).await?;
        match expect_up(systemd, unit, &outcome, "did not reload").await {
            Ok(state) => state,
            Err(failure) => {
                tracing::warn!(%unit, %failure, "reload failed, restarting");
                restart_once(systemd, units, unit, |service| ran.contains(service)).await?
            }
        }
    } else if matches!(unit.kind(), "service" | "socket") {
        restart_once(systemd, units, unit, |service| ran.contains(service)).await?
    } else {
        bring_up(systemd, units, unit).await?
    };
    if state.is_up() {
        context.report.item(unit.as_str(), "restored", 100);
        return Ok(());
    }
    let mut message =
        format!("{unit} ran before the update and does not run again: it is {}", describe(&state));
    message.push_str(&quoted_log(systemd, unit).await);
    Err(Failure::new(ErrorCode::UnitFailed, message)
        .with_hint(format!("See the unit's log: journalctl -u {unit}.")))
}
