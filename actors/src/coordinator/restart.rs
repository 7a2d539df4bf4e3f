//! Restarting what runs old code, outside of any update.
//!
//! It is no transaction: the tree stays as it is, so there is nothing to go back to, and a restart is one
//! job of the service manager's, which ends without this daemon too. What does not come up again is
//! started once more and named.

use std::cell::Cell;
use std::rc::Rc;

use actix::{Handler, Message, ResponseFuture};
use apt_ostree_proto::outdated::{Outdated, Restarted};
use apt_ostree_proto::{ErrorCode, Failure, TransactionId, UnitName};
use tokio_util::sync::CancellationToken;

use super::forward::ask;
use super::outdated::look;
use super::{Coordinator, Parts};
use crate::context::{Report, Reporter, StepContext};
use crate::health::{CheckHealth, HealthReport, RecordBaseline};
use crate::service::{
    AllowShutdown, HoldShutdown, RecordStates, ServicePlan, StartAgain, StartUnits,
};
use crate::supervisor::{GetWorkers, Workers};

/// Request: restart the units that run old code, in the order of their dependencies, and watch them for
/// the dwell time. Nothing else begins meanwhile. Errors: `Busy`, `Stuck`; `UnitFailed`, `Unhealthy`
/// with the unit that does not come up.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Restarted, Failure>")]
pub struct RestartOutdated {
    /// Ends it early, with `Cancelled`; jobs that were queued go on.
    pub cancel: CancellationToken,
}

impl Handler<RestartOutdated> for Coordinator {
    type Result = ResponseFuture<Result<Restarted, Failure>>;

    fn handle(&mut self, request: RestartOutdated, _: &mut Self::Context) -> Self::Result {
        // Before any other message is handled: nothing may begin while units are down.
        let free = self.refuse_if_busy(false).and_then(|()| self.refuse_if_stuck());
        let alone = free.map(|()| Alone::take(&self.restarting));
        self.take_changed_settings();
        let parts = self.parts();
        Box::pin(async move {
            let _alone = alone?;
            restart(&parts, request.cancel).await
        })
    }
}

/// Keeps everything else from beginning, until it is dropped.
#[derive(Debug)]
struct Alone(Rc<Cell<bool>>);

impl Alone {
    fn take(taken: &Rc<Cell<bool>>) -> Self {
        taken.set(true);
        Self(Rc::clone(taken))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

async fn restart(parts: &Parts, cancel: CancellationToken) -> Result<Restarted, Failure> {
    let Outdated { units, followers, .. } = look(parts).await?;
    let plan = ServicePlan { effects: units, followers, other_processes: Vec::new() };
    let mut done = Restarted::default();
    if !plan.is_empty() {
        done.units = plan.touched();
        tracing::info!(units = %names(&done.units), "restarting what runs old code");
        done.warnings = restart_units(parts, plan, cancel).await?;
    }
    match look(parts).await {
        Ok(left) => done.left = left,
        // Everything that was to be done is done.
        Err(failure) => {
            done.warnings
                .push(format!("what still runs old code is not known: {}", failure.message));
        }
    }
    Ok(done)
}

fn names(units: &[UnitName]) -> String {
    units.iter().map(UnitName::as_str).collect::<Vec<_>>().join(" ")
}

/// Answers the warnings.
async fn restart_units(
    parts: &Parts,
    plan: ServicePlan,
    cancel: CancellationToken,
) -> Result<Vec<String>, Failure> {
    let workers =
        parts.supervisor.send(GetWorkers).await.map_err(|error| {
            Failure::caused(ErrorCode::Internal, "the supervisor is gone", &error)
        })?;
    let (report, mut told) = Reporter::channel();
    let context = StepContext { transaction: TransactionId(0), cancel, report };
    let before = ask(&workers.service, RecordStates { units: plan.touched() }).await?;
    ask(&workers.service, HoldShutdown).await?;
    let result = start_and_watch(parts, &workers, plan.clone(), &context).await;
    let again = if result.is_err() {
        let context = context.clone().uncancellable();
        ask(&workers.service, StartAgain { before, plan, context }).await
    } else {
        Ok(())
    };
    ask(&workers.service, AllowShutdown).await?;
    drop(context);
    let mut warnings = Vec::new();
    while let Ok(report) = told.try_recv() {
        if let Report::Warning(text) = report {
            warnings.push(text);
        }
    }
    let health = match (result, again) {
        (Ok(health), _) => health,
        (Err(failure), Ok(())) => {
            return Err(failure.with_kept("what ran before runs again, and the tree is unchanged"));
        }
        (Err(failure), Err(undo)) => {
            let mut failure = failure.with_kept("the tree is unchanged");
            failure.undo = Some(Box::new(undo));
            return Err(failure);
        }
    };
    let failed_before = health.failed_before.iter();
    warnings.extend(failed_before.map(|unit| format!("{unit} had failed before")));
    warnings.extend(health.warnings);
    Ok(warnings)
}

/// Answers what their health is.
async fn start_and_watch(
    parts: &Parts,
    workers: &Workers,
    plan: ServicePlan,
    context: &StepContext,
) -> Result<HealthReport, Failure> {
    let (settings, context) = (&parts.settings, context.clone());
    let (units, probes) = (plan.watched(), settings.probes.clone());
    // Hooks are around updates.
    let (call, hook_timeout) = (None, settings.hook_timeout);
    let request = RecordBaseline { units, probes, call, hook_timeout, context: context.clone() };
    let baseline = ask(&workers.health, request).await?;
    let dwell = settings.dwell;
    let request = StartUnits { plan, dwell, context: context.clone() };
    let touched = ask(&workers.service, request).await?;
    let request = CheckHealth { baseline, touched, dwell, call: None, hook_timeout, context };
    ask(&workers.health, request).await
}
