//! What differs between two states of the host.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::CommitId;
use crate::package::PackageChange;

/// What differs from one state to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The one.
    pub old: Side,
    /// The other.
    pub new: Side,
    /// The packages that differ, by name.
    pub packages: Vec<PackageChange>,
    /// The files and units that differ.
    #[serde(flatten)]
    pub tree: TreeDifference,
}

/// One of the two states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// How the caller named it.
    pub name: String,
    /// Its commit.
    pub commit: CommitId,
}

/// What differs between two trees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeDifference {
    /// Files, links and directories below `/usr`; the defaults of `/etc` are those in `/usr/etc`.
    pub files: Vec<ChangedFile>,
    /// How many there are of each kind.
    pub counts: Counts,
    /// How many are counted and not listed: an answer has a limit.
    pub files_left_out: u64,
    /// The units that these files describe.
    pub units: Vec<ChangedUnit>,
    /// How many of them are not listed.
    pub units_left_out: u64,
}

/// How many files there are of each kind of change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Only in the new tree.
    pub added: u64,
    /// Only in the old one.
    pub removed: u64,
    /// In both, with another content, owner, mode or kind.
    pub changed: u64,
}

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is only in the new state.
    Added,
    /// It is only in the old one.
    Removed,
    /// It is in both, and not the same.
    Changed,
}

/// A path that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedFile {
    /// The path, from the root.
    pub path: PathBuf,
    /// What became of it.
    pub change: Change,
}

/// A unit whose description differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedUnit {
    /// Its name; a template's or a family's as its file has it.
    pub unit: String,
    /// What became of it: a drop-in that comes or goes is a change.
    pub change: Change,
}
