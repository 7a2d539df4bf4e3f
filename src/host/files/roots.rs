//! Where the trees are that deltas are made from and applied to.

use std::path::{Path, PathBuf};

use apt_ostree_actors::port::{Placement, PortResult};
use apt_ostree_proto::TransactionId;

use crate::host::tree::layout::Stage;
use crate::host::{namespace, paths};

/// The directories that everything happens in. On a host [`Roots::of_host`]; in a test anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// The live `/etc`, by a path on the mount that [`Roots::live`] is on.
    pub etc: PathBuf,
    /// The live `/var`.
    pub var: PathBuf,
    /// The directory of the transactions' directories.
    pub live: PathBuf,
    /// The directory of the transactions' staging areas for `/var`, on `/var`'s mount.
    pub var_deltas: PathBuf,
    /// The running tree's `/usr/etc`.
    pub default_etc: PathBuf,
    /// dpkg's file lists.
    pub package_lists: PathBuf,
}

impl Roots {
    /// The host's, for a thread that [`namespace::in_host`] runs.
    pub fn of_host() -> PortResult<Self> {
        Ok(Self {
            etc: namespace::below_sysroot(Path::new("/etc"))?,
            var: PathBuf::from("/var"),
            live: PathBuf::from(paths::LIVE_DIRECTORY),
            var_deltas: Path::new(paths::STATE_DIRECTORY).join("delta"),
            default_etc: PathBuf::from("/usr/etc"),
            package_lists: PathBuf::from("/var/lib/dpkg/info"),
        })
    }

    /// Where a transaction's staged files of one tree are, and later the ones that they displaced.
    pub(super) fn slots(&self, place: Placement, transaction: TransactionId) -> PathBuf {
        match place {
            Placement::Etc => self.within_live(&paths::etc_delta(transaction)),
            Placement::Var => self.var_deltas.join(transaction.to_string()),
        }
    }

    /// The copy of `/etc` that the packages were installed over.
    pub(super) fn snapshot(&self, transaction: TransactionId) -> PathBuf {
        self.within_live(&Stage::of(transaction).etc_snapshot())
    }

    /// What the installation changed of the snapshot.
    pub(super) fn etc_upper(&self, transaction: TransactionId) -> PathBuf {
        self.within_live(&Stage::of(transaction).upper("etc"))
    }

    /// What the installation changed of the live `/var`.
    pub(super) fn var_upper(&self, transaction: TransactionId) -> PathBuf {
        self.within_live(&Stage::of(transaction).upper("var"))
    }

    fn within_live(&self, path: &Path) -> PathBuf {
        path.strip_prefix(paths::LIVE_DIRECTORY)
            .map_or_else(|_| path.to_owned(), |inside| self.live.join(inside))
    }
}
