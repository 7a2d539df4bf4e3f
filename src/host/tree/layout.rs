//! What stands where in a transaction's staging area.

use std::path::PathBuf;

use apt_ostree_proto::TransactionId;

use crate::host::paths;

/// Directories that the private root needs besides what the deployment has.
pub const SKELETON_DIRECTORIES: &[&str] =
    &["usr", "etc", "var", "proc", "sys", "dev", "run", "tmp", "boot"];

/// What a kernel's package has in `/boot`, each name with the kernel's version at its end, and what OSTree
/// calls that beside the kernel's modules: ostree-admin-deploy(1).
pub const KERNEL_FILES: &[(&str, &str)] = &[
    ("vmlinuz-", "vmlinuz"),
    ("initrd.img-", "initramfs.img"),
    ("config-", "config"),
    ("System.map-", "System.map"),
];

/// The parts of a staging area.
#[derive(Clone, Debug)]
pub struct Stage {
    /// `/sysroot/ostree/live/ID/stage`
    pub directory: PathBuf,
}

impl Stage {
    /// The staging area of a transaction.
    pub fn of(transaction: TransactionId) -> Self {
        Self { directory: paths::stage(transaction) }
    }

    /// The upper directory of the overlay on `usr`, `etc` or `var`: the change itself.
    pub fn upper(&self, tree: &str) -> PathBuf {
        self.directory.join(tree).join("upper")
    }

    /// That overlay's work directory.
    pub fn work(&self, tree: &str) -> PathBuf {
        self.directory.join(tree).join("work")
    }

    /// The copy of `/etc` that the overlay on it is above, and the base of the three-way merge.
    pub fn etc_snapshot(&self) -> PathBuf {
        self.directory.join("etc").join("snapshot")
    }

    /// The private root: the deployment's top level, onto which the overlays are mounted.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// What the sandbox has as `/run`.
    pub fn run(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// A lower directory above the running `/usr`, with what scripts must see and no commit holds.
    pub fn shims(&self) -> PathBuf {
        self.directory.join("shims")
    }

    /// Where tests of what was staged write.
    pub fn trial(&self) -> Self {
        Self { directory: self.directory.join("trial") }
    }

    /// Where the shims record what scripts asked for.
    pub fn records(&self) -> PathBuf {
        self.run().join("rec").join("log")
    }
}
