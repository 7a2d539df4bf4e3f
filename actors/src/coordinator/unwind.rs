//! The undo of each step. Each is idempotent, and tolerates an effect that never happened.

use apt_ostree_proto::Failure;
use apt_ostree_proto::step::Step;

use super::drive::Drive;
use super::forward::ask;
use crate::health::EndChecks;
use crate::journal::Committed;
use crate::overlay::{DropCommit, DropStage, DropTree, SwitchBack, Undeploy};
use crate::package::{ArchiveLock, KillInstall};
use crate::service::{RestoreUnits, StopStarted};
use crate::supervisor::Workers;

impl Drive {
    /// Undoes one step; answers what people should know.
    pub(super) async fn undo_effect(
        &mut self,
        step: Step,
        workers: Workers,
    ) -> Result<Vec<String>, Failure> {
        match step {
            Step::Plan | Step::Verify | Step::Confirm | Step::Finalize => Ok(Vec::new()),
            Step::CheckHealth => {
                self.end_checks(&workers).await;
                Ok(Vec::new())
            }
            Step::Download => {
                // All is tried: a tree that stays must not keep apt locked out.
                let unstaged = ask(&workers.overlay, DropStage(self.id)).await;
                let dropped = ask(&workers.overlay, DropTree(self.id)).await;
                let released = ask(&workers.package, ArchiveLock::Release).await;
                released.and(unstaged).and(dropped).map(|()| Vec::new())
            }
            Step::Stage => ask(&workers.overlay, DropStage(self.id)).await.map(|()| Vec::new()),
            Step::Install => ask(&workers.package, KillInstall(self.id)).await.map(|()| Vec::new()),
            Step::Commit => ask(&workers.overlay, DropCommit(self.id)).await.map(|()| Vec::new()),
            Step::StopUnits => self.restore_units(&workers).await,
            Step::Switch => self.switch_back(&workers).await,
            Step::StartUnits => self.stop_started(&workers).await,
            Step::Deploy => match self.facts.deploying.clone() {
                Some(commit) => ask(&workers.overlay, Undeploy(commit)).await.map(|()| Vec::new()),
                None => Ok(Vec::new()),
            },
        }
    }

    /// Those that a daemon left which died meanwhile. They have time-outs of their own: nothing is stuck
    /// for them.
    async fn end_checks(&self, workers: &Workers) {
        if let Err(failure) = ask(&workers.health, EndChecks(self.id)).await {
            tracing::warn!(%failure, "checks are left to their time-outs");
        }
    }

    async fn restore_units(&mut self, workers: &Workers) -> Result<Vec<String>, Failure> {
        self.end_checks(workers).await;
        // Units whose state was never written down were never touched.
        let Some(before) = self.facts.unit_states.clone() else { return Ok(Vec::new()) };
        let plan = self.committed()?.services.clone();
        let service = workers.service.clone();
        self.reporting(async move |context| {
            // An undo is not cancelled: the cancel is what it carries out.
            let context = context.uncancellable();
            ask(&service, RestoreUnits { before, plan, context }).await
        })
        .await?;
        Ok(Vec::new())
    }

    async fn stop_started(&mut self, workers: &Workers) -> Result<Vec<String>, Failure> {
        // Units whose state was never written down were never touched.
        let Some(before) = self.facts.unit_states.clone() else { return Ok(Vec::new()) };
        let plan = self.committed()?.services.clone();
        let service = workers.service.clone();
        self.reporting(async move |context| {
            let context = context.uncancellable();
            ask(&service, StopStarted { before, plan, context }).await
        })
        .await?;
        Ok(Vec::new())
    }

    async fn switch_back(&mut self, workers: &Workers) -> Result<Vec<String>, Failure> {
        let Committed { tree, delta, services } = self.committed()?.clone();
        let changed = super::forward::changed_paths(&tree.changed, &delta);
        let reload = self.reload_managers(changed, services);
        let mut kept = ask(&workers.overlay, SwitchBack { tree, delta }).await?;
        let not_read = ask(&workers.service, reload).await?;
        kept.extend(not_read.into_iter().map(|one| one.failure.message));
        Ok(kept)
    }
}
