use std::cell::RefCell;
use std::path::PathBuf;

use apt_ostree_proto::UnitName;
use apt_ostree_proto::outdated::Place;
use async_trait::async_trait;

use super::Faults;
use crate::port::{Manner, PortResult, ProcessUse, Processes, ReplacedFile, Sighting, TreeChange};

/// A simulated process table.
#[derive(Debug, Default)]
pub struct SimProcesses {
    faults: RefCell<Faults>,
    processes: RefCell<Vec<SimProcess>>,
    own_mounts: RefCell<Vec<(UnitName, PathBuf)>>,
    outdated: RefCell<Vec<ProcessUse>>,
    told_changes: RefCell<Vec<TreeChange>>,
}

/// A simulated process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimProcess {
    /// Its number.
    pub pid: u32,
    /// Its unit.
    pub unit: Option<UnitName>,
    /// Where it runs.
    pub place: Place,
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

    /// Has a process run old code.
    pub fn add_outdated(&self, found: ProcessUse) {
        self.outdated.borrow_mut().push(found);
    }

    /// What the last [`Processes::outdated`] was told of changes.
    pub fn told_changes(&self) -> Vec<TreeChange> {
        self.told_changes.borrow().clone()
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
                    place: process.place.clone(),
                    path: file.path.clone(),
                    manner: Manner::Maps,
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

    async fn outdated(&self, changes: &[TreeChange]) -> PortResult<Sighting> {
        let faults = self.faults.borrow().clone();
        let effect = async {
            *self.told_changes.borrow_mut() = changes.to_vec();
            let uses = self.outdated.borrow().clone();
            let processes = (self.processes.borrow().len() + uses.len()) as u64;
            Ok(Sighting { processes, uses, kernel: None })
        };
        faults.around("processes.outdated", effect).await
    }
}
