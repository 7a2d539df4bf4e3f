//! Where things are on the host; one home for every path that more than one module names.

use std::path::{Path, PathBuf};

use apt_ostree_proto::{PointName, TransactionId};

/// There when OSTree booted the host: ostree-prepare-root(1).
pub const BOOTED: &str = "/run/ostree-booted";
/// State that survives a reboot: the journal and history database.
pub const STATE_DIRECTORY: &str = "/var/lib/apt-ostree";
/// The last configuration that could be used.
pub const LAST_CONFIGURATION: &str = "/var/lib/apt-ostree/config.last-good.toml";
/// State of this boot only.
pub const RUNTIME_DIRECTORY: &str = "/run/apt-ostree";
/// apt's archive cache, shared with apt.
pub const ARCHIVES: &str = "/var/cache/apt/archives";
/// The physical root, where OSTree keeps its repository and deployments.
pub const SYSROOT: &str = "/sysroot";
/// OSTree's repository.
pub const REPOSITORY: &str = "/sysroot/ostree/repo";
/// One directory a transaction: staging area, checkout, kept files of `/etc`.
pub const LIVE_DIRECTORY: &str = "/sysroot/ostree/live";
/// Copies of `/etc`, each named as the deployment that was made right after it was taken.
pub const ETC_COPIES: &str = "/sysroot/ostree/live/etc-of";
/// What all refs of ours begin with.
pub const OUR_REFS: &str = "apt-ostree";
/// What the refs begin with that hold what kept updates lead back to.
pub const BASE_REFS: &str = "apt-ostree/base";
/// The same of named points.
pub const POINT_REFS: &str = "apt-ostree/point";
/// The daemon.
pub const DAEMON: &str = "/usr/libexec/apt-ostreed";
/// What was moved aside from there, to be removed.
pub const TRASH_DIRECTORY: &str = "/sysroot/ostree/live/trash";
/// The worker, which holds the FFI.
pub const WORKER: &str = "/usr/libexec/apt-ostree-worker";
/// The static helper for mount calls, and the rescue guard.
pub const RESCUE: &str = "/usr/libexec/apt-ostree-rescue";

/// A transaction's directory on the physical root. Writable only in a mount namespace where
/// `/sysroot` is.
pub fn live(transaction: TransactionId) -> PathBuf {
    Path::new(LIVE_DIRECTORY).join(transaction.to_string())
}

/// The overlays and shims that packages are installed in.
pub fn stage(transaction: TransactionId) -> PathBuf {
    live(transaction).join("stage")
}

/// The checkout of the transaction's commit; its `usr` is what is mounted.
pub fn checkout(transaction: TransactionId) -> PathBuf {
    live(transaction).join("tree")
}

/// Staged files of `/etc`; after the exchange, the files that were there.
pub fn etc_delta(transaction: TransactionId) -> PathBuf {
    live(transaction).join("etc")
}

/// Staged files of `/var`, on `/var`'s own file system.
pub fn var_delta(transaction: TransactionId) -> PathBuf {
    Path::new(STATE_DIRECTORY).join("delta").join(transaction.to_string())
}

/// The ref that holds the transaction's commit.
pub fn live_ref(transaction: TransactionId) -> String {
    format!("apt-ostree/live/{transaction}")
}

/// The ref that holds the commit that undoing the transaction leads to.
pub fn base_ref(transaction: TransactionId) -> String {
    format!("{BASE_REFS}/{transaction}")
}

/// The ref that holds a named point's commit.
pub fn point_ref(point: &PointName) -> String {
    format!("{POINT_REFS}/{point}")
}

/// The pinned peer mount namespace of a transaction's switch.
pub fn peer_namespace(transaction: TransactionId) -> PathBuf {
    Path::new(RUNTIME_DIRECTORY).join("peer").join(transaction.to_string())
}
