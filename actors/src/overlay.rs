//! The overlay actor: staging areas, commits, the switch, deployments; what an inspection wants to know of
//! them is in `inspection`.

mod inspection;

mod points;

pub use points::{CompareTrees, HoldPoint, ReleasePoint};

use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use apt_ostree_proto::point::KeptUpdate;
use apt_ostree_proto::{CommitId, ErrorCode, Failure, TransactionId};

use crate::context::StepContext;
use crate::port::{
    CommittedTree, Delta, DeltaSource, Files, Host, HostTree, Mounts, PortResult, RebootAdvice,
    Retention, Tree, TreeMetadata,
};

pub use inspection::{CleanUpTrees, LookAtTrees, MendTrees, TreeSight};

/// Holds the tree, mount and file ports.
#[derive(Clone, Debug)]
pub struct OverlayActor {
    tree: Rc<dyn Tree>,
    mounts: Rc<dyn Mounts>,
    files: Rc<dyn Files>,
}

impl OverlayActor {
    /// An actor on `host`.
    pub fn new(host: &Host) -> Self {
        Self {
            tree: Rc::clone(&host.tree),
            mounts: Rc::clone(&host.mounts),
            files: Rc::clone(&host.files),
        }
    }
}

impl Actor for OverlayActor {
    type Context = Context<Self>;
}

/// Request: what is booted, what runs, what boots next. Fails when something foreign is mounted on
/// `/usr`.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "PortResult<HostTree>")]
pub struct DescribeHost;

impl Handler<DescribeHost> for OverlayActor {
    type Result = ResponseFuture<PortResult<HostTree>>;

    fn handle(&mut self, _: DescribeHost, _: &mut Self::Context) -> Self::Result {
        let this = self.clone();
        Box::pin(async move {
            let state = this.tree.state().await?;
            this.mounts.stack().await?;
            Ok(state)
        })
    }
}

/// Request: the commit that `apply-live --target` means; the pending deployment's for none.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<CommitId>")]
pub struct FindTarget(pub Option<CommitId>);

impl Handler<FindTarget> for OverlayActor {
    type Result = ResponseFuture<PortResult<CommitId>>;

    fn handle(&mut self, request: FindTarget, _: &mut Self::Context) -> Self::Result {
        let tree = Rc::clone(&self.tree);
        Box::pin(async move { tree.find_target(request.0.as_ref()).await })
    }
}

/// Request: begin to make the stage and the new tree, in the background. [`DropStage`] and
/// [`DropTree`] are the undo.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct PrepareTree {
    /// The running commit.
    pub base: CommitId,
    /// The step.
    pub context: StepContext,
}

impl Handler<PrepareTree> for OverlayActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: PrepareTree, _: &mut Self::Context) -> Self::Result {
        let tree = Rc::clone(&self.tree);
        Box::pin(async move { tree.prepare(&request.base, &request.context).await })
    }
}

/// Request: remove the new tree, as far as it is made. A part of the undo of [`PrepareTree`].
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct DropTree(pub TransactionId);

impl Handler<DropTree> for OverlayActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: DropTree, _: &mut Self::Context) -> Self::Result {
        let tree = Rc::clone(&self.tree);
        Box::pin(async move { tree.drop_commit(request.0).await })
    }
}

/// Request: make the private root that packages are installed in.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct StageTree {
    /// The running commit.
    pub base: CommitId,
    /// The step.
    pub context: StepContext,
}

impl Handler<StageTree> for OverlayActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: StageTree, _: &mut Self::Context) -> Self::Result {
        let tree = Rc::clone(&self.tree);
        Box::pin(async move { tree.stage(&request.base, &request.context).await })
    }
}

/// Request: remove the private root. The undo of [`StageTree`].
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct DropStage(pub TransactionId);

impl Handler<DropStage> for OverlayActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: DropStage, _: &mut Self::Context) -> Self::Result {
        let tree = Rc::clone(&self.tree);
        Box::pin(async move { tree.drop_stage(request.0).await })
    }
}

/// Where a new tree comes from.
#[derive(Clone, Debug)]
pub enum NewTree {
    /// The staged change on top of the running commit.
    Staged(TreeMetadata),
    /// A commit that is there; `/etc` is merged from the trees' defaults.
    Commit(CommitId),
    /// The commit before earlier transactions; their deltas, newest first, are undone.
    Before {
        /// The commit.
        commit: CommitId,
        /// The deltas.
        deltas: Vec<Delta>,
    },
}

/// Request: commit or find the new tree, check it out, and work out what `/etc` and `/var` get. The
/// running host is not changed.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<(CommittedTree, Delta)>")]
pub struct CommitTree {
    /// The running commit.
    pub base: CommitId,
    /// Where the new tree comes from.
    pub source: NewTree,
    /// The step.
    pub context: StepContext,
}

impl Handler<CommitTree> for OverlayActor {
    type Result = ResponseFuture<PortResult<(CommittedTree, Delta)>>;

    fn handle(&mut self, request: CommitTree, _: &mut Self::Context) -> Self::Result {
        let this = self.clone();
        Box::pin(async move { this.commit(request).await })
    }
}

impl OverlayActor {
    async fn commit(&self, request: CommitTree) -> PortResult<(CommittedTree, Delta)> {
        let CommitTree { base, source, context } = request;
        let tree = match &source {
            NewTree::Staged(metadata) => self.tree.commit(&base, metadata, &context).await?,
            NewTree::Commit(commit) | NewTree::Before { commit, .. } => {
                self.tree.check_out(&base, commit, &context).await?
            }
        };
        let delta_source = match source {
            NewTree::Staged(_) => DeltaSource::Stage,
            NewTree::Commit(new) => {
                DeltaSource::Trees { old: base, new, new_usr: tree.usr.path.clone() }
            }
            NewTree::Before { deltas, .. } => DeltaSource::Reverse { deltas },
        };
        let delta = self.files.prepare(&delta_source, &context).await?;
        Ok((tree, delta))
    }
}

/// Request: remove the new tree and the staged files. The undo of [`CommitTree`].
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct DropCommit(pub TransactionId);

impl Handler<DropCommit> for OverlayActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: DropCommit, _: &mut Self::Context) -> Self::Result {
        let this = self.clone();
        Box::pin(async move {
            this.mounts.abandon(request.0).await?;
            this.files.discard(request.0).await?;
            this.tree.drop_commit(request.0).await
        })
    }
}

/// Request: ready the switch, so that nothing slow is left to do while units are stopped.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct PrepareSwitch {
    /// The transaction.
    pub transaction: TransactionId,
    /// The new tree.
    pub tree: CommittedTree,
}

impl Handler<PrepareSwitch> for OverlayActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: PrepareSwitch, _: &mut Self::Context) -> Self::Result {
        let mounts = Rc::clone(&self.mounts);
        Box::pin(async move { mounts.prepare(request.transaction, &request.tree.usr).await })
    }
}

/// Request: mount the new `/usr`, then change `/etc` and `/var`. Answers what was left alone because
/// it had been edited in between.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<Vec<String>>")]
pub struct SwitchTree {
    /// The new tree.
    pub tree: CommittedTree,
    /// What `/etc` and `/var` get.
    pub delta: Delta,
}

impl Handler<SwitchTree> for OverlayActor {
    type Result = ResponseFuture<PortResult<Vec<String>>>;

    fn handle(&mut self, request: SwitchTree, _: &mut Self::Context) -> Self::Result {
        let this = self.clone();
        Box::pin(async move {
            this.mounts.switch(&request.tree.usr).await?;
            this.files.apply(&request.delta).await
        })
    }
}

/// Request: put `/var`, `/etc` and `/usr` back. The undo of [`SwitchTree`]. Answers what was left
/// alone because it had been edited since.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<Vec<String>>")]
pub struct SwitchBack {
    /// The new tree.
    pub tree: CommittedTree,
    /// What `/etc` and `/var` got.
    pub delta: Delta,
}

impl Handler<SwitchBack> for OverlayActor {
    type Result = ResponseFuture<PortResult<Vec<String>>>;

    fn handle(&mut self, request: SwitchBack, _: &mut Self::Context) -> Self::Result {
        let this = self.clone();
        Box::pin(async move {
            let kept = this.files.revert(&request.delta).await?;
            this.mounts.unswitch(&request.tree.usr).await?;
            Ok(kept)
        })
    }
}

/// Request: keep the new tree guarded while it waits for its confirmation. Fails when it is not on
/// `/usr` any more. Idempotent.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct GuardTree {
    /// The transaction.
    pub transaction: TransactionId,
    /// The new tree.
    pub tree: CommittedTree,
    /// The end of the wait, in time since the boot.
    pub end: Duration,
}

impl Handler<GuardTree> for OverlayActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: GuardTree, _: &mut Self::Context) -> Self::Result {
        let this = self.clone();
        Box::pin(async move {
            let GuardTree { transaction, tree, end } = request;
            this.mounts.guard_until(transaction, &tree.usr, end).await?;
            this.refuse_unless_on_top(&tree).await
        })
    }
}

/// Request: make the new tree what boots next: the pivot. The rescue guard is stood down first,
/// for it must not take away what is about to be kept.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct DeployTree {
    /// The new tree.
    pub tree: CommittedTree,
    /// Whether it runs already, and is refused where it does not any more.
    pub is_live: bool,
    /// The step.
    pub context: StepContext,
}

impl Handler<DeployTree> for OverlayActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: DeployTree, _: &mut Self::Context) -> Self::Result {
        let this = self.clone();
        Box::pin(async move {
            if request.is_live {
                this.mounts.stand_down(request.context.transaction).await?;
                this.refuse_unless_on_top(&request.tree).await?;
            }
            this.deploy(&request.tree.commit, &request.context).await
        })
    }
}

/// Request: whether the commit is what boots next. On recovery this decides, not the journal.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<bool>")]
pub struct IsDeployed(pub CommitId);

impl Handler<IsDeployed> for OverlayActor {
    type Result = ResponseFuture<PortResult<bool>>;

    fn handle(&mut self, request: IsDeployed, _: &mut Self::Context) -> Self::Result {
        let tree = Rc::clone(&self.tree);
        Box::pin(async move { tree.is_deployed(&request.0).await })
    }
}

/// Request: remove the deployment again. The undo of [`DeployTree`].
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct Undeploy(pub CommitId);

impl Handler<Undeploy> for OverlayActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: Undeploy, _: &mut Self::Context) -> Self::Result {
        let tree = Rc::clone(&self.tree);
        Box::pin(async move { tree.undeploy(&request.0).await })
    }
}

/// Request: stage the deployment too, so that late edits of `/etc` are merged at shutdown; collapse
/// the covered mount; drop what no later rollback needs. Answers the updates that can be undone.
/// Idempotent.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<Vec<KeptUpdate>>")]
pub struct FinalizeTree {
    /// The commit.
    pub commit: CommitId,
    /// What later rollbacks need.
    pub retention: Retention,
    /// What waits for the next boot since, where that has changed.
    pub advice: Option<RebootAdvice>,
    /// The step.
    pub context: StepContext,
}

impl Handler<FinalizeTree> for OverlayActor {
    type Result = ResponseFuture<PortResult<Vec<KeptUpdate>>>;

    fn handle(&mut self, request: FinalizeTree, _: &mut Self::Context) -> Self::Result {
        let this = self.clone();
        Box::pin(async move { this.finalize(request).await })
    }
}

impl OverlayActor {
    /// A guard whose time was up has taken the tree off, and is gone when it is stood down: what
    /// does not run any more must not be kept. A rollback's tree may be an earlier transaction's, or
    /// the booted deployment's own: it is told by its place.
    async fn refuse_unless_on_top(&self, tree: &CommittedTree) -> PortResult<()> {
        let within_file_system = tree.usr.path.strip_prefix("/sysroot").unwrap_or(&tree.usr.path);
        let stack = self.mounts.stack().await?;
        if stack.last().is_some_and(|top| top.root.ends_with(within_file_system)) {
            return Ok(());
        }
        Err(Failure::new(
            ErrorCode::SwitchFailed,
            format!("the tree of {} is not on /usr any more", tree.commit.short()),
        )
        .with_hint("The rescue guard takes it off when the update takes too long: see the journal of apt-ostree-guard-*."))
    }

    /// The list of deployments decides, not what is said about it: where it was swapped already the
    /// update is kept, and an undo would not know what had booted next before.
    async fn deploy(&self, commit: &CommitId, context: &StepContext) -> PortResult<()> {
        let Err(failure) = self.tree.deploy(commit, context).await else { return Ok(()) };
        match self.tree.is_deployed(commit).await {
            Ok(true) => {
                tracing::warn!(%failure, "{} is deployed all the same", commit.short());
                Ok(())
            }
            Ok(false) | Err(_) => Err(failure),
        }
    }

    async fn finalize(&self, request: FinalizeTree) -> PortResult<Vec<KeptUpdate>> {
        let FinalizeTree { commit, retention, advice, context } = request;
        let id = context.transaction;
        // The update is kept: no part's failure excuses another, and the first is told.
        let parts = [
            self.mounts.stand_down(id).await,
            self.tree.stage_deployment(&commit, &context).await,
            self.files.append_logs(id).await,
            self.mounts.collapse(id).await,
            self.tree.drop_stage(id).await,
            match &advice {
                Some(advice) => self.files.advise_reboot(advice).await,
                None => Ok(()),
            },
        ];
        let kept = self.tree.clean_up(&retention).await;
        parts.into_iter().collect::<PortResult<()>>().and(kept)
    }
}
