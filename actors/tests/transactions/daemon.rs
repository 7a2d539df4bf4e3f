//! A daemon on a simulated host, which can die and be followed by another.

use std::cell::Cell;
use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use actix::Addr;
use apt_ostree_actors::blocking::SharedJournal;
use apt_ostree_actors::coordinator::{
    BeginTransaction, ConfirmTransaction, Coordinator, Environment, LastResort, Publisher,
    ReadRecord, Recover, Settings, SettingsChanges, WatchBegun, WatchTransaction,
};
use apt_ostree_actors::download::Limits;
use apt_ostree_actors::journal::{Journal, Surroundings};
use apt_ostree_actors::port::{CheckLevel, Host, InstallTest, Probe, Probes, Question};
use apt_ostree_actors::service::Strategies;
use apt_ostree_actors::sim::{Faults, SimFault, SimHost, WorldState};
use apt_ostree_proto::event::Event;
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::request::{Caller, Selection, Target, UpdateRequest};
use apt_ostree_proto::status::{Outcome, Phase};
use apt_ostree_proto::step::Step;
use apt_ostree_proto::{Failure, PackageName, TransactionId, UnitName};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;

/// Longer than any transaction may take, in virtual time.
const FOREVER: Duration = Duration::from_secs(7 * 24 * 3600);

/// Runs a test in an actix system whose clock stands still but for waits.
pub(crate) fn in_system<T>(test: impl Future<Output = T>) -> T {
    let system = actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
    });
    system.block_on(test)
}

/// A daemon on a simulated host.
pub(crate) struct Daemon {
    pub(crate) coordinator: Addr<Coordinator>,
    pub(crate) events: UnboundedReceiver<Event>,
    /// The transaction whose end was read from the events already.
    ended: Option<TransactionId>,
    death: Rc<Death>,
}

/// Whether the daemon took its last resort.
#[derive(Default)]
struct Death {
    is_dead: Cell<bool>,
    happened: Notify,
}

impl Daemon {
    pub(crate) async fn start(host: &SimHost, state: &Path) -> Self {
        Self::start_with(host, state, settings(state)).await
    }

    pub(crate) async fn start_with(host: &SimHost, state: &Path, settings: Settings) -> Self {
        let daemon = Self::launch(&host.ports(), host, state, settings, Faults::default());
        daemon.coordinator.send(Recover).await.unwrap().unwrap();
        daemon
    }

    /// One that reaches the host by other ports than the host's own.
    pub(crate) async fn start_on(ports: &Host, host: &SimHost, state: &Path) -> Self {
        let daemon = Self::launch(ports, host, state, settings(state), Faults::default());
        daemon.coordinator.send(Recover).await.unwrap().unwrap();
        daemon
    }

    /// A daemon that has not recovered yet, with these faults of its journal.
    fn launch(
        ports: &Host,
        host: &SimHost,
        state: &Path,
        settings: Settings,
        journal_faults: Faults,
    ) -> Self {
        let (publish, events) = Publisher::channel();
        let death = Rc::new(Death::default());
        let dying = Rc::clone(&death);
        let journal = SharedJournal::new(Journal::open_on(state, &surroundings(host)).unwrap());
        let environment = Environment {
            host: ports.clone(),
            journal: journal.disturbed_by(journal_faults),
            boot: Some(host.boot()),
            clock: host.clock(),
            publish,
            last_resort: LastResort::calling(move |_| {
                dying.is_dead.set(true);
                dying.happened.notify_one();
            }),
            changes: SettingsChanges::none(),
        };
        let coordinator = Coordinator::start_in(environment, settings);
        Self { coordinator, events, ended: None, death }
    }

    pub(crate) async fn begin(&self, target: Target) -> TransactionId {
        let request = BeginTransaction { request: UpdateRequest::new(target), ..begin_upgrade() };
        self.coordinator.send(request).await.unwrap().unwrap()
    }

    pub(crate) async fn end(&mut self, id: TransactionId) -> HistoryRecord {
        while self.ended != Some(id)
            && let Some(event) = self.events.recv().await
        {
            if matches!(event, Event::Finished { id: ended, .. } if ended == id) {
                break;
            }
        }
        self.coordinator.send(ReadRecord(id)).await.unwrap().unwrap().0
    }

    pub(crate) async fn update(&mut self) -> HistoryRecord {
        let id = self.begin(upgrade()).await;
        self.end(id).await
    }

    /// Reads events until the transaction waits for its confirmation, or ends; answers whether it
    /// waits. What was read of its end is left to [`Daemon::end`].
    pub(crate) async fn wait_or_end(&mut self, id: TransactionId) -> bool {
        let mut is_there = false;
        while let Some(event) = self.events.recv().await {
            match event {
                Event::PhaseChanged { id: told, phase } if told == id => {
                    is_there = phase == Phase::Running(Step::Confirm);
                }
                Event::Progress { id: told, remaining_seconds: 1.., .. }
                    if told == id && is_there =>
                {
                    return true;
                }
                Event::Finished { id: told, .. } if told == id => {
                    self.ended = Some(id);
                    return false;
                }
                _ => {}
            }
        }
        false
    }

    pub(crate) async fn confirm(&self) -> Result<TransactionId, Failure> {
        let request = ConfirmTransaction { id: None, caller: Caller::default() };
        self.coordinator.send(request).await.unwrap()
    }

    /// Recovers, then begins `request` if nothing was begun before, and confirms it where `confirm` says
    /// so; `None` when the daemon dies of it.
    async fn live(
        &mut self,
        id: TransactionId,
        request: &BeginTransaction,
        confirm: bool,
    ) -> Option<HistoryRecord> {
        let death = Rc::clone(&self.death);
        let life = async {
            self.coordinator.send(Recover).await.unwrap().ok()?;
            if let Ok((record, _)) = self.coordinator.send(ReadRecord(id)).await.unwrap() {
                return Some(record);
            }
            if self.coordinator.send(WatchBegun(id)).await.unwrap().is_none() {
                self.coordinator.send(request.clone()).await.unwrap().unwrap();
            }
            if confirm && self.wait_or_end(id).await {
                // It may be too late, and says so: what counts is how it ends.
                drop(self.confirm().await);
            }
            Some(self.end(id).await)
        };
        tokio::select! {
            record = life => record.filter(|_| !death.is_dead.get()),
            () = death.happened.notified() => None,
            () = tokio::time::sleep(FOREVER) => panic!(
                "neither the update nor the daemon ended: {:?}",
                self.coordinator.send(WatchTransaction).await.unwrap()
            ),
        }
    }
}

/// What of a host its journal is held against.
fn surroundings(host: &SimHost) -> Surroundings {
    let disk = host.disk.state();
    let ids = disk.checkouts.keys().chain(&disk.stages).chain(&disk.prepared);
    let trees = ids.map(|id| (*id, disk.checkouts.get(id).cloned())).collect();
    Surroundings { machine: None, os_name: None, trees }
}

/// The number of the first transaction of a journal.
pub(crate) const FIRST: TransactionId = TransactionId(1);

/// How many daemons may die before one has to end the update: each is disturbed less than the last.
const MOST_LIVES: usize = 8;

/// Has daemons begin an update, and each take up what the one before has left, until one ends it.
/// `faults` gives each daemon's faults: of its host's ports and of its journal.
pub(crate) fn live_through(
    host: &SimHost,
    state: &Path,
    faults: impl FnMut(usize) -> (Faults, Faults),
) -> HistoryRecord {
    live_through_with(host, state, &begin_upgrade(), false, faults)
}

/// The same with another request, which is confirmed or not where it waits for that.
pub(crate) fn live_through_with(
    host: &SimHost,
    state: &Path,
    request: &BeginTransaction,
    confirm: bool,
    faults: impl FnMut(usize) -> (Faults, Faults),
) -> HistoryRecord {
    live_through_on(&host.ports(), host, state, FIRST, request, confirm, faults)
}

/// The same by other ports than the host's own, for the transaction that will have this number.
pub(crate) fn live_through_on(
    ports: &Host,
    host: &SimHost,
    state: &Path,
    id: TransactionId,
    request: &BeginTransaction,
    confirm: bool,
    mut faults: impl FnMut(usize) -> (Faults, Faults),
) -> HistoryRecord {
    for life in 0..MOST_LIVES {
        let (of_ports, of_journal) = faults(life);
        host.set_faults(&of_ports);
        let record = in_system(async {
            let mut daemon = Daemon::launch(ports, host, state, settings(state), of_journal);
            daemon.live(id, request, confirm).await
        });
        if let Some(record) = record {
            return record;
        }
        // apt's lock is the process's own.
        host.packages.drop_lock();
    }
    panic!("{MOST_LIVES} daemons died, one after the other");
}

pub(crate) fn settings(state: &Path) -> Settings {
    Settings {
        state_directory: state.to_owned(),
        archives: state.join("archives"),
        download: Limits::default(),
        dwell: Duration::from_secs(5),
        tests: vec![test()],
        probes: Probes::from([(app(), vec![probe()])]),
        hook_timeout: Duration::from_secs(30),
        confirm_timeout: None,
        keep_updates: 3,
        keep_bytes: None,
        strategies: Strategies::default(),
        reads: [].into(),
    }
}

/// The unit of the simulated host.
pub(crate) fn app() -> UnitName {
    UnitName::parse("app.service").unwrap()
}

/// The test of its package.
fn test() -> InstallTest {
    InstallTest {
        name: "app".to_owned(),
        packages: vec![PackageName::parse("app").unwrap()],
        arguments: vec!["/usr/bin/app".to_owned(), "--test".to_owned()],
        timeout: Duration::from_secs(30),
    }
}

/// Its probe: once at the beginning of the dwell time and once at the end of it.
pub(crate) fn probe() -> Probe {
    Probe {
        question: Question::Tcp { address: "127.0.0.1".to_owned(), port: 80 },
        level: CheckLevel::Required,
        timeout: Duration::from_secs(5),
        interval: Duration::from_secs(5),
        successes: 2,
        settle: Duration::from_secs(30),
    }
}

pub(crate) fn upgrade() -> Target {
    Target::Packages(Selection::default())
}

pub(crate) fn begin_upgrade() -> BeginTransaction {
    BeginTransaction {
        title: "test".to_owned(),
        request: UpdateRequest::new(upgrade()),
        dry_run: false,
        caller: Caller::default(),
    }
}

/// An update that is put back unless somebody confirms it in time.
pub(crate) fn begin_upgrade_to_confirm(timeout_seconds: u32) -> BeginTransaction {
    let mut begin = begin_upgrade();
    begin.request.confirm_timeout_seconds = Some(timeout_seconds);
    begin
}

/// A state directory; in memory where there is a place for it: what is tested is the order of what is
/// written, not the disk.
pub(crate) fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let directory = tempfile::tempdir_in(place).unwrap();
    std::fs::create_dir_all(directory.path().join("archives/partial")).unwrap();
    directory
}

/// An update that nothing disturbs.
pub(crate) struct Golden {
    pub(crate) before: WorldState,
    pub(crate) after: WorldState,
    /// Every call that it makes of a port.
    pub(crate) calls: Vec<String>,
}

pub(crate) async fn golden() -> Golden {
    golden_of(begin_upgrade()).await
}

/// The same of another request; confirmed where it waits for that.
pub(crate) async fn golden_of(request: BeginTransaction) -> Golden {
    let (host, state) = (SimHost::booted(), directory());
    let before = host.state();
    let calls = host.fail_call(usize::MAX - 1, SimFault::ErrorBefore);
    let mut daemon = Daemon::start(&host, state.path()).await;
    let id = daemon.coordinator.send(request).await.unwrap().unwrap();
    if daemon.wait_or_end(id).await {
        daemon.confirm().await.unwrap();
    }
    let record = daemon.end(id).await;
    assert_eq!(record.outcome, Outcome::Committed, "{record:?}");
    let calls = calls.borrow().clone();
    Golden { before, after: host.state(), calls }
}
