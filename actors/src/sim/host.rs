use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use apt_ostree_proto::UnitName;

use super::{
    DiskState, Faults, SimDisk, SimFault, SimPackages, SimProcesses, SimSystemd, SimUnit,
    UnitSnapshot,
};
use crate::port::Host;

/// A whole simulated host.
#[derive(Clone, Debug)]
pub struct SimHost {
    /// Its disk.
    pub disk: Rc<SimDisk>,
    /// Its packages.
    pub packages: Rc<SimPackages>,
    /// Its service manager.
    pub systemd: Rc<SimSystemd>,
    /// Its processes.
    pub processes: Rc<SimProcesses>,
}

/// Everything about a host that two moments are compared by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldState {
    /// The disk.
    pub disk: DiskState,
    /// The units.
    pub units: BTreeMap<UnitName, UnitSnapshot>,
    /// Whether apt's archive lock is held.
    pub locked: bool,
}

impl SimHost {
    /// A booted host whose one service can be upgraded.
    pub fn booted() -> Self {
        let systemd = Rc::new(SimSystemd::new());
        systemd.set_tree(1);
        let host = Self {
            disk: Rc::new(SimDisk::new(Rc::clone(&systemd))),
            packages: Rc::new(SimPackages::new()),
            systemd,
            processes: Rc::new(SimProcesses::new()),
        };
        let unit = UnitName::parse("app.service").expect("a literal unit name");
        let file = SimUnit { unit_file: "enabled".to_owned(), ..SimUnit::default() };
        host.systemd.define(&unit, file);
        host.systemd.boot(&unit);
        host
    }

    /// Its ports.
    pub fn ports(&self) -> Host {
        Host {
            packages: Rc::clone(&self.packages) as _,
            archive: Rc::clone(&self.packages) as _,
            http: Rc::clone(&self.packages) as _,
            sandbox: Rc::clone(&self.packages) as _,
            tree: Rc::clone(&self.disk) as _,
            mounts: Rc::clone(&self.disk) as _,
            files: Rc::clone(&self.disk) as _,
            systemd: Rc::clone(&self.systemd) as _,
            processes: Rc::clone(&self.processes) as _,
        }
    }

    /// Its state.
    pub fn state(&self) -> WorldState {
        WorldState {
            disk: self.disk.state(),
            units: self.systemd.snapshot(),
            locked: self.packages.is_locked(),
        }
    }

    /// Sets which calls of any port go wrong.
    pub fn set_faults(&self, faults: &Faults) {
        self.disk.set_faults(faults.clone());
        self.packages.set_faults(faults.clone());
        self.systemd.set_faults(faults.clone());
        self.processes.set_faults(faults.clone());
    }

    /// Has the call with the number `index`, counted over all ports from now on, go wrong; answers
    /// where the names of all calls are written.
    pub fn fail_call(&self, index: usize, fault: SimFault) -> Rc<RefCell<Vec<String>>> {
        let calls = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&calls);
        self.set_faults(&Faults::from_hook(move |call| {
            let mut seen = seen.borrow_mut();
            seen.push(call.to_owned());
            (seen.len() == index + 1).then_some(fault)
        }));
        calls
    }
}
