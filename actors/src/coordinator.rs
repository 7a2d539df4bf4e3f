//! The coordinator: takes requests, runs one transaction at a time, writes the journal, publishes
//! what happens.
//!
//! Modules in reading order: `begin` takes requests; `drive` runs one transaction from its log to its end, with the
//! effects of each step in `forward` and of each undo in `unwind`; `confirmation` is how one that
//! waits is confirmed; `hooks` is what the admin has run around it; `recovery` takes up what a dead
//! daemon left; `facts` and `progress` are what a transaction knows and how far it is; `pump` and `told`
//! write its two logs; `read` answers questions; `prune` forgets what is old; `retention` keeps what
//! rollbacks need, `points` names it, `compare` tells states apart; `outdated` finds what runs old
//! code, `restart` restarts it; `inspect` compares the host with its record and has it mended.

mod begin;
mod compare;
mod confirmation;
mod deadline;
mod drive;
mod environment;
mod facts;
mod forward;
mod hooks;
mod inspect;
mod interruption;
mod outdated;
mod points;
mod progress;
mod prune;
mod pump;
mod read;
mod recovery;
mod restart;
mod retention;
mod settings;
mod stale;
mod told;
mod unwind;

use std::cell::Cell;
use std::rc::Rc;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, ResponseFuture};
use apt_ostree_proto::event::Event;
use apt_ostree_proto::id::BootId;
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::status::{LostJournal, Phase, TransactionStatus};
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use tokio::sync::watch;

pub use begin::{BeginTransaction, RepairHost};
pub use compare::CompareStates;
pub use confirmation::{ConfirmTransaction, EndWaiting};
pub use environment::{Environment, LastResort, Publisher, SettingsChanges};
pub use inspect::{InspectHost, MendHost};
pub use outdated::FindOutdated;
pub use points::{MOST_POINTS, NamePoint, RemovePoint, TargetOfPoint};
pub use read::{
    Annotate, DescribeState, FindPlan, NewestUpdate, ReadHistory, ReadPlan, ReadRecord, WatchBegun,
    WatchTransaction,
};
pub use recovery::{Leftover, left_out, leftovers, waits_for};
pub use restart::RestartOutdated;
pub use settings::Settings;

use crate::blocking::SharedJournal;
use crate::clock::BootClock;
use crate::journal::{Journal, Recorded};
use crate::saga::Abort;
use crate::supervisor::Supervisor;
use confirmation::Confirmation;
use drive::Drive;
use interruption::Interruption;

/// Runs transactions, one at a time.
#[derive(Debug)]
pub struct Coordinator {
    supervisor: Addr<Supervisor>,
    journal: SharedJournal,
    settings: Rc<Settings>,
    changes: SettingsChanges,
    /// Why the settings are not those of the present configuration.
    unusable: Option<String>,
    publish: Publisher,
    last_resort: LastResort,
    boot: Option<BootId>,
    clock: BootClock,
    running: Option<Running>,
    /// Begun, and waiting for a dry run to give way.
    waiting: Option<(Drive, Running)>,
    /// A dry run, while what runs waits for its confirmation.
    beside: Option<Running>,
    recovering: bool,
    stopping: bool,
    /// A rollback point is about to be written down.
    naming: bool,
    /// Whether somebody compares the host with its record.
    inspecting: Rc<Cell<bool>>,
    /// Whether somebody mends it: nothing begins meanwhile.
    mending: Rc<Cell<bool>>,
    /// Whether units are restarted outside of a transaction: the same.
    restarting: Rc<Cell<bool>>,
    /// How many transactions began that change the host.
    begun_changes: Rc<Cell<u64>>,
}

#[derive(Debug)]
struct Running {
    id: TransactionId,
    /// It changes nothing, and gives way to what does.
    is_dry_run: bool,
    interruption: Interruption,
    confirmation: Confirmation,
    status: watch::Receiver<TransactionStatus>,
}

impl Running {
    fn of(drive: &Drive) -> Self {
        Self {
            id: drive.id(),
            is_dry_run: drive.is_dry_run(),
            interruption: drive.interruption(),
            confirmation: drive.confirmation(),
            status: drive.watch_status(),
        }
    }
}

impl Coordinator {
    /// Starts a coordinator, its supervisor and its workers in `environment`. To be called within an
    /// actix system. It takes requests once [`Recover`] was answered.
    pub fn start_in(environment: Environment, settings: Settings) -> Addr<Self> {
        let Environment { host, journal, boot, clock, publish, last_resort, changes } = environment;
        let coordinator = Self {
            supervisor: Supervisor::new(host).start(),
            journal,
            settings: Rc::new(settings),
            changes,
            unusable: None,
            publish,
            last_resort,
            boot,
            clock,
            running: None,
            waiting: None,
            beside: None,
            recovering: true,
            stopping: false,
            naming: false,
            inspecting: Rc::default(),
            mending: Rc::default(),
            restarting: Rc::default(),
            begun_changes: Rc::default(),
        };
        coordinator.start()
    }

    /// Lets the transaction run, at once or when a dry run has given way to it; a dry run also beside
    /// an update that waits for its confirmation.
    fn start_drive(&mut self, drive: Drive, context: &mut Context<Self>) {
        let next = Running::of(&drive);
        if !next.is_dry_run {
            self.begun_changes.set(self.begun_changes.get() + 1);
        }
        match &self.running {
            Some(running) if !running.is_dry_run => {
                self.beside = Some(next);
                self.spawn(drive, context);
            }
            Some(running) => {
                tracing::info!(transaction = %running.id, "gives way to transaction {}", next.id);
                running.interruption.trip(Abort::Cancelled);
                self.waiting = Some((drive, next));
            }
            None => {
                self.running = Some(next);
                self.spawn(drive, context);
            }
        }
    }

    /// Lets a transaction run that another one has begun at its end. A daemon that is about to stop leaves
    /// it to the next one, which unwinds it: it has done nothing yet.
    fn start_follower(&mut self, id: TransactionId, context: &mut Context<Self>) {
        if self.stopping {
            return;
        }
        match self.journal.now(|journal| journal.recorded(id)) {
            Ok(Some(recorded)) => {
                told::follows(&recorded);
                self.start_drive(Drive::resume(self.parts(), recorded), context);
            }
            Ok(None) => tracing::error!(transaction = %id, "the journal has lost it"),
            Err(failure) => tracing::error!(transaction = %id, %failure, "cannot begin"),
        }
    }

    /// Makes the transaction's task and lets it run; its end comes back as [`Ended`].
    fn spawn(&self, drive: Drive, context: &mut Context<Self>) {
        let id = drive.id();
        let (coordinator, last_resort) = (context.address(), self.last_resort.clone());
        let task = tokio::task::spawn_local(drive.run());
        tokio::task::spawn_local(async move {
            match task.await {
                Ok(record) => coordinator.do_send(Ended(Box::new(record))),
                // A half-driven transaction must not be followed by another one.
                Err(error) => last_resort.take(id, &format!("the coordinator panicked: {error}")),
            }
        });
    }

    /// Anyone who sits at the host may make a dry run: it does not keep work waiting.
    fn refuse_if_busy(&self, for_dry_run: bool) -> Result<(), Failure> {
        if self.recovering {
            let text = "an interrupted transaction is being put in order";
            return Err(Failure::new(ErrorCode::Busy, text));
        }
        if self.stopping {
            return Err(Failure::new(ErrorCode::Busy, "the daemon is about to stop"));
        }
        if self.mending.get() {
            return Err(Failure::new(ErrorCode::Busy, "the host is being repaired")
                .with_hint("Try again when that has ended."));
        }
        if self.restarting.get() {
            return Err(Failure::new(ErrorCode::Busy, "services are being restarted")
                .with_hint("Try again when that has ended."));
        }
        if self.naming && !for_dry_run {
            return Err(Failure::new(ErrorCode::Busy, "a rollback point is being named"));
        }
        let gives_way = |running: &&Running| !for_dry_run && running.is_dry_run;
        let first = self.waiting.as_ref().map(|(_, next)| next).or(self.running.as_ref());
        let first = match first.filter(|running| !gives_way(running)) {
            Some(running) if for_dry_run && running.confirmation.is_awaited() => {
                self.beside.as_ref()
            }
            first => first,
        };
        first.map_or(Ok(()), |running| Err(running.busy()))
    }
}

impl Coordinator {
    /// What runs and what waits to.
    fn begun(&self) -> impl Iterator<Item = &Running> {
        let waiting = self.waiting.iter().map(|(_, running)| running);
        self.running.iter().chain(waiting).chain(&self.beside)
    }

    /// Takes over what the admin has changed; what cannot be used is told, and changes nothing.
    fn take_changed_settings(&mut self) {
        match self.changes.ask() {
            Some(Ok(settings)) => {
                self.settings = Rc::new(settings);
                self.unusable = None;
            }
            Some(Err(failure)) => self.unusable = Some(failure.message),
            None => {}
        }
    }

    fn refuse_if_stuck(&self) -> Result<(), Failure> {
        if let Some(loss) = self.journal.now(Journal::loss)?.filter(LostJournal::is_suspect) {
            let suspects = loss.suspects.unwrap_or_default().join("; ");
            let text =
                format!("an update may have been interrupted, and {}: {suspects}", loss.reason);
            return Err(Failure::new(ErrorCode::Stuck, text));
        }
        let Some(record) = self.journal.now(Journal::stuck)? else { return Ok(()) };
        let why = record.failure.and_then(|failure| failure.undo).map(|undo| undo.message);
        let text = format!(
            "transaction {} ({}) could not be put back: {}",
            record.id,
            record.title,
            why.unwrap_or_else(|| "an undo failed".to_owned())
        );
        Err(Failure::new(ErrorCode::Stuck, text))
    }
}

impl Actor for Coordinator {
    type Context = Context<Self>;
}

/// Request: put in order what a daemon that died has left. Answered before any other request, and when
/// what still waits for its confirmation has been taken up.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), Failure>")]
pub struct Recover;

impl Handler<Recover> for Coordinator {
    type Result = ResponseFuture<Result<(), Failure>>;

    fn handle(&mut self, _: Recover, context: &mut Self::Context) -> Self::Result {
        let (parts, boot) = (self.parts(), self.boot.clone());
        let coordinator = context.address();
        Box::pin(async move {
            let (waits, result) = match recovery::recover(&parts, boot.as_ref()).await {
                Ok(waits) => (waits, Ok(())),
                Err(failure) => (None, Err(failure)),
            };
            coordinator.send(Recovered(waits.map(Box::new))).await.map_err(|error| {
                Failure::caused(ErrorCode::Internal, "the coordinator is gone", &error)
            })?;
            result
        })
    }
}

/// Event: recovery is over, but for an update that still waits for its confirmation.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Recovered(Option<Box<Recorded>>);

impl Handler<Recovered> for Coordinator {
    type Result = ();

    fn handle(&mut self, event: Recovered, context: &mut Self::Context) {
        self.recovering = false;
        if let Recovered(Some(waits)) = event {
            self.start_drive(Drive::resume(self.parts(), *waits), context);
        }
    }
}

/// What a drive shares with the coordinator.
#[derive(Clone, Debug)]
struct Parts {
    supervisor: Addr<Supervisor>,
    journal: SharedJournal,
    settings: Rc<Settings>,
    boot: Option<BootId>,
    clock: BootClock,
    publish: Publisher,
    last_resort: LastResort,
}

impl Coordinator {
    fn parts(&self) -> Parts {
        Parts {
            supervisor: self.supervisor.clone(),
            journal: self.journal.clone(),
            settings: Rc::clone(&self.settings),
            boot: self.boot.clone(),
            clock: self.clock.clone(),
            publish: self.publish.clone(),
            last_resort: self.last_resort.clone(),
        }
    }
}

/// Request: cancel the transaction, whoever began it. `NotFound` when it does not run, `TooLate`
/// once the pivot is behind.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), Failure>")]
pub struct CancelTransaction(pub TransactionId);

impl Handler<CancelTransaction> for Coordinator {
    type Result = Result<(), Failure>;

    fn handle(&mut self, request: CancelTransaction, _: &mut Self::Context) -> Self::Result {
        let Some(running) = self.begun().find(|running| running.id == request.0) else {
            let text = format!("transaction {} does not run", request.0);
            return Err(Failure::new(ErrorCode::NotFound, text));
        };
        running.refuse_if_handed_over()?;
        if !running.status.borrow().cancellable || running.confirmation.is_asked() {
            let text = format!("transaction {} cannot be cancelled any more", request.0);
            return Err(Failure::new(ErrorCode::TooLate, text));
        }
        running.interruption.trip(Abort::Cancelled);
        Ok(())
    }
}

/// Event: a transaction ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Ended(Box<HistoryRecord>);

impl Handler<Ended> for Coordinator {
    type Result = ();

    fn handle(&mut self, event: Ended, context: &mut Self::Context) {
        let Ended(record) = event;
        let follower = record.followed_by;
        if self.beside.as_ref().is_some_and(|beside| beside.id == record.id) {
            self.beside = None;
        } else {
            self.running = self.beside.take();
            if let Some((drive, running)) = self.waiting.take() {
                self.running = Some(running);
                self.spawn(drive, context);
            }
        }
        if let Some(id) = follower {
            self.start_follower(id, context);
        }
        self.publish.publish(Event::Finished { id: record.id, outcome: record.outcome });
        // What is not forgotten now is forgotten after the next one.
        tokio::task::spawn_local(prune::prune(self.parts()));
    }
}

/// Request: interrupt what runs, because the daemon is about to stop, and begin nothing more. Answered when it has ended:
/// unwound, or finished when the pivot was behind. What waits for its confirmation is left to the next daemon as it stands.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Quiesce;

impl Handler<Quiesce> for Coordinator {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Quiesce, _: &mut Self::Context) -> Self::Result {
        self.stopping = true;
        let interrupt = |running: &Running| {
            running.interruption.trip(Abort::Interrupted);
            running.status.clone()
        };
        let ends = self.begun().filter(|running| !running.confirmation.hand_over());
        let begun: Vec<_> = ends.map(interrupt).collect();
        Box::pin(async move {
            for mut status in begun {
                // An error means that the drive is gone: there is nothing to wait for.
                drop(status.wait_for(|s| matches!(s.phase, Phase::Finished(_))).await);
            }
        })
    }
}
