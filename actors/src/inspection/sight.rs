//! What the host shows.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::port::{FileIdentity, HostTree, TreeComparison, TreeLook, UsrLook};

/// What the ports have told.
#[derive(Clone, Debug)]
pub struct Sight {
    /// What is booted, what runs, what boots next.
    pub host: HostTree,
    /// What is mounted on `/usr`.
    pub usr: UsrLook,
    /// What trees there are.
    pub trees: TreeLook,
    /// The running tree against its commit; none where that was not asked for.
    pub comparison: Option<TreeComparison>,
    /// The installed packages' versions, by name and architecture.
    pub packages: BTreeMap<(String, String), String>,
    /// What is at the paths of [`Record::etc`](super::Record::etc).
    pub etc: BTreeMap<PathBuf, Option<FileIdentity>>,
}
