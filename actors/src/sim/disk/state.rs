//! What a simulated disk holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use apt_ostree_proto::{CommitId, ErrorCode, Failure, PackageName, PointName, TransactionId};

use crate::port::{Delta, FileIdentity, Placement, PortResult};

/// What is on the disk and mounted, as two worlds are compared by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskState {
    /// The booted deployment's commit.
    pub booted: CommitId,
    /// What is mounted on `/usr` above the booted tree, the top one last.
    pub mounted: Vec<CommitId>,
    /// Whether the booted deployment's own mount is gone from below them.
    pub collapsed: bool,
    /// The commits that are deployed, the next boot's first.
    pub deployed: Vec<CommitId>,
    /// The deployment that is staged.
    pub staged: Option<CommitId>,
    /// Transactions with a tree that is not yet a commit's.
    pub prepared: BTreeSet<TransactionId>,
    /// Transactions with a staging area.
    pub stages: BTreeSet<TransactionId>,
    /// Transactions with a commit and checkout.
    pub checkouts: BTreeMap<TransactionId, CommitId>,
    /// What undoing the kept updates leads to.
    pub bases: BTreeMap<TransactionId, CommitId>,
    /// What is held under the names of points.
    pub points: BTreeMap<PointName, CommitId>,
    /// Transactions with staged or kept files.
    pub kept_files: BTreeSet<TransactionId>,
    /// Transactions with a rescue guard.
    pub guards: BTreeSet<TransactionId>,
    /// Transactions with a pinned mount namespace.
    pub pins: BTreeSet<TransactionId>,
    /// Files below `/etc` and `/var`.
    pub files: BTreeMap<(Placement, PathBuf), FileIdentity>,
    /// The packages that are said to wait for the next boot.
    pub awaiting_boot: BTreeSet<PackageName>,
    /// Whether somebody made `/usr` writable.
    pub writable: bool,
    /// Transactions whose refs somebody removed.
    pub lost_refs: BTreeSet<TransactionId>,
    /// Files of the running tree that somebody changed.
    pub spoilt: BTreeSet<PathBuf>,
}

/// What each commit occupies that nothing else holds.
pub const SIM_TREE_BYTES: u64 = 1_000;

impl DiskState {
    /// The commit that boots next.
    pub(super) fn next(&self) -> &CommitId {
        self.staged.as_ref().unwrap_or(&self.deployed[0])
    }

    /// Of the deployments stay what boots next, what is booted, and the way back from that.
    pub(super) fn drop_old_deployments(&mut self) {
        let booted = self.deployed.iter().position(|commit| *commit == self.booted);
        let mut index = 0;
        self.deployed.retain(|_| {
            let stays =
                index == 0 || Some(index) == booted || Some(index) == booted.map(|at| at + 1);
            index += 1;
            stays
        });
    }

    /// Fails with `NotFound` when the files that the transaction displaced are not kept any more.
    pub(super) fn require_files(&self, delta: &Delta) -> PortResult<()> {
        let id = delta.transaction;
        if delta.entries.is_empty() || self.kept_files.contains(&id) {
            return Ok(());
        }
        let text = format!("the files that transaction {id} displaced are gone");
        Err(Failure::new(ErrorCode::NotFound, text))
    }

    /// Fails with `NotFound` unless something holds the commit.
    pub(super) fn require(&self, commit: &CommitId) -> PortResult<()> {
        let deployed = self.deployed.iter().chain(&self.staged).chain([&self.booted]);
        let refs = self.checkouts.values().chain(self.bases.values()).chain(self.points.values());
        if deployed.chain(refs).chain(&self.mounted).any(|held| held == commit) {
            return Ok(());
        }
        let text = format!("the repository has no complete commit {}", commit.short());
        Err(Failure::new(ErrorCode::NotFound, text))
    }
}
