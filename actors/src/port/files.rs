use std::path::PathBuf;

use apt_ostree_proto::{CommitId, PackageName, Sha256, TransactionId};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::PortResult;
use crate::context::StepContext;

/// `/etc` and `/var`: changes that are staged, exchanged file by file, and can be exchanged back.
#[async_trait(?Send)]
pub trait Files: std::fmt::Debug {
    /// Works out what `/etc` and `/var` get, merges what can be merged, and stages the new files on
    /// the same file systems. Changes nothing outside the staging areas. Idempotent.
    async fn prepare(&self, source: &DeltaSource, context: &StepContext) -> PortResult<Delta>;

    /// Exchanges the staged files with the live ones; what was there is kept for
    /// [`Files::revert`]. A file that is no longer what [`DeltaEntry::before`] says is left alone
    /// and named in the answer. Idempotent: entries that are done already are passed over.
    async fn apply(&self, delta: &Delta) -> PortResult<Vec<String>>;

    /// Exchanges back, newest first. A file that is no longer what [`DeltaEntry::after`] says was
    /// edited since: it is left alone and named in the answer. Undo.
    async fn revert(&self, delta: &Delta) -> PortResult<Vec<String>>;

    /// Appends what dpkg and apt logged in the staged root (`/var/log/dpkg.log`, apt's `history.log`
    /// and `term.log`) to the host's own logs. Idempotent: what is there already is not repeated.
    async fn append_logs(&self, transaction: TransactionId) -> PortResult<()>;

    /// Removes the transaction's staging areas and kept files. Idempotent.
    async fn discard(&self, transaction: TransactionId) -> PortResult<()>;

    /// Tells everybody by `/run/reboot-required` and `/run/reboot-required.pkgs` which packages wait for
    /// the next boot, and which do not any more. What others have there stays. Idempotent.
    async fn advise_reboot(&self, advice: &RebootAdvice) -> PortResult<()>;

    /// What is at these paths below `/etc` now, in their order; none where nothing is. Only reads.
    async fn identify(&self, paths: &[PathBuf]) -> PortResult<Vec<Option<FileIdentity>>>;
}

/// Which packages wait for the next boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RebootAdvice {
    /// Those that do.
    pub waiting: Vec<PackageName>,
    /// Those that did.
    pub withdrawn: Vec<PackageName>,
}

/// Where a delta comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum DeltaSource {
    /// The staged overlays of this transaction against its snapshot.
    Stage,
    /// The difference of two trees' `/usr/etc`, merged into the live `/etc`.
    Trees {
        /// The running commit.
        old: CommitId,
        /// The commit to switch to.
        new: CommitId,
        /// The `/usr` of that commit's tree, below `/sysroot`.
        new_usr: PathBuf,
    },
    /// The deltas of earlier transactions undone, newest first.
    Reverse {
        /// Their deltas, newest first.
        deltas: Vec<Delta>,
    },
}

/// What `/etc` and `/var` get in one transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The transaction whose staging areas hold the files.
    pub transaction: TransactionId,
    /// The entries, in the order in which they are applied: directories before what is in them.
    pub entries: Vec<DeltaEntry>,
    /// Files of the host that were edited since the snapshot, or are kept on purpose; for people.
    pub kept: Vec<String>,
    /// Live data below `/var` that a script changed, each a named risk.
    pub live_data: Vec<String>,
}

impl Delta {
    /// The paths that change below `/etc`, without the leading `/etc/`.
    pub fn changed_in_etc(&self) -> Vec<PathBuf> {
        let in_etc = self.entries.iter().filter(|entry| entry.place == Placement::Etc);
        in_etc.map(|entry| entry.path.clone()).collect()
    }
}

/// One path's change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaEntry {
    /// Which tree it is in.
    pub place: Placement,
    /// The path within that tree, without a leading `/`.
    pub path: PathBuf,
    /// What must be there before; none when nothing may be.
    pub before: Option<FileIdentity>,
    /// What is there afterwards; none when it goes.
    pub after: Option<FileIdentity>,
}

/// A tree that is changed file by file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// `/etc`
    Etc,
    /// `/var`
    Var,
}

/// What tells one state of a file from another; inodes are not among it, for they change over a
/// reboot into another deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// File type and permission bits, as `st_mode`.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The digest of a regular file's bytes or of a symbolic link's target, with the extended
    /// attributes where there are any; none for a directory without such.
    pub sha256: Option<Sha256>,
}
