use std::collections::BTreeMap;
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

    /// What deployments, trees and refs there are, and which of `commits` are whole. Only reads.
    async fn look(&self, commits: &[CommitId], context: &StepContext) -> PortResult<TreeLook>;

    /// Compares every file of the running tree with its commit, and looks whether the commit's objects
    /// are whole: reads all of it. Only reads.
    async fn compare(&self, context: &StepContext) -> PortResult<TreeComparison>;

    /// Has the transaction's ref name `commit`, which must be in the repository. Idempotent.
    async fn restore_ref(&self, transaction: TransactionId, commit: &CommitId) -> PortResult<()>;
}

/// What there is of trees, as an inspection sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeLook {
    /// The deployments in the order in which they would boot; a staged one is the first.
    pub deployments: Vec<DeploymentLook>,
    /// What transactions have on the disk.
    pub live: BTreeMap<TransactionId, LiveLook>,
    /// The commits that were asked for.
    pub commits: BTreeMap<CommitId, CommitCondition>,
    /// How many trees wait to be removed.
    pub trash: usize,
}

/// One deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentLook {
    /// Its commit.
    pub commit: CommitId,
    /// Whether it is booted.
    pub booted: bool,
    /// Whether it is made only at the shutdown.
    pub staged: bool,
    /// Whether we made it.
    pub ours: bool,
}

/// What a transaction has on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveLook {
    /// What its ref names.
    pub reference: Option<CommitId>,
    /// The commit that its complete checkout is of.
    pub checkout: Option<CommitId>,
    /// Whether it has a staging area: it was not over when it was last worked at.
    pub has_stage: bool,
    /// Whether it has anything else: a checkout, files of `/etc` or `/var`.
    pub has_files: bool,
    /// Whether a process has its tree mounted.
    pub is_mounted: bool,
}

/// Whether a commit can be checked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommitCondition {
    /// It is there, with all that belongs to it as far as the repository knows.
    Whole,
    /// The repository knows that objects of it are missing.
    Partial,
    /// It is not there.
    Missing,
}

/// What a comparison of the running tree with its commit found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeComparison {
    /// How many files and links were compared.
    pub files: u64,
    /// How many bytes they hold.
    pub bytes: u64,
    /// What differs: the first hundred.
    pub differences: Vec<FileDifference>,
    /// How many more differ.
    pub more: u64,
    /// Why nothing was compared, where it cannot be.
    pub not_compared: Option<String>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDifference {
    /// The path, with the leading `/usr`; or the object's name in the repository.
    pub path: String,
    /// How it differs.
    pub kind: FileDifferenceKind,
    /// What the commit has there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// How a file differs from its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileDifferenceKind {
    /// Content, owner, mode, type, target or attributes are others.
    Changed,
    /// It is not there.
    Missing,
    /// The commit has no such file.
    Unknown,
    /// The repository's object is missing or not what its name says.
    Object,
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
