use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use apt_ostree_proto::UnitName;
use apt_ostree_proto::id::BootId;
use tokio::time::Instant;

use super::{
    DiskState, Faults, SimChecks, SimDisk, SimFault, SimPackages, SimProcesses, SimSystemd,
    SimUnit, UnitSnapshot,
};
use crate::clock::BootClock;
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
    /// Its probes and hooks.
    pub checks: Rc<SimChecks>,
    time: Rc<SimTime>,
}

/// The time since the boot: that of the runtime which runs, added to that of those before it.
#[derive(Debug, Default)]
struct SimTime {
    passed: Cell<Duration>,
    last: Cell<Option<Instant>>,
}

impl SimTime {
    fn now(&self) -> Duration {
        let now = Instant::now();
        let since =
            self.last.replace(Some(now)).map_or(Duration::ZERO, |last| now.duration_since(last));
        self.passed.set(self.passed.get() + since);
        self.passed.get()
    }
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
            checks: Rc::default(),
            time: Rc::default(),
        };
        host.packages.set_disk(Rc::clone(&host.disk));
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
            checks: Rc::clone(&self.checks) as _,
        }
    }

    /// The boot that it is in.
    pub fn boot(&self) -> BootId {
        let text = format!("{:08x}-0000-4000-8000-000000000000", self.disk.boots());
        BootId::parse(text).expect("a UUID is a boot id")
    }

    /// The time since its boot: what passes in the runtime, and what [`SimHost::pass`] adds.
    pub fn clock(&self) -> BootClock {
        let time = Rc::clone(&self.time);
        BootClock::reading(move || time.now())
    }

    /// Time passes in which no daemon runs, or the host is suspended.
    pub fn pass(&self, time: Duration) {
        self.time.passed.set(self.time.passed.get() + time);
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
        self.checks.set_faults(faults.clone());
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
