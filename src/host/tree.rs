//! [`Tree`] on `OSTree`: what only reads is read here, what writes or needs libostree is a worker's
//! task.

pub mod layout;
pub mod metadata_key;
pub mod mounted;
pub mod mountinfo;
pub mod state;
pub mod task;
pub mod trash;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use apt_ostree_actors::context::{Reporter, StepContext};
use apt_ostree_actors::port::{
    CommittedTree, HostTree, PortResult, Retention, Tree, TreeComparison, TreeLook, TreeMetadata,
};
use apt_ostree_proto::difference::TreeDifference;
use apt_ostree_proto::point::KeptUpdate;
use apt_ostree_proto::{CommitId, ErrorCode, Failure, PointName, TransactionId};
use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::state::StateReader;
use self::task::{
    CheckOutRequest, CleanUpRequest, CommitRequest, CompareRequest, DeploymentRequest, HoldRequest,
    LookRequest, PrepareRequest, RefRequest, TargetRequest, TransactionRequest,
};
use super::{namespace, worker};

/// How long what was moved aside stays: until whoever waits for the end of an unwind has it.
const SWEEP_DELAY: Duration = Duration::from_secs(1);

/// The trees of the host.
#[derive(Clone, Debug, Default)]
pub struct OstreeTree {
    state: StateReader,
    preparations: Arc<Mutex<BTreeMap<TransactionId, Preparation>>>,
    /// Held by the one worker that removes what was moved aside.
    sweeping: Arc<tokio::sync::Mutex<()>>,
}

/// What is made while packages are fetched and installed: the staging area, and a checkout of the
/// running commit, so that after the commit only the difference is left to check out.
#[derive(Debug)]
struct Preparation {
    cancel: CancellationToken,
    tasks: [JoinHandle<()>; 2],
    /// Tells what became of the staging area; none once somebody waits for it.
    staged: Option<oneshot::Receiver<PortResult<()>>>,
}

impl OstreeTree {
    /// The host's own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes in the background, a little later, what was moved aside: also by a daemon that ended
    /// before it had removed it.
    pub fn sweep_later(&self) {
        let turn = Arc::clone(&self.sweeping);
        tokio::spawn(async move {
            tokio::time::sleep(SWEEP_DELAY).await;
            let _turn = turn.lock().await;
            let swept = match trash::entries() {
                Ok(entries) if entries.is_empty() => return,
                Ok(_) => worker::run(task::SWEEP, &(), &unattended(TransactionId(0))).await,
                Err(failure) => Err(failure),
            };
            if let Err::<(), Failure>(failure) = swept {
                // The next sweep, or the next update's cleaning, tries again.
                tracing::warn!(%failure, "what was moved aside could not be removed");
            }
        });
    }

    /// Does nothing when it was begun.
    fn begin_preparation(&self, base: &CommitId, context: &StepContext) {
        if self.preparations().contains_key(&context.transaction) {
            return;
        }
        let transaction = context.transaction;
        let cancel = context.cancel.child_token();
        let context =
            StepContext { transaction, cancel: cancel.clone(), report: Reporter::silent() };
        let request = PrepareRequest { transaction, base: base.clone() };
        let own = context.clone();
        let checkout = tokio::spawn(async move {
            let made: PortResult<()> = worker::run(task::PREPARE, &request, &own).await;
            if let Err(failure) = made {
                // Without it the whole tree is checked out after the commit.
                tracing::info!(%failure, "the checkout was not prepared");
            }
        });
        let (sender, staged) = oneshot::channel();
        let stage = tokio::spawn(async move {
            let request = TransactionRequest { transaction };
            // Nobody listens when the transaction unwinds before it stages.
            drop(sender.send(worker::run(task::STAGE, &request, &context).await));
        });
        let preparation = Preparation { cancel, tasks: [checkout, stage], staged: Some(staged) };
        self.preparations().insert(transaction, preparation);
    }

    /// Waits until nobody prepares anything for the transaction any more.
    async fn end_preparation(&self, transaction: TransactionId, cancel: bool) {
        let Some(preparation) = self.preparations().remove(&transaction) else { return };
        if cancel {
            preparation.cancel.cancel();
        }
        for task in preparation.tasks {
            if let Err(error) = task.await {
                tracing::warn!(%error, "the new tree was not prepared");
            }
        }
    }

    fn preparations(&self) -> MutexGuard<'_, BTreeMap<TransactionId, Preparation>> {
        self.preparations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait(?Send)]
impl Tree for OstreeTree {
    async fn state(&self) -> PortResult<HostTree> {
        let state = self.state.clone();
        tokio::task::spawn_blocking(move || state.read()).await.map_err(|error| {
            Failure::caused(ErrorCode::Internal, "the host's trees could not be read", &error)
        })?
    }

    async fn find_target(&self, target: Option<&CommitId>) -> PortResult<CommitId> {
        let request = TargetRequest { target: target.cloned() };
        worker::run(task::FIND_TARGET, &request, &unattended(TransactionId(0))).await
    }

    async fn prepare(&self, base: &CommitId, context: &StepContext) -> PortResult<()> {
        self.begin_preparation(base, context);
        Ok(())
    }

    async fn stage(&self, base: &CommitId, context: &StepContext) -> PortResult<()> {
        let running = self.state().await?.running;
        if running != *base {
            let message = format!(
                "the host runs commit {} by now, and no longer {}",
                running.short(),
                base.short()
            );
            return Err(Failure::new(ErrorCode::StalePlan, message));
        }
        self.begin_preparation(base, context);
        let staged =
            self.preparations().get_mut(&context.transaction).and_then(|p| p.staged.take());
        if let Some(staged) = staged {
            return staged.await.map_err(|error| {
                Failure::caused(ErrorCode::Internal, "the staging area was not made", &error)
            })?;
        }
        // Staged again: what was prepared went to an earlier attempt.
        let request = TransactionRequest { transaction: context.transaction };
        worker::run(task::STAGE, &request, context).await
    }

    async fn drop_stage(&self, transaction: TransactionId) -> PortResult<()> {
        self.end_preparation(transaction, true).await;
        namespace::in_host(move || trash::discard_stage(transaction)).await?;
        self.sweep_later();
        Ok(())
    }

    async fn commit(
        &self,
        base: &CommitId,
        metadata: &TreeMetadata,
        context: &StepContext,
    ) -> PortResult<CommittedTree> {
        self.end_preparation(context.transaction, false).await;
        let request = CommitRequest {
            transaction: context.transaction,
            base: base.clone(),
            metadata: metadata.clone(),
        };
        worker::run(task::COMMIT, &request, context).await
    }

    async fn check_out(
        &self,
        base: &CommitId,
        commit: &CommitId,
        context: &StepContext,
    ) -> PortResult<CommittedTree> {
        let request = CheckOutRequest {
            transaction: context.transaction,
            base: base.clone(),
            commit: commit.clone(),
        };
        worker::run(task::CHECK_OUT, &request, context).await
    }

    async fn drop_commit(&self, transaction: TransactionId) -> PortResult<()> {
        self.end_preparation(transaction, true).await;
        namespace::in_host(move || trash::discard_checkout(transaction)).await?;
        self.sweep_later();
        Ok(())
    }

    async fn deploy(&self, commit: &CommitId, context: &StepContext) -> PortResult<()> {
        let request = DeploymentRequest { commit: commit.clone() };
        worker::run(task::DEPLOY, &request, context).await
    }

    async fn is_deployed(&self, commit: &CommitId) -> PortResult<bool> {
        Ok(self.state().await?.next == *commit)
    }

    async fn undeploy(&self, commit: &CommitId) -> PortResult<()> {
        // An update that did not get as far must not depend on what the new tree's libraries do
        // to the worker.
        let (state, wanted) = (self.state.clone(), commit.clone());
        let found = tokio::task::spawn_blocking(move || state.has_deployment(&wanted)).await;
        if matches!(found, Ok(Ok(false))) {
            return Ok(());
        }
        let request = DeploymentRequest { commit: commit.clone() };
        worker::run(task::UNDEPLOY, &request, &unattended(TransactionId(0))).await
    }

    async fn stage_deployment(&self, commit: &CommitId, context: &StepContext) -> PortResult<()> {
        let request = DeploymentRequest { commit: commit.clone() };
        worker::run(task::STAGE_DEPLOYMENT, &request, context).await
    }

    async fn clean_up(&self, retention: &Retention) -> PortResult<Vec<KeptUpdate>> {
        let request = CleanUpRequest { retention: retention.clone() };
        let _turn = self.sweeping.lock().await;
        worker::run(task::CLEAN_UP, &request, &unattended(TransactionId(0))).await
    }

    async fn look(&self, commits: &[CommitId], context: &StepContext) -> PortResult<TreeLook> {
        // What a sweep is about to remove is no leftover.
        let _turn = self.sweeping.lock().await;
        worker::run(task::LOOK, &LookRequest { commits: commits.to_vec() }, context).await
    }

    async fn compare(&self, context: &StepContext) -> PortResult<TreeComparison> {
        worker::run(task::VERIFY, &(), context).await
    }

    async fn restore_ref(&self, transaction: TransactionId, commit: &CommitId) -> PortResult<()> {
        let request = RefRequest { transaction, commit: commit.clone() };
        worker::run(task::RESTORE_REF, &request, &unattended(transaction)).await
    }

    async fn hold(&self, point: &PointName, commit: &CommitId) -> PortResult<()> {
        let request = HoldRequest { point: point.clone(), commit: Some(commit.clone()) };
        worker::run(task::HOLD, &request, &unattended(TransactionId(0))).await
    }

    async fn release(&self, point: &PointName) -> PortResult<()> {
        let request = HoldRequest { point: point.clone(), commit: None };
        worker::run(task::HOLD, &request, &unattended(TransactionId(0))).await
    }

    async fn difference(
        &self,
        old: &CommitId,
        new: &CommitId,
        context: &StepContext,
    ) -> PortResult<TreeDifference> {
        let request = CompareRequest { old: old.clone(), new: new.clone() };
        worker::run(task::COMPARE, &request, context).await
    }
}

/// The context of what cannot be cancelled: undos, and questions.
fn unattended(transaction: TransactionId) -> StepContext {
    StepContext { transaction, cancel: CancellationToken::new(), report: Reporter::silent() }
}
