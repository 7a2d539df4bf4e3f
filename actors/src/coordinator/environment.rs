use std::fmt;
use std::rc::Rc;

use apt_ostree_proto::event::Event;
use apt_ostree_proto::id::BootId;
use apt_ostree_proto::{Failure, TransactionId};
use tokio::sync::mpsc;

use super::settings::Settings;
use crate::blocking::SharedJournal;
use crate::clock::BootClock;
use crate::port::Host;

/// What a coordinator works with.
#[derive(Debug)]
pub struct Environment {
    /// The host.
    pub host: Host,
    /// The journal and history.
    pub journal: SharedJournal,
    /// The boot that the host is in.
    pub boot: Option<BootId>,
    /// The time since then.
    pub clock: BootClock,
    /// Where events go.
    pub publish: Publisher,
    /// What is done when a transaction can neither go on nor unwind.
    pub last_resort: LastResort,
    /// Where changed settings come from.
    pub changes: SettingsChanges,
}

type AskForSettings = dyn Fn() -> Option<Result<Settings, Failure>>;

/// Where changed settings come from: asked before each transaction, and for the host's state. It
/// answers quickly, as it is asked in between everything else.
#[derive(Clone)]
pub struct SettingsChanges(Rc<AskForSettings>);

impl SettingsChanges {
    /// They never change.
    pub fn none() -> Self {
        Self::asking(|| None)
    }

    /// `ask` answers what has changed since it was last asked: other settings, or why they cannot be
    /// used, and those before are used on.
    pub fn asking(ask: impl Fn() -> Option<Result<Settings, Failure>> + 'static) -> Self {
        Self(Rc::new(ask))
    }

    pub(super) fn ask(&self) -> Option<Result<Settings, Failure>> {
        (self.0)()
    }
}

impl fmt::Debug for SettingsChanges {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SettingsChanges").finish()
    }
}

/// Where events go. State changes are sent at once and never dropped.
#[derive(Clone, Debug)]
pub struct Publisher {
    events: mpsc::UnboundedSender<Event>,
}

impl Publisher {
    /// A publisher and the end where its events arrive.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (Self { events }, receiver)
    }

    /// Publishes an event; nobody may be listening.
    pub fn publish(&self, event: Event) {
        drop(self.events.send(event));
    }
}

/// What is done when a transaction can neither go on nor unwind: the journal cannot be written, or a
/// step does not even answer that it was told to stop. The process has to end, and all of its
/// children with it; the service manager starts it anew, and recovery decides there from what is on
/// the disk.
#[derive(Clone)]
pub struct LastResort(Rc<dyn Fn(&str)>);

impl LastResort {
    /// The process aborts.
    pub fn abort() -> Self {
        Self::calling(|_| std::process::abort())
    }

    /// `end` is called with the reason, and nothing more is done about the transaction.
    pub fn calling(end: impl Fn(&str) + 'static) -> Self {
        Self(Rc::new(end))
    }

    pub(super) fn take(&self, id: TransactionId, why: &str) {
        tracing::error!(transaction = %id, "transaction {id}: the daemon has to start anew: {why}");
        (self.0)(why);
    }
}

impl fmt::Debug for LastResort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("LastResort").finish()
    }
}
