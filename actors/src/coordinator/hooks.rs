//! What the admin has run around an update.

use std::time::Duration;

use apt_ostree_proto::plan::Plan;
use apt_ostree_proto::request::Target;
use apt_ostree_proto::status::Outcome;
use apt_ostree_proto::{ErrorCode, Failure};
use tokio::time::timeout;

use super::drive::Drive;
use super::forward::ask;
use crate::health::{FindRefusedHooks, HOOKS_BUDGET, RunLastHooks};
use crate::port::{HookCall, HookKind, HookPhase};
use crate::supervisor::Workers;

/// How long the last hooks are waited for: longer than their own limits.
const LONGEST_LAST_HOOKS: Duration = HOOKS_BUDGET.saturating_add(Duration::from_secs(60));

/// How many hooks that must not be run are named.
const MOST_NAMED: usize = 5;

impl Drive {
    /// Refuses a host with a hook that must not be run: a check that is left out without a word would be
    /// taken for one that passes. A rollback does not wait for somebody to mend it.
    pub(super) async fn refuse_bad_hooks(&mut self, workers: &Workers) -> Result<(), Failure> {
        let refused = ask(&workers.health, FindRefusedHooks).await?;
        if refused.is_empty() {
            return Ok(());
        }
        let more = refused.len().saturating_sub(MOST_NAMED);
        let named: Vec<String> = refused.into_iter().take(MOST_NAMED).collect();
        let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
        let text = format!("a hook cannot be run: {}{more}", named.join("; "));
        if matches!(self.request.target, Target::Before(_)) {
            return self
                .reporting(async move |context| {
                    context.report.warning(text);
                    Ok(())
                })
                .await;
        }
        Err(Failure::new(ErrorCode::InvalidConfiguration, text).with_hint(
            "Give it to root, make it executable and writable for nobody else; or mask it with a link to /dev/null.",
        ))
    }

    /// What hooks are told now.
    pub(super) fn hook_call(&self, phase: HookPhase) -> HookCall {
        let changes = self.facts.plan.iter().flat_map(|plan: &Plan| &plan.changes);
        HookCall {
            transaction: self.id,
            phase,
            packages: changes.map(|change| change.name.to_string()).collect(),
            result: None,
            reason: None,
        }
    }

    /// Runs what follows the end: nothing of it changes how the transaction ended. A daemon that dies
    /// meanwhile is followed by one that runs it again.
    pub(super) async fn run_last_hooks(&mut self, outcome: Outcome) {
        let kind = match outcome {
            Outcome::Committed | Outcome::Forced => HookKind::Green,
            Outcome::RolledBack | Outcome::Stuck => HookKind::Red,
            Outcome::NothingToDo | Outcome::Planned | Outcome::Failed | Outcome::Cancelled => {
                return;
            }
        };
        match timeout(LONGEST_LAST_HOOKS, self.last_hooks(kind, outcome)).await {
            Ok(Ok(failed)) => self.facts.warnings.extend(failed),
            Ok(Err(failure)) => {
                let directory = kind.directory();
                self.facts.warnings.push(format!("{directory} could not be run: {failure}"));
            }
            Err(_) => {
                let directory = kind.directory();
                self.facts.warnings.push(format!("{directory} did not end in time"));
            }
        }
    }

    async fn last_hooks(
        &mut self,
        kind: HookKind,
        outcome: Outcome,
    ) -> Result<Vec<String>, Failure> {
        let workers = self.workers().await?;
        let reason = self.facts.failure.as_ref().map(|failure| failure.message.clone());
        let call = HookCall {
            result: Some(outcome.name().to_owned()),
            reason: reason.filter(|_| !outcome.is_success()),
            ..self.hook_call(HookPhase::End)
        };
        let timeout = self.parts.settings.hook_timeout;
        self.reporting(async move |context| {
            let context = context.uncancellable();
            ask(&workers.health, RunLastHooks { kind, call, timeout, context }).await
        })
        .await
    }
}
