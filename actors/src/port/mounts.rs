use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use apt_ostree_proto::TransactionId;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::PortResult;

/// What is mounted on `/usr`, in PID 1's mount namespace.
#[async_trait(?Send)]
pub trait Mounts: std::fmt::Debug {
    /// The mounts on `/usr`, the covered ones first. Errors: `ForeignMount` when one of them is
    /// neither the deployment's nor ours.
    async fn stack(&self) -> PortResult<Vec<UsrMount>>;

    /// Readies a switch: pins a peer mount namespace for the later collapse, and starts the rescue
    /// guard that takes `tree` off again if nobody stands it down within its time. Idempotent.
    async fn prepare(&self, transaction: TransactionId, tree: &TreeIdentity) -> PortResult<()>;

    /// Mounts `tree` on `/usr`, read-only and private, in one step, with the mounts below `/usr`
    /// carried over. Does nothing when it is on top already.
    async fn switch(&self, tree: &TreeIdentity) -> PortResult<()>;

    /// Takes `tree` off `/usr` if it is on top, else does nothing. Undo.
    async fn unswitch(&self, tree: &TreeIdentity) -> PortResult<()>;

    /// Has the rescue guard wait beyond `end`, in time since the boot: then it has the daemon
    /// started, which puts the host back in good order, and takes `tree` off only if that does not
    /// happen either. Starts the guard again if it runs no more. Idempotent.
    async fn guard_until(
        &self,
        transaction: TransactionId,
        tree: &TreeIdentity,
        end: Duration,
    ) -> PortResult<()>;

    /// Stands the rescue guard down: health is good, or the tree is off again. Idempotent.
    async fn stand_down(&self, transaction: TransactionId) -> PortResult<()>;

    /// Takes back what [`Mounts::prepare`] made: stands the guard down and removes the pinned
    /// namespace. Undo.
    async fn abandon(&self, transaction: TransactionId) -> PortResult<()>;

    /// Removes the covered tree below the top one everywhere, and the pinned namespace. Idempotent.
    async fn collapse(&self, transaction: TransactionId) -> PortResult<()>;

    /// Everything that is mounted on `/usr`, whosoever it is, and what is ready for a switch. Only reads.
    async fn look(&self) -> PortResult<UsrLook>;

    /// Makes the top mount on `/usr` read-only again. Refuses with `ForeignMount` what is
    /// neither the deployment's nor ours. Idempotent.
    async fn protect(&self) -> PortResult<()>;
}

/// What is mounted on `/usr`, as an inspection sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsrLook {
    /// The mounts, the covered ones first. Empty where `/usr` is part of the root mount.
    pub layers: Vec<UsrLayer>,
    /// Transactions with a rescue guard that listens, or a pinned mount namespace.
    pub helpers: BTreeSet<TransactionId>,
}

/// One of these mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsrLayer {
    /// Whose it is.
    pub owner: LayerOwner,
    /// Whether nobody can write through it.
    pub read_only: bool,
    /// Where else a mount of its peer group is: what is mounted there shows here, too.
    pub peers: Vec<PathBuf>,
}

/// Whose a mount on `/usr` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerOwner {
    /// The booted deployment's.
    Deployment,
    /// A transaction's.
    Live(TransactionId),
    /// Somebody else's: what it is, for people.
    Foreign(String),
}

/// A `/usr` tree, told apart from any other by its root directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TreeIdentity {
    /// Its root, below `/sysroot`.
    pub path: PathBuf,
    /// The device that the root directory is on.
    pub device: u64,
    /// The root directory's inode.
    pub inode: u64,
}

/// One mount on `/usr`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsrMount {
    /// The tree's root within its file system, as `/proc/self/mountinfo` has it.
    pub root: PathBuf,
    /// The file system's type.
    pub file_system: String,
    /// The device of the tree's root directory.
    pub device: u64,
    /// The transaction that mounted it; none for the deployment's own.
    pub transaction: Option<TransactionId>,
}
