use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use apt_ostree_proto::UnitName;
use apt_ostree_proto::service::{UnitAction, UnitState, UnitUsage};
use async_trait::async_trait;
use tokio::time::Instant;

use super::Faults;
use crate::port::{JobOutcome, PortResult, Systemd, UnitDependencies};

/// The first process number that is given to a unit's main process.
const FIRST_PID: u32 = 1000;

/// A simulated service manager. Units come from the tree that is current; what runs keeps the code
/// of the tree that it was started on, until it is restarted.
#[derive(Debug, Default)]
pub struct SimSystemd {
    faults: RefCell<Faults>,
    world: RefCell<World>,
    holds_shutdown: Cell<bool>,
    forbidden: RefCell<BTreeSet<UnitName>>,
}

/// A simulated unit file with what the unit does when it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimUnit {
    /// How it hangs together with others.
    pub dependencies: UnitDependencies,
    /// The files that it reads.
    pub reads: Vec<PathBuf>,
    /// `UnitFileState`.
    pub unit_file: String,
    /// Whether it is masked.
    pub masked: bool,
    /// How it behaves.
    pub behaviour: Behaviour,
}

/// What a unit does when it is started and stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// How long a start takes.
    pub start_takes: Duration,
    /// Its start fails with this result.
    pub start_fails: Option<String>,
    /// Its start never ends.
    pub start_hangs: bool,
    /// It fails so long after each start.
    pub dies_after: Option<Duration>,
    /// The manager restarts it at once when it dies.
    pub restarts_itself: bool,
    /// Its stop never ends.
    pub stop_hangs: bool,
    /// It ends with success as soon as it was started.
    pub one_shot: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            start_takes: Duration::from_millis(50),
            start_fails: None,
            start_hangs: false,
            dies_after: None,
            restarts_itself: false,
            stop_hangs: false,
            one_shot: false,
        }
    }
}

/// A unit as two worlds are compared by: without what differs from one start to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitSnapshot {
    /// `LoadState`.
    pub load: String,
    /// `ActiveState`.
    pub active: String,
    /// The tree whose code it runs; none when it is down.
    pub runs_tree: Option<u64>,
}

#[derive(Debug, Default)]
struct World {
    /// The tree that is mounted.
    tree: u64,
    /// Unit files that every tree has.
    files: BTreeMap<UnitName, SimUnit>,
    /// Unit files of one tree, none where that tree lacks one that the others have.
    files_of_tree: BTreeMap<(u64, UnitName), Option<SimUnit>>,
    /// Unit files as the manager last read them.
    loaded: BTreeMap<UnitName, SimUnit>,
    running: BTreeMap<UnitName, Runtime>,
    next_pid: u32,
    /// Every call that changed something, in order.
    calls: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Runtime {
    active: String,
    result: String,
    restarts: u32,
    main_pid: u32,
    tree: u64,
    dies_at: Option<Instant>,
}

impl SimSystemd {
    /// A host without units.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a shutdown of the host is held up.
    pub fn holds_shutdown(&self) -> bool {
        self.holds_shutdown.get()
    }

    /// Has the host's policy forbid to touch a unit.
    pub fn forbid(&self, unit: &UnitName) {
        self.forbidden.borrow_mut().insert(unit.clone());
    }

    /// Sets which calls go wrong.
    pub fn set_faults(&self, faults: Faults) {
        *self.faults.borrow_mut() = faults;
    }

    /// Puts a unit file into every tree.
    pub fn define(&self, unit: &UnitName, file: SimUnit) {
        let mut world = self.world.borrow_mut();
        world.files.insert(unit.clone(), file);
        world.reload();
    }

    /// Puts a unit file into one tree alone, or has that tree lack it.
    pub fn define_in(&self, tree: u64, unit: &UnitName, file: Option<SimUnit>) {
        let mut world = self.world.borrow_mut();
        world.files_of_tree.insert((tree, unit.clone()), file);
        world.reload();
    }

    /// Mounts another tree: what starts from now on runs its code. Unit files count once
    /// [`Systemd::reload_managers`] was called.
    pub fn set_tree(&self, tree: u64) {
        self.world.borrow_mut().tree = tree;
    }

    /// Sets a unit up without a job, as if it had been started at boot.
    pub fn boot(&self, unit: &UnitName) {
        self.world.borrow_mut().begin(unit, 0);
    }

    /// Sets a unit to `failed`, as if that had happened earlier.
    pub fn fail(&self, unit: &UnitName) {
        self.world.borrow_mut().fail(unit, "exit-code");
    }

    /// All units, as two worlds are compared by.
    pub fn snapshot(&self) -> BTreeMap<UnitName, UnitSnapshot> {
        let mut world = self.world.borrow_mut();
        world.settle();
        let names: BTreeSet<UnitName> =
            world.loaded.keys().chain(world.running.keys()).cloned().collect();
        let snapshot = |unit: &UnitName| {
            let state = world.state(unit);
            let tree = world.running.get(unit).map(|runtime| runtime.tree);
            let runs_tree = tree.filter(|_| state.is_up());
            UnitSnapshot { load: state.load, active: state.active, runs_tree }
        };
        names
            .iter()
            .map(|unit| (unit.clone(), snapshot(unit)))
            .filter(|(_, unit)| unit.load != "not-found" || unit.active != "inactive")
            .collect()
    }

    /// Every call that changed something, in order: `restart nginx.service`.
    pub fn calls(&self) -> Vec<String> {
        self.world.borrow().calls.clone()
    }

    async fn around<T>(
        &self,
        call: &str,
        effect: impl Future<Output = PortResult<T>>,
    ) -> PortResult<T> {
        let faults = self.faults.borrow().clone();
        faults.around(call, effect).await
    }

    fn note(&self, verb: &str, unit: &UnitName) {
        self.world.borrow_mut().calls.push(format!("{verb} {unit}"));
    }

    fn file(&self, unit: &UnitName) -> Option<SimUnit> {
        self.world.borrow().loaded.get(unit).cloned()
    }

    fn state_now(&self, unit: &UnitName) -> UnitState {
        let mut world = self.world.borrow_mut();
        world.settle();
        world.state(unit)
    }

    async fn run_start(&self, unit: &UnitName, timeout: Duration) -> JobOutcome {
        let Some(file) = self.file(unit) else { return JobOutcome::Failed("not-found".to_owned()) };
        if file.masked {
            return JobOutcome::Failed("masked".to_owned());
        }
        if self.state_now(unit).is_up() {
            return JobOutcome::Done;
        }
        let required: Vec<UnitName> = file.dependencies.requires.clone();
        for other in required {
            if !Box::pin(self.run_start(&other, timeout)).await.eq(&JobOutcome::Done) {
                return JobOutcome::Failed("dependency".to_owned());
            }
        }
        if file.behaviour.start_hangs || file.behaviour.start_takes > timeout {
            tokio::time::sleep(timeout).await;
            return JobOutcome::TimedOut;
        }
        tokio::time::sleep(file.behaviour.start_takes).await;
        if let Some(result) = &file.behaviour.start_fails {
            self.world.borrow_mut().fail(unit, result);
            return JobOutcome::Failed("failed".to_owned());
        }
        self.world.borrow_mut().begin(unit, 0);
        JobOutcome::Done
    }

    /// Stops a unit and, first, those that need it. Answers them in the order of their stopping.
    async fn run_stop(&self, unit: &UnitName, timeout: Duration) -> (JobOutcome, Vec<UnitName>) {
        let mut stopped = Vec::new();
        let needing = self.file(unit).map(|file| file.dependencies.required_by).unwrap_or_default();
        for other in needing.iter().filter(|other| self.state_now(other).is_up()) {
            let (outcome, mut more) = Box::pin(self.run_stop(other, timeout)).await;
            stopped.append(&mut more);
            if outcome != JobOutcome::Done {
                return (outcome, stopped);
            }
        }
        if self.file(unit).is_some_and(|file| file.behaviour.stop_hangs) {
            tokio::time::sleep(timeout).await;
            return (JobOutcome::TimedOut, stopped);
        }
        let mut world = self.world.borrow_mut();
        world.settle();
        if world.state(unit).is_up() {
            world.running.remove(unit);
            stopped.push(unit.clone());
        }
        (JobOutcome::Done, stopped)
    }

    async fn run_restart(&self, unit: &UnitName, timeout: Duration) -> JobOutcome {
        let (outcome, stopped) = self.run_stop(unit, timeout).await;
        if outcome != JobOutcome::Done {
            return outcome;
        }
        let outcome = self.run_start(unit, timeout).await;
        for other in stopped.iter().rev().filter(|other| *other != unit) {
            // As in systemd: the job that was asked for does not fail with those it takes along.
            let taken_along = self.run_start(other, timeout).await;
            tracing::debug!(unit = %other, ?taken_along, "taken along");
        }
        outcome
    }
}

impl World {
    fn reload(&mut self) {
        self.loaded = self.files.clone();
        for ((tree, unit), file) in &self.files_of_tree {
            if *tree == self.tree {
                match file {
                    Some(file) => self.loaded.insert(unit.clone(), file.clone()),
                    None => self.loaded.remove(unit),
                };
            }
        }
    }

    fn begin(&mut self, unit: &UnitName, restarts: u32) {
        self.next_pid = self.next_pid.max(FIRST_PID) + 1;
        let behaviour =
            self.loaded.get(unit).map(|file| file.behaviour.clone()).unwrap_or_default();
        let runtime = Runtime {
            active: if behaviour.one_shot { "inactive" } else { "active" }.to_owned(),
            result: "success".to_owned(),
            restarts,
            main_pid: if unit.kind() == "service" { self.next_pid } else { 0 },
            tree: self.tree,
            dies_at: behaviour.dies_after.map(|after| Instant::now() + after),
        };
        self.running.insert(unit.clone(), runtime);
    }

    fn fail(&mut self, unit: &UnitName, result: &str) {
        let runtime = Runtime {
            active: "failed".to_owned(),
            result: result.to_owned(),
            ..Runtime::default()
        };
        self.running.insert(unit.clone(), runtime);
    }

    /// Lets the units die whose time has come.
    fn settle(&mut self) {
        let now = Instant::now();
        let dead: Vec<(UnitName, u32)> = self
            .running
            .iter()
            .filter(|(_, runtime)| runtime.dies_at.is_some_and(|at| at <= now))
            .map(|(unit, runtime)| (unit.clone(), runtime.restarts))
            .collect();
        for (unit, restarts) in dead {
            if self.loaded.get(&unit).is_some_and(|file| file.behaviour.restarts_itself) {
                self.begin(&unit, restarts + 1);
            } else {
                self.fail(&unit, "exit-code");
            }
        }
    }

    fn state(&self, unit: &UnitName) -> UnitState {
        let file = self.loaded.get(unit);
        let runtime = self.running.get(unit).cloned().unwrap_or_default();
        let load = match file {
            None => "not-found",
            Some(file) if file.masked => "masked",
            Some(_) => "loaded",
        };
        let active = if runtime.active.is_empty() { "inactive" } else { &runtime.active };
        UnitState {
            load: load.to_owned(),
            active: active.to_owned(),
            sub: if active == "active" { "running" } else { "dead" }.to_owned(),
            result: runtime.result,
            restarts: runtime.restarts,
            main_pid: runtime.main_pid,
            unit_file: file.map(|file| file.unit_file.clone()).unwrap_or_default(),
        }
    }
}

#[async_trait(?Send)]
impl Systemd for SimSystemd {
    async fn states(&self, units: &[UnitName]) -> PortResult<BTreeMap<UnitName, UnitState>> {
        let effect =
            async { Ok(units.iter().map(|unit| (unit.clone(), self.state_now(unit))).collect()) };
        self.around("systemd.states", effect).await
    }

    async fn forbidden_by_policy(
        &self,
        units: &[(UnitName, UnitAction)],
    ) -> PortResult<BTreeMap<UnitName, String>> {
        let effect = async {
            let forbidden = self.forbidden.borrow();
            let named = units.iter().filter(|(unit, _)| forbidden.contains(unit));
            Ok(named.map(|(unit, _)| (unit.clone(), "forbidden".to_owned())).collect())
        };
        self.around("systemd.forbidden_by_policy", effect).await
    }

    async fn is_stopping(&self) -> PortResult<bool> {
        self.around("systemd.is_stopping", async { Ok(false) }).await
    }

    async fn list(&self) -> PortResult<BTreeMap<UnitName, UnitState>> {
        let effect = async {
            let names: BTreeSet<UnitName> = {
                let world = self.world.borrow();
                world.loaded.keys().chain(world.running.keys()).cloned().collect()
            };
            Ok(names.into_iter().map(|unit| (unit.clone(), self.state_now(&unit))).collect())
        };
        self.around("systemd.list", effect).await
    }

    async fn usage(&self, units: &[UnitName]) -> PortResult<BTreeMap<UnitName, UnitUsage>> {
        let effect = async {
            let up = units.iter().filter(|unit| self.state_now(unit).is_up());
            Ok(up.map(|unit| (unit.clone(), UnitUsage::default())).collect())
        };
        self.around("systemd.usage", effect).await
    }

    async fn dependencies(
        &self,
        units: &[UnitName],
    ) -> PortResult<BTreeMap<UnitName, UnitDependencies>> {
        let effect = async {
            let world = self.world.borrow();
            let of = |unit: &UnitName| {
                let alias =
                    world.loaded.iter().find(|(_, file)| file.dependencies.names.contains(unit));
                let Some((id, file)) = world.loaded.get_key_value(unit).or(alias) else {
                    return UnitDependencies::default();
                };
                UnitDependencies { id: Some(id.clone()), ..file.dependencies.clone() }
            };
            Ok(units.iter().map(|unit| (unit.clone(), of(unit))).collect())
        };
        self.around("systemd.dependencies", effect).await
    }

    async fn reads(&self, units: &[UnitName]) -> PortResult<BTreeMap<UnitName, Vec<PathBuf>>> {
        let effect = async {
            let file = |unit: &UnitName| Some((unit.clone(), self.file(unit)?.reads));
            Ok(units.iter().filter(|unit| unit.kind() == "service").filter_map(file).collect())
        };
        self.around("systemd.reads", effect).await
    }

    async fn start(&self, unit: &UnitName, timeout: Duration) -> PortResult<JobOutcome> {
        let effect = async {
            self.note("start", unit);
            Ok(self.run_start(unit, timeout).await)
        };
        self.around("systemd.start", effect).await
    }

    async fn stop(&self, unit: &UnitName, timeout: Duration) -> PortResult<JobOutcome> {
        let effect = async {
            self.note("stop", unit);
            Ok(self.run_stop(unit, timeout).await.0)
        };
        self.around("systemd.stop", effect).await
    }

    async fn restart(&self, unit: &UnitName, timeout: Duration) -> PortResult<JobOutcome> {
        let effect = async {
            self.note("restart", unit);
            if self.socket_is_held(unit) {
                return Ok(JobOutcome::Failed("failed".to_owned()));
            }
            Ok(self.run_restart(unit, timeout).await)
        };
        self.around("systemd.restart", effect).await
    }

    async fn reload_or_restart(
        &self,
        unit: &UnitName,
        timeout: Duration,
    ) -> PortResult<JobOutcome> {
        let effect = async {
            self.note("reload-or-restart", unit);
            if self.file(unit).is_some_and(|file| file.dependencies.can_reload)
                && self.state_now(unit).is_up()
            {
                return Ok(JobOutcome::Done);
            }
            Ok(self.run_restart(unit, timeout).await)
        };
        self.around("systemd.reload_or_restart", effect).await
    }

    async fn reset_failed(&self, unit: &UnitName) -> PortResult<()> {
        let effect = async {
            let mut world = self.world.borrow_mut();
            if world.state(unit).is_failed() {
                world.running.remove(unit);
            }
            Ok(())
        };
        self.around("systemd.reset_failed", effect).await
    }

    async fn reload_managers(&self) -> PortResult<()> {
        let effect = async {
            self.world.borrow_mut().reload();
            Ok(())
        };
        self.around("systemd.reload_managers", effect).await
    }

    async fn create_tmpfiles(&self, fragments: &[PathBuf]) -> PortResult<()> {
        let effect = async {
            let mut world = self.world.borrow_mut();
            for fragment in fragments {
                world.calls.push(format!("tmpfiles {}", fragment.display()));
            }
            Ok(())
        };
        self.around("systemd.create_tmpfiles", effect).await
    }

    async fn load_profiles(&self, changed: &[PathBuf]) -> PortResult<Vec<String>> {
        let effect = async {
            let profiles = changed.iter().filter(|path| path.starts_with("/etc/apparmor.d"));
            let noted = profiles.map(|path| format!("profile {}", path.display()));
            self.world.borrow_mut().calls.extend(noted);
            Ok(Vec::new())
        };
        self.around("systemd.load_profiles", effect).await
    }

    async fn wait_for_change(&self, timeout: Duration) -> PortResult<()> {
        let effect = async {
            let end = Instant::now() + timeout;
            let next_death = {
                let world = self.world.borrow();
                world.running.values().filter_map(|runtime| runtime.dies_at).min()
            };
            tokio::time::sleep_until(next_death.map_or(end, |at| at.min(end))).await;
            Ok(())
        };
        self.around("systemd.wait_for_change", effect).await
    }

    async fn hold_shutdown(&self, _: &str) -> PortResult<()> {
        let effect = async {
            self.holds_shutdown.set(true);
            Ok(())
        };
        self.around("systemd.hold_shutdown", effect).await
    }

    fn allow_shutdown(&self) {
        self.holds_shutdown.set(false);
    }

    async fn last_log_lines(&self, unit: &UnitName) -> PortResult<Vec<String>> {
        let effect = async { Ok(vec![format!("simulated log of {unit}")]) };
        self.around("systemd.last_log_lines", effect).await
    }
}

impl SimSystemd {
    /// As systemd has it, a socket does not restart while a service of its own runs.
    fn socket_is_held(&self, unit: &UnitName) -> bool {
        let triggers = self.file(unit).map(|file| file.dependencies.triggers).unwrap_or_default();
        unit.kind() == "socket" && triggers.iter().any(|service| self.state_now(service).is_up())
    }
}
