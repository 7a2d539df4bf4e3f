//! Hooks: what the admin has run around an update.

use std::time::Duration;

use apt_ostree_proto::{ErrorCode, Failure};
use tokio::time::{Instant, timeout};

use super::baseline::FailedBefore;
use super::{CheckHealth, RecordBaseline, RunLastHooks};
use crate::context::StepContext;
use crate::port::{CheckAnswer, Checks, Hook, HookCall, HookKind, PortResult};

/// How long all hooks of one moment may take together: an update whose units are down for their sake
/// must not run into the rescue guard's time. What is not done by then has failed.
pub const HOOKS_BUDGET: Duration = Duration::from_secs(3 * 60);

/// How much longer than its own time-out a hook is waited for.
const GRACE: Duration = Duration::from_secs(20);

/// How much of what a check printed last is in a message.
const LONGEST_QUOTE: usize = 300;

/// What is around the checks.
const AROUND: [HookKind; 2] = [HookKind::Required, HookKind::Wanted];

/// The hooks that must not be run.
pub(super) async fn refused(checks: &dyn Checks) -> PortResult<Vec<String>> {
    let mut refused = Vec::new();
    for kind in HookKind::ALL {
        let hooks = checks.hooks(*kind).await?;
        refused.extend(hooks.iter().filter_map(|hook| {
            let why = hook.refused.as_ref()?;
            Some(format!("\"{}\" {why}", hook.path.display()))
        }));
    }
    Ok(refused)
}

/// Runs what checks the host, and answers what fails already.
pub(super) async fn fail_before(
    checks: &dyn Checks,
    request: &RecordBaseline,
) -> PortResult<Vec<FailedBefore>> {
    let Some(call) = &request.call else { return Ok(Vec::new()) };
    let runner = Runner::new(checks, call, request.hook_timeout, &request.context);
    let mut failed = Vec::new();
    for kind in AROUND {
        for hook in checks.hooks(kind).await? {
            if let Some(why) = runner.run(&hook).await? {
                failed.push(FailedBefore { kind, name: hook.name, why });
            }
        }
    }
    Ok(failed)
}

/// Runs what checks the host with the update. Answers warnings; `Unhealthy` for the first required one.
pub(super) async fn check(checks: &dyn Checks, request: &CheckHealth) -> PortResult<Vec<String>> {
    let Some(call) = &request.call else { return Ok(Vec::new()) };
    let runner = Runner::new(checks, call, request.hook_timeout, &request.context);
    let mut warnings = Vec::new();
    for kind in AROUND {
        for hook in checks.hooks(kind).await? {
            let Some(why) = runner.run(&hook).await? else { continue };
            let before = &request.baseline.failed_hooks;
            let had_failed = before.iter().any(|b| b.kind == kind && b.name == hook.name);
            if had_failed {
                warnings.push(format!("{hook} failed, as before the update: {why}"));
            } else if kind == HookKind::Wanted {
                warnings.push(format!("{hook} failed: {why}"));
            } else {
                let text = format!("the required check {hook} failed: {why}");
                return Err(Failure::new(ErrorCode::Unhealthy, text)
                    .with_hint("See what it printed: apt-ostree show ID."));
            }
        }
    }
    Ok(warnings)
}

/// Runs what follows the end of a transaction; answers what failed.
pub(super) async fn run_last(
    checks: &dyn Checks,
    request: &RunLastHooks,
) -> PortResult<Vec<String>> {
    let runner = Runner::new(checks, &request.call, request.timeout, &request.context);
    let mut warnings = Vec::new();
    for hook in checks.hooks(request.kind).await? {
        let failed = runner.run(&hook).await?;
        warnings.extend(failed.map(|why| format!("{hook} failed: {why}")));
    }
    Ok(warnings)
}

struct Runner<'a> {
    checks: &'a dyn Checks,
    call: &'a HookCall,
    timeout: Duration,
    context: &'a StepContext,
    end: Instant,
}

impl<'a> Runner<'a> {
    fn new(
        checks: &'a dyn Checks,
        call: &'a HookCall,
        timeout: Duration,
        context: &'a StepContext,
    ) -> Self {
        Self { checks, call, timeout, context, end: Instant::now() + HOOKS_BUDGET }
    }

    /// Runs one hook; what it prints goes to the transaction's log. Answers why it failed, if it did.
    async fn run(&self, hook: &Hook) -> PortResult<Option<String>> {
        if let Some(why) = &hook.refused {
            return Ok(Some(format!("it was not run: it {why}")));
        }
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let seconds = HOOKS_BUDGET.as_secs();
            return Ok(Some(format!("it was not run: those before it took {seconds} s in all")));
        }
        let limit = self.timeout.min(left);
        self.context.report.item(hook.to_string(), "running", 0);
        let run = self.checks.run_hook(hook, self.call, limit);
        let CheckAnswer { failure, output } = match timeout(limit + GRACE, run).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(failure)) if failure.code == ErrorCode::BusLost => return Err(failure),
            Ok(Err(failure)) => CheckAnswer::failed(failure.message),
            Err(_) => CheckAnswer::failed("it did not end in time"),
        };
        for line in &output {
            self.context.report.log(format!("{hook}: {line}"));
        }
        let status = if failure.is_some() { "failed" } else { "passed" };
        self.context.report.item(hook.to_string(), status, 100);
        Ok(failure.map(|why| with_last_line(why, &output)))
    }
}

/// Why a check failed, with what it printed last.
pub(super) fn with_last_line(why: String, output: &[String]) -> String {
    let Some(last) = output.iter().rev().find(|line| !line.trim().is_empty()) else { return why };
    let last: String =
        last.trim().chars().filter(|c| !c.is_control()).take(LONGEST_QUOTE).collect();
    format!("{why}: {last}")
}
