//! Looking at the host's trees, and mending what an inspection found.

use std::path::PathBuf;

use actix::{Handler, Message, ResponseFuture};
use apt_ostree_proto::point::KeptUpdate;
use apt_ostree_proto::{CommitId, TransactionId};

use super::OverlayActor;
use crate::context::StepContext;
use crate::port::{
    FileIdentity, HostTree, PortResult, Retention, TreeComparison, TreeLook, UsrLook,
};

/// Request: what the host shows of trees, mounts and files. Changes nothing.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<TreeSight>")]
pub struct LookAtTrees {
    /// The commits to look for.
    pub commits: Vec<CommitId>,
    /// The paths below `/etc` to look at.
    pub etc: Vec<PathBuf>,
    /// Whether every file of the running tree is read.
    pub with_files: bool,
    /// Cancels it.
    pub context: StepContext,
}

/// What it shows.
#[derive(Clone, Debug)]
pub struct TreeSight {
    /// What is booted, what runs, what boots next.
    pub host: HostTree,
    /// What is mounted on `/usr`.
    pub usr: UsrLook,
    /// What trees there are.
    pub trees: TreeLook,
    /// The running tree against its commit, if that was asked for.
    pub comparison: Option<TreeComparison>,
    /// What is at the paths below `/etc`, in their order.
    pub etc: Vec<Option<FileIdentity>>,
}

impl Handler<LookAtTrees> for OverlayActor {
    type Result = ResponseFuture<PortResult<TreeSight>>;

    fn handle(&mut self, request: LookAtTrees, _: &mut Self::Context) -> Self::Result {
        let this = self.clone();
        Box::pin(async move {
            let LookAtTrees { commits, etc, with_files, context } = request;
            let usr = this.mounts.look().await?;
            let host = this.tree.state().await?;
            let trees = this.tree.look(&commits, &context).await?;
            let etc = this.files.identify(&etc).await?;
            let comparison =
                if with_files { Some(this.tree.compare(&context).await?) } else { None };
            Ok(TreeSight { host, usr, trees, comparison, etc })
        })
    }
}

/// Request: remove what is not kept. Answers the updates that can be undone. Idempotent.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<Vec<KeptUpdate>>")]
pub struct CleanUpTrees(pub Retention);

impl Handler<CleanUpTrees> for OverlayActor {
    type Result = ResponseFuture<PortResult<Vec<KeptUpdate>>>;

    fn handle(&mut self, request: CleanUpTrees, _: &mut Self::Context) -> Self::Result {
        let this = self.clone();
        Box::pin(async move { this.tree.clean_up(&request.0).await })
    }
}

/// Request: one thing to be mended. Each is idempotent.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub enum MendTrees {
    /// Make the top mount on `/usr` read-only.
    ProtectUsr,
    /// Stand a transaction's guard down and unpin its namespace.
    StandDown(TransactionId),
    /// Have a transaction's ref name the commit.
    RestoreRef(TransactionId, CommitId),
    /// Deploy the commit for the next boot, and stage it.
    Deploy(CommitId, StepContext),
    /// Remove a transaction's staging area.
    DropStage(TransactionId),
}

impl Handler<MendTrees> for OverlayActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: MendTrees, _: &mut Self::Context) -> Self::Result {
        let this = self.clone();
        Box::pin(async move {
            match request {
                MendTrees::ProtectUsr => this.mounts.protect().await,
                MendTrees::StandDown(id) => this.mounts.abandon(id).await,
                MendTrees::RestoreRef(id, commit) => this.tree.restore_ref(id, &commit).await,
                MendTrees::Deploy(commit, context) => {
                    this.tree.deploy(&commit, &context).await?;
                    this.tree.stage_deployment(&commit, &context).await
                }
                MendTrees::DropStage(id) => this.tree.drop_stage(id).await,
            }
        })
    }
}
