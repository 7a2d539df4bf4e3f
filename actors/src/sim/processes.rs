use std::cell::RefCell;
use std::path::PathBuf;

use apt_ostree_proto::UnitName;
use async_trait::async_trait;

use super::Faults;
use crate::port::{PortResult, ProcessUse, Processes, ReplacedFile};

/// A simulated process table.
#[derive(Debug, Default)]
pub struct SimProcesses {
    faults: RefCell<Faults>,
    processes: RefCell<Vec<SimProcess>>,
    own_mounts: RefCell<Vec<(UnitName, PathBuf)>>,
}

/// A simulated process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimProcess {
    /// Its number.
    pub pid: u32,
    /// Its unit.
    pub unit: Option<UnitName>,
    /// The files that it maps.
    pub maps: Vec<PathBuf>,
}

impl SimProcesses {
    /// A host without processes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets which calls go wrong.
    pub fn set_faults(&self, faults: Faults) {
        *self.faults.borrow_mut() = faults;
    }

    /// Adds a process.
    pub fn add(&self, process: SimProcess) {
        self.processes.borrow_mut().push(process);
    }

    /// Gives a unit a mount of its own.
    pub fn add_own_mount(&self, unit: UnitName, path: PathBuf) {
        self.own_mounts.borrow_mut().push((unit, path));
    }
}

#[async_trait(?Send)]
impl Processes for SimProcesses {
    async fn users_of(&self, replaced: &[ReplacedFile]) -> PortResult<Vec<ProcessUse>> {
        let faults = self.faults.borrow().clone();
        let effect = async {
            let processes = self.processes.borrow();
            let uses = processes.iter().flat_map(|process| {
                let used = replaced.iter().filter(|file| process.maps.contains(&file.path));
                used.map(|file| ProcessUse {
                    pid: process.pid,
                    unit: process.unit.clone(),
                    path: file.path.clone(),
                })
            });
            Ok(uses.collect())
        };
        faults.around("processes.users_of", effect).await
    }

    async fn own_mounts(&self) -> PortResult<Vec<(UnitName, PathBuf)>> {
        let faults = self.faults.borrow().clone();
        let effect = async { Ok(self.own_mounts.borrow().clone()) };
        faults.around("processes.own_mounts", effect).await
    }
}
