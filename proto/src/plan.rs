//! A plan: what a transaction will do, complete before anything is changed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::{CommitId, PlanId, TransactionId};
use crate::package::{Action, PackageChange};
use crate::request::{RestartPolicy, When};
use crate::service::UnitEffect;

/// Everything that a transaction will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The digest of all that this plan was made from.
    pub id: PlanId,
    /// Where the new tree comes from.
    pub source: TreeSource,
    /// The commit whose tree is `/usr` now.
    pub base: CommitId,
    /// The commit that boots next, where that is another one.
    #[serde(default)]
    pub next: Option<CommitId>,
    /// The packages that change, in the order of their names.
    pub changes: Vec<PackageChange>,
    /// The packages that change with the next boot instead, by a transaction that follows this one.
    #[serde(default)]
    pub next_boot: Vec<PackageChange>,
    /// When the changes take effect.
    #[serde(default)]
    pub when: When,
    /// The units that are affected, with reasons; predicted until the tree is staged.
    pub units: Vec<UnitEffect>,
    /// Configuration files whose local version will be kept.
    pub etc_conflicts: Vec<EtcConflict>,
    /// What space it takes, by file system.
    pub space: Vec<SpaceNeed>,
    /// What was asked for and is not done, with the reason.
    pub refused: Vec<Refusal>,
    /// What the caller should know.
    pub warnings: Vec<String>,
    /// What will be restarted.
    pub restart: RestartPolicy,
}

impl Plan {
    /// Whether there is nothing to do by the transaction itself.
    pub fn is_empty(&self) -> bool {
        match self.source {
            TreeSource::Packages => self.changes.is_empty(),
            TreeSource::Commit { ref commit } | TreeSource::Before { ref commit, .. } => {
                // A tree that runs is not kept before it boots next as well.
                let is_there = *commit == self.base && self.next.is_none();
                is_there || !self.next_boot.is_empty()
            }
        }
    }

    /// Whether there is nothing to do at all, now or with the next boot.
    pub fn changes_nothing(&self) -> bool {
        self.is_empty() && self.next_boot.is_empty()
    }

    /// The bytes to fetch if the cache were empty.
    pub fn download_bytes(&self) -> u64 {
        self.changes.iter().filter_map(|c| c.file.as_ref()).map(|f| f.size_bytes).sum()
    }

    /// By how much the installed packages grow.
    pub fn installed_growth_bytes(&self) -> i64 {
        self.changes.iter().map(|c| c.installed_growth_bytes).sum()
    }

    /// How many packages undergo `action`.
    pub fn count(&self, action: Action) -> usize {
        self.changes.iter().filter(|c| c.action == action).count()
    }
}

/// Where the new tree comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum TreeSource {
    /// Built from the base tree and packages.
    Packages,
    /// Ready made, in the repository.
    Commit {
        /// The commit.
        commit: CommitId,
    },
    /// The tree before an earlier transaction.
    Before {
        /// That transaction.
        transaction: TransactionId,
        /// The tree's commit.
        commit: CommitId,
    },
}

/// A configuration file that an admin changed and a package would replace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcConflict {
    /// The file.
    pub path: PathBuf,
    /// The package that ships it.
    pub package: String,
    /// What happens: the local file stays.
    pub resolution: String,
}

/// The space that a transaction takes on one file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceNeed {
    /// A directory on that file system.
    pub path: PathBuf,
    /// What is needed at the most.
    pub needed_bytes: u64,
    /// What is available to root.
    pub available_bytes: u64,
}

impl SpaceNeed {
    /// Whether it fits.
    pub fn fits(&self) -> bool {
        self.needed_bytes <= self.available_bytes
    }
}

/// Something that was asked for and is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What: a package, a unit, a path.
    pub subject: String,
    /// Why.
    pub reason: String,
}
