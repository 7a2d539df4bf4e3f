use std::collections::BTreeMap;
use std::path::PathBuf;

use apt_ostree_proto::UnitName;
use apt_ostree_proto::outdated::{Kernel, Place};
use apt_ostree_proto::service::Reason;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::PortResult;

/// Running processes.
#[async_trait(?Send)]
pub trait Processes: std::fmt::Debug {
    /// Every process that maps or executes one of `replaced`, with its unit; one line for each
    /// process and file.
    async fn users_of(&self, replaced: &[ReplacedFile]) -> PortResult<Vec<ProcessUse>>;

    /// Units with a process whose mount namespace has a mount of its own below `/usr`, and where:
    /// a switch takes that mount from them.
    async fn own_mounts(&self) -> PortResult<Vec<(UnitName, PathBuf)>>;

    /// Every process that runs code which is not what the present tree has in its place: it maps or
    /// executes another file than the one at that path, or interprets one that changed since it
    /// began. `changes` tells what updates have changed since the host booted, for files whose own
    /// times say nothing. Only reads.
    async fn outdated(&self, changes: &[TreeChange]) -> PortResult<Sighting>;
}

/// A file of the running tree that another one takes the place of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReplacedFile {
    /// The path, with the leading `/usr/`.
    pub path: PathBuf,
    /// The device, as `/proc/PID/maps` shows it.
    pub device: u64,
    /// The inode.
    pub inode: u64,
}

/// What one update changed in the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeChange {
    /// When, in milliseconds since 1970.
    pub at_milliseconds: i64,
    /// The paths, absolute; with the device and inode of the file that was there before.
    pub paths: BTreeMap<PathBuf, Option<(u64, u64)>>,
}

/// What a look at all processes found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    /// How many processes were looked at.
    pub processes: u64,
    /// Those that run old code; one line for each process and file.
    pub uses: Vec<ProcessUse>,
    /// The kernel; none in a container.
    pub kernel: Option<Kernel>,
}

/// A process that uses a replaced file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUse {
    /// The process.
    pub pid: u32,
    /// Its unit on the system manager; none for processes of other places and of no unit.
    pub unit: Option<UnitName>,
    /// Where it runs.
    #[serde(default)]
    pub place: Place,
    /// The file.
    pub path: PathBuf,
    /// How it uses the file.
    #[serde(default)]
    pub manner: Manner,
}

/// How a process uses a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manner {
    /// It maps or executes it.
    #[default]
    Maps,
    /// It is an interpreter that has read it.
    Interprets,
}

impl ProcessUse {
    /// Why whoever the process belongs to runs old code.
    pub fn reason(self) -> Reason {
        let Self { pid, path, manner, .. } = self;
        match manner {
            Manner::Maps => Reason::OldCode { pid, path },
            Manner::Interprets => Reason::Interpreted { pid, path },
        }
    }
}
