use std::path::PathBuf;

use apt_ostree_proto::difference::TreeDifference;
use apt_ostree_proto::package::PackageChange;
use apt_ostree_proto::point::KeptUpdate;
use apt_ostree_proto::{CommitId, PlanId, PointName, TransactionId};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{PortResult, ReplacedFile, Retention, TreeIdentity};
use crate::context::StepContext;

/// Trees: staging areas, commits, checkouts and deployments. Everything that belongs to one
/// transaction stands in one directory, `/sysroot/ostree/live/ID`.
#[async_trait(?Send)]
pub trait Tree: std::fmt::Debug {
    /// What is booted, what runs, what boots next. Errors: `NotBooted`, `DatabaseOutsideTree`.
    async fn state(&self) -> PortResult<HostTree>;

    /// Finds the commit that `target` names: of the staged or pending deployment for `None`.
    /// Verifies the remote's signature where the remote demands one.
    async fn find_target(&self, target: Option<&CommitId>) -> PortResult<CommitId>;

    /// Begins what can be made ready of the transaction's tree while its packages are fetched and
    /// installed, and answers at once: [`Tree::stage`] and [`Tree::commit`] make up for what is not
    /// ready. Goes with [`Tree::drop_stage`] and [`Tree::drop_commit`].
    async fn prepare(&self, base: &CommitId, context: &StepContext) -> PortResult<()>;

    /// Makes the private root of a transaction: directories for the overlays' upper and work trees,
    /// and a snapshot of `/etc`.
    async fn stage(&self, base: &CommitId, context: &StepContext) -> PortResult<()>;

    /// Removes what [`Tree::stage`] made. Undo.
    async fn drop_stage(&self, transaction: TransactionId) -> PortResult<()>;

    /// Commits base + the staged change, and checks the result out. Refuses with
    /// `UnsupportedPackage` what lies outside `/usr`, `/etc` and `/var`.
    async fn commit(
        &self,
        base: &CommitId,
        metadata: &TreeMetadata,
        context: &StepContext,
    ) -> PortResult<CommittedTree>;

    /// Checks a commit out that is in the repository already, unless its checkout is there.
    async fn check_out(
        &self,
        base: &CommitId,
        commit: &CommitId,
        context: &StepContext,
    ) -> PortResult<CommittedTree>;

    /// Removes the transaction's checkout and ref. Refuses while a process's mount namespace has
    /// the checkout mounted. Undo.
    async fn drop_commit(&self, transaction: TransactionId) -> PortResult<()>;

    /// Adds a plain deployment of `commit` as the default for the next boot, with the booted
    /// deployment's `/etc`, origin and kernel arguments. This is the pivot: once it returns, or is
    /// found done by [`Tree::is_deployed`], the update is kept.
    async fn deploy(&self, commit: &CommitId, context: &StepContext) -> PortResult<()>;

    /// Whether `commit` is what boots next.
    async fn is_deployed(&self, commit: &CommitId) -> PortResult<bool>;

    /// Removes the deployment of `commit` that the transaction made. Undo, before the pivot.
    async fn undeploy(&self, commit: &CommitId) -> PortResult<()>;

    /// Stages `commit` too, so that `/etc` edits made until the shutdown are merged. Idempotent.
    async fn stage_deployment(&self, commit: &CommitId, context: &StepContext) -> PortResult<()>;

    /// Removes checkouts, staging areas, refs and deployments of earlier transactions that neither
    /// `retention` names nor a process still has mounted, and prunes the repository. Holds what the
    /// kept updates and the named points lead back to. Answers the updates that can be undone, newest
    /// first. Idempotent.
    async fn clean_up(&self, retention: &Retention) -> PortResult<Vec<KeptUpdate>>;

    /// Holds a commit under a point's name, whatever becomes of deployments and transactions.
    /// `NotFound` when the repository has not all of it. Idempotent.
    async fn hold(&self, point: &PointName, commit: &CommitId) -> PortResult<()>;

    /// Lets go of what [`Tree::hold`] holds. Idempotent.
    async fn release(&self, point: &PointName) -> PortResult<()>;

    /// The files and units that differ between two commits' trees. `NotFound` when the repository
    /// has not all of one.
    async fn difference(
        &self,
        old: &CommitId,
        new: &CommitId,
        context: &StepContext,
    ) -> PortResult<TreeDifference>;
}

/// What is booted, what runs and what boots next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTree {
    /// The OS name of the booted deployment.
    pub os_name: String,
    /// The booted deployment's commit.
    pub booted: CommitId,
    /// The commit that `/usr` shows now.
    pub running: CommitId,
    /// The commit that boots next.
    pub next: CommitId,
    /// Whether the next deployment was made by somebody else since the boot: staged or pending.
    pub foreign_pending: bool,
}

/// What is written into a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeMetadata {
    /// The plan that the commit realizes.
    pub plan: PlanId,
    /// The package changes.
    pub changes: Vec<PackageChange>,
    /// The commit's subject line.
    pub reason: String,
}

/// A new tree, complete and checked out beside the deployments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedTree {
    /// Its commit.
    pub commit: CommitId,
    /// Its `/usr`.
    pub usr: TreeIdentity,
    /// Files of the running tree that the new one replaces or removes.
    pub replaced: Vec<ReplacedFile>,
    /// Paths below `/usr` that are new, changed or gone, without the leading `/`: unit files,
    /// tmpfiles fragments, bus policies and the like are found among them.
    pub changed: Vec<PathBuf>,
}
