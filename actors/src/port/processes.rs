use std::path::PathBuf;

use apt_ostree_proto::UnitName;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::PortResult;

/// Running processes.
#[async_trait(?Send)]
pub trait Processes: std::fmt::Debug {
    /// Every process that maps or executes one of `replaced`, with its unit; one line for each
    /// process and file. Processes of containers are left out.
    async fn users_of(&self, replaced: &[ReplacedFile]) -> PortResult<Vec<ProcessUse>>;

    /// Units with a process whose mount namespace has a mount of its own below `/usr`, and where:
    /// a switch takes that mount from them.
    async fn own_mounts(&self) -> PortResult<Vec<(UnitName, PathBuf)>>;
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

/// A process that uses a replaced file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUse {
    /// The process.
    pub pid: u32,
    /// Its unit on the system manager; none for processes of user sessions and of no unit.
    pub unit: Option<UnitName>,
    /// The file.
    pub path: PathBuf,
}
