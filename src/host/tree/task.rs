//! What the worker's `OSTree` tasks are asked and what they answer.

use std::path::PathBuf;

use apt_ostree_actors::port::{Retention, TreeMetadata};
use apt_ostree_proto::{CommitId, PointName, TransactionId};
use serde::{Deserialize, Serialize};

/// Makes a staging area: [`TransactionRequest`], answers nothing.
pub const STAGE: &str = "tree-stage";
/// Checks the running commit out ahead of the commit: [`PrepareRequest`], answers nothing.
pub const PREPARE: &str = "tree-prepare";
/// Commits the staged change: [`CommitRequest`] to `CommittedTree`.
pub const COMMIT: &str = "tree-commit";
/// Checks a commit out: [`CheckOutRequest`] to `CommittedTree`.
pub const CHECK_OUT: &str = "tree-check-out";
/// Makes a commit the next boot's default: [`DeploymentRequest`], answers nothing.
pub const DEPLOY: &str = "tree-deploy";
/// Removes its deployments: [`DeploymentRequest`], answers nothing.
pub const UNDEPLOY: &str = "tree-undeploy";
/// Stages it for the shutdown: [`DeploymentRequest`], answers nothing.
pub const STAGE_DEPLOYMENT: &str = "tree-stage-deployment";
/// Removes for good what was moved aside: is asked and answers nothing.
pub const SWEEP: &str = "tree-sweep";
/// Removes what earlier transactions left: [`CleanUpRequest`] to a list of
/// [`KeptUpdate`](apt_ostree_proto::point::KeptUpdate)s.
pub const CLEAN_UP: &str = "tree-clean-up";
/// Holds a commit under a point's name, or lets go of it: [`HoldRequest`], answers nothing.
pub const HOLD: &str = "tree-hold";
/// Compares two commits: [`CompareRequest`] to
/// [`TreeDifference`](apt_ostree_proto::difference::TreeDifference).
pub const COMPARE: &str = "tree-compare";
/// Finds a ready tree: [`TargetRequest`] to `CommitId`.
pub const FIND_TARGET: &str = "tree-find-target";
/// Looks at deployments, trees, refs and commits: [`LookRequest`] to `TreeLook`.
pub const LOOK: &str = "tree-look";
/// Compares the running tree with its commit: is asked nothing, answers `TreeComparison`.
pub const VERIFY: &str = "tree-verify";
/// Writes a transaction's ref: [`RefRequest`], answers nothing.
pub const RESTORE_REF: &str = "tree-restore-ref";
/// Reads one file of a commit: [`ReadFileRequest`] to [`ReadFileAnswer`].
pub const READ_FILE: &str = "read-file";

/// What [`STAGE`] is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TransactionRequest {
    /// Whose directory.
    pub transaction: TransactionId,
}

/// What [`COMMIT`] is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CommitRequest {
    /// Whose staged change.
    pub transaction: TransactionId,
    /// The commit that the change is on top of.
    pub base: CommitId,
    /// What is written into the commit.
    pub metadata: TreeMetadata,
}

/// What [`CHECK_OUT`] is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckOutRequest {
    /// Where to.
    pub transaction: TransactionId,
    /// The running commit.
    pub base: CommitId,
    /// The commit to check out.
    pub commit: CommitId,
}

/// What [`PREPARE`] is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PrepareRequest {
    /// Where to.
    pub transaction: TransactionId,
    /// The running commit, which is checked out.
    pub base: CommitId,
}

/// What [`DEPLOY`], [`UNDEPLOY`] and [`STAGE_DEPLOYMENT`] are asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeploymentRequest {
    /// The commit.
    pub commit: CommitId,
}

/// What [`FIND_TARGET`] is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TargetRequest {
    /// The commit; the staged or pending deployment's for none.
    pub target: Option<CommitId>,
}

/// What [`CLEAN_UP`] is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CleanUpRequest {
    /// What stays.
    pub retention: Retention,
}

/// What [`HOLD`] is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HoldRequest {
    /// The name.
    pub point: PointName,
    /// The commit; none lets go of the one that is held.
    pub commit: Option<CommitId>,
}

/// What [`COMPARE`] is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CompareRequest {
    /// The one.
    pub old: CommitId,
    /// The other.
    pub new: CommitId,
}

/// What [`LOOK`] is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LookRequest {
    /// The commits to look for.
    pub commits: Vec<CommitId>,
}

/// What [`RESTORE_REF`] is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RefRequest {
    /// Whose ref.
    pub transaction: TransactionId,
    /// What it is to name.
    pub commit: CommitId,
}

/// What [`READ_FILE`] is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadFileRequest {
    /// The commit.
    pub commit: CommitId,
    /// The path, without a leading `/`. Symbolic links are not followed.
    pub path: PathBuf,
}

/// What [`READ_FILE`] answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadFileAnswer {
    /// The file's bytes in base64; none when the commit has no such file.
    pub base64: Option<String>,
}
