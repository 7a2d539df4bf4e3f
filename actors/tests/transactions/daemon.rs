//! A daemon on a simulated host, which can die and be followed by another.

use std::cell::Cell;
use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use actix::Addr;
use apt_ostree_actors::blocking::SharedJournal;
use apt_ostree_actors::coordinator::{
    BeginTransaction, Coordinator, Environment, LastResort, Publisher, ReadRecord, Recover,
    Settings, WatchTransaction,
};
use apt_ostree_actors::download::Limits;
use apt_ostree_actors::journal::Journal;
use apt_ostree_actors::sim::{Faults, SimFault, SimHost, WorldState};
use apt_ostree_proto::TransactionId;
use apt_ostree_proto::event::Event;
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::request::{Caller, Selection, Target, UpdateRequest};
use apt_ostree_proto::status::Outcome;
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
        let daemon = Self::launch(host, state, Faults::default());
        daemon.coordinator.send(Recover).await.unwrap().unwrap();
        daemon
    }

    /// A daemon that has not recovered yet, with these faults of its journal.
    fn launch(host: &SimHost, state: &Path, journal_faults: Faults) -> Self {
        let (publish, events) = Publisher::channel();
        let death = Rc::new(Death::default());
        let dying = Rc::clone(&death);
        let settings = Settings {
            state_directory: state.to_owned(),
            archives: state.join("archives"),
            download: Limits::default(),
            dwell: Duration::from_secs(5),
            keep_updates: 3,
            never_restart: Vec::new(),
        };
        let journal = SharedJournal::new(Journal::open(state).unwrap());
        let environment = Environment {
            host: host.ports(),
            journal: journal.disturbed_by(journal_faults),
            boot: None,
            publish,
            last_resort: LastResort::calling(move |_| {
                dying.is_dead.set(true);
                dying.happened.notify_one();
            }),
        };
        let coordinator = Coordinator::start_in(environment, settings);
        Self { coordinator, events, death }
    }

    pub(crate) async fn begin(&self, target: Target) -> TransactionId {
        let request = BeginTransaction { request: UpdateRequest::new(target), ..begin_upgrade() };
        self.coordinator.send(request).await.unwrap().unwrap()
    }

    pub(crate) async fn end(&mut self, id: TransactionId) -> HistoryRecord {
        while let Some(event) = self.events.recv().await {
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

    /// Recovers, then updates if nothing was begun before; `None` when the daemon dies of it.
    async fn live(&mut self) -> Option<HistoryRecord> {
        let death = Rc::clone(&self.death);
        let life = async {
            self.coordinator.send(Recover).await.unwrap().ok()?;
            if let Ok((record, _)) = self.coordinator.send(ReadRecord(FIRST)).await.unwrap() {
                return Some(record);
            }
            let id = self.begin(upgrade()).await;
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

/// The number of the first transaction of a journal.
pub(crate) const FIRST: TransactionId = TransactionId(1);

/// How many daemons may die before one has to end the update: each is disturbed less than the last.
const MOST_LIVES: usize = 8;

/// Has daemons begin an update, and each take up what the one before has left, until one ends it.
/// `faults` gives each daemon's faults: of its host's ports and of its journal.
pub(crate) fn live_through(
    host: &SimHost,
    state: &Path,
    mut faults: impl FnMut(usize) -> (Faults, Faults),
) -> HistoryRecord {
    for life in 0..MOST_LIVES {
        let (ports, journal) = faults(life);
        host.set_faults(&ports);
        let record = in_system(async {
            let mut daemon = Daemon::launch(host, state, journal);
            daemon.live().await
        });
        if let Some(record) = record {
            return record;
        }
        // apt's lock is the process's own.
        host.packages.drop_lock();
    }
    panic!("{MOST_LIVES} daemons died, one after the other");
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
    let (host, state) = (SimHost::booted(), directory());
    let before = host.state();
    let calls = host.fail_call(usize::MAX - 1, SimFault::ErrorBefore);
    let record = Daemon::start(&host, state.path()).await.update().await;
    assert_eq!(record.outcome, Outcome::Committed, "{record:?}");
    let calls = calls.borrow().clone();
    Golden { before, after: host.state(), calls }
}
