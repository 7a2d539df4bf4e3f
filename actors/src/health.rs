//! Health: whether the host's units, their probes and the admin's hooks stand the update.
//!
//! Modules in reading order: `baseline` is how everything is before anything is touched, `watch` what
//! happens to the units afterwards (judged by `verdict`, weighed by `usage`), `probes` asks them, and
//! `hooks` runs what the admin wrote. What had failed before is not the update's failure.

mod baseline;
mod hooks;
mod probes;
mod usage;
mod verdict;
mod watch;

use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use apt_ostree_proto::service::UnitState;
use apt_ostree_proto::{ErrorCode, Failure, TransactionId, UnitName};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::context::StepContext;
use crate::port::{Checks, HookCall, HookKind, Host, PortResult, Probes, Systemd};
use crate::service::Watched;
pub use baseline::{Baseline, FailedBefore, UnitProbe};
pub use hooks::HOOKS_BUDGET;
pub use probes::{LONGEST_PROBE, LONGEST_SETTLE};
pub(crate) use watch::change_within;

/// How long units must stay up where nobody says otherwise: long enough for a service to fail on its
/// first work, short enough to wait for.
pub const DEFAULT_DWELL: Duration = Duration::from_secs(5);

/// The longest that it can be configured to be. It is within the time after which the rescue guard takes an
/// update off that is not done.
pub const LONGEST_DWELL: Duration = Duration::from_secs(3 * 60);

/// How long the end of a transaction's probes and hooks is waited for: they end by themselves later.
const LONGEST_END: Duration = Duration::from_secs(30);

/// What a health check found: nothing that speaks against the update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// Units that stayed up for the whole dwell time.
    pub healthy: Vec<UnitName>,
    /// Units that had failed or flapped before the update, and so are not judged.
    pub failed_before: Vec<UnitName>,
    /// What the admin should know: wanted checks that failed, checks that had failed before, units that
    /// use far more than before.
    pub warnings: Vec<String>,
    /// How often the units were looked at.
    pub looks: u32,
}

/// The actor that watches units, asks them and runs hooks.
#[derive(Clone, Debug)]
pub struct HealthActor {
    systemd: Rc<dyn Systemd>,
    checks: Rc<dyn Checks>,
}

impl HealthActor {
    /// An actor on `host`.
    pub fn new(host: &Host) -> Self {
        Self { systemd: Rc::clone(&host.systemd), checks: Rc::clone(&host.checks) }
    }

    /// Runs `work` unless the step is cancelled; then nothing that it started is left.
    async fn cancellable<T>(
        &self,
        context: &StepContext,
        work: impl Future<Output = PortResult<T>>,
    ) -> PortResult<T> {
        tokio::select! {
            biased;
            () = context.cancel.cancelled() => {
                end_checks(self.checks.as_ref(), context.transaction).await;
                let text = "cancelled while the host's health was looked at";
                Err(Failure::new(ErrorCode::Cancelled, text))
            }
            result = work => result,
        }
    }
}

impl Actor for HealthActor {
    type Context = Context<Self>;
}

/// Request: the hooks that must not be run, each with the reason. Changes nothing.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "PortResult<Vec<String>>")]
pub struct FindRefusedHooks;

impl Handler<FindRefusedHooks> for HealthActor {
    type Result = ResponseFuture<PortResult<Vec<String>>>;

    fn handle(&mut self, _: FindRefusedHooks, _: &mut Self::Context) -> Self::Result {
        let checks = Rc::clone(&self.checks);
        Box::pin(async move { hooks::refused(checks.as_ref()).await })
    }
}

/// Request: how the units and what needs them are, which of their probes and which hooks fail, before
/// anything is touched. Changes nothing, but for what hooks do.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<Baseline>")]
pub struct RecordBaseline {
    /// The units that the update will touch: `ServicePlan::watched`.
    pub units: Watched,
    /// The configured probes; asked are those of the units above and of what needs them.
    pub probes: Probes,
    /// What hooks are told; none: they are not run.
    pub call: Option<HookCall>,
    /// How long a hook may take.
    pub hook_timeout: Duration,
    /// The step.
    pub context: StepContext,
}

impl Handler<RecordBaseline> for HealthActor {
    type Result = ResponseFuture<PortResult<Baseline>>;

    fn handle(&mut self, request: RecordBaseline, _: &mut Self::Context) -> Self::Result {
        let this = self.clone();
        Box::pin(async move {
            let work = baseline::record(this.systemd.as_ref(), this.checks.as_ref(), &request);
            this.cancellable(&request.context, work).await
        })
    }
}

/// Request: watch the touched units and what needs them for the dwell time, ask their probes until they
/// have settled, then run the hooks. Answers at once when one fails that is required. Errors:
/// `Unhealthy` names what failed and why; `Cancelled`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<HealthReport>")]
pub struct CheckHealth {
    /// What [`RecordBaseline`] answered.
    pub baseline: Baseline,
    /// The units that were started, restarted or reloaded and are expected to stay up.
    pub touched: Vec<UnitName>,
    /// How long they must stay up: [`DEFAULT_DWELL`].
    pub dwell: Duration,
    /// What hooks are told; none: they are not run.
    pub call: Option<HookCall>,
    /// How long a hook may take.
    pub hook_timeout: Duration,
    /// The step.
    pub context: StepContext,
}

impl Handler<CheckHealth> for HealthActor {
    type Result = ResponseFuture<PortResult<HealthReport>>;

    fn handle(&mut self, request: CheckHealth, _: &mut Self::Context) -> Self::Result {
        let this = self.clone();
        Box::pin(async move {
            let work = check(this.systemd.as_ref(), this.checks.as_ref(), &request);
            this.cancellable(&request.context, work).await
        })
    }
}

/// Request: run the hooks that follow the end of a transaction. Answers what failed: nothing of it
/// changes how the transaction ended. May run again after a crash.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<Vec<String>>")]
pub struct RunLastHooks {
    /// Which.
    pub kind: HookKind,
    /// What they are told.
    pub call: HookCall,
    /// How long each may take.
    pub timeout: Duration,
    /// The transaction's, deaf to a cancel.
    pub context: StepContext,
}

impl Handler<RunLastHooks> for HealthActor {
    type Result = ResponseFuture<PortResult<Vec<String>>>;

    fn handle(&mut self, request: RunLastHooks, _: &mut Self::Context) -> Self::Result {
        let checks = Rc::clone(&self.checks);
        Box::pin(async move { hooks::run_last(checks.as_ref(), &request).await })
    }
}

/// Request: end whatever probes and hooks of the transaction still run. Undo; what cannot be ended now
/// ends by its own time-out.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct EndChecks(pub TransactionId);

impl Handler<EndChecks> for HealthActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: EndChecks, _: &mut Self::Context) -> Self::Result {
        let checks = Rc::clone(&self.checks);
        Box::pin(async move {
            end_checks(checks.as_ref(), request.0).await;
            Ok(())
        })
    }
}

async fn end_checks(checks: &dyn Checks, transaction: TransactionId) {
    match tokio::time::timeout(LONGEST_END, checks.end(transaction)).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => tracing::warn!(%failure, "checks are left to their time-outs"),
        Err(_) => tracing::warn!("checks are left to their time-outs"),
    }
}

async fn check(
    systemd: &dyn Systemd,
    checks: &dyn Checks,
    request: &CheckHealth,
) -> PortResult<HealthReport> {
    // What ran and does not any more is judged even if it ended well.
    let none_ran = !request.baseline.states.values().any(UnitState::is_up);
    let mut report = if none_ran && request.touched.is_empty() {
        HealthReport::default()
    } else {
        let settled = CancellationToken::new();
        let asked = async {
            let warnings = probes::settle(checks, request).await?;
            settled.cancel();
            PortResult::<Vec<String>>::Ok(warnings)
        };
        let watched = watch::watch(systemd, request, &settled);
        let (mut report, warnings) = futures_util::try_join!(watched, asked)?;
        report.warnings.extend(warnings);
        report
    };
    report.warnings.extend(hooks::check(checks, request).await?);
    request.context.report.fraction(1.0);
    Ok(report)
}

#[cfg(test)]
#[path = "health/tests.rs"]
mod tests;
