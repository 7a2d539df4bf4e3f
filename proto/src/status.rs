//! Where a transaction stands.

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::id::{CommitId, TransactionId};
use crate::plan::Refusal;
use crate::point::{KeptUpdate, Point};
use crate::record::HistoryRecord;
use crate::step::Step;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Done, and kept over a reboot.
    Committed,
    /// There was nothing to do.
    NothingToDo,
    /// A plan was made, as asked; nothing changed.
    Planned,
    /// Failed before anything but caches changed.
    Failed,
    /// Failed or not confirmed, and put back: the host is as it was.
    RolledBack,
    /// Cancelled, and put back.
    Cancelled,
    /// Done past a named risk, with `--force`.
    Forced,
    /// An undo failed: the host needs `apt-ostree repair`.
    Stuck,
}

impl Outcome {
    /// Its name on the wire and in the history.
    pub fn name(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::NothingToDo => "nothing-to-do",
            Self::Planned => "planned",
            Self::Failed => "failed",
            Self::RolledBack => "rolled-back",
            Self::Cancelled => "cancelled",
            Self::Forced => "forced",
            Self::Stuck => "stuck",
        }
    }

    /// Reads a name that [`Outcome::name`] gave.
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::Committed,
            Self::NothingToDo,
            Self::Planned,
            Self::Failed,
            Self::RolledBack,
            Self::Cancelled,
            Self::Forced,
            Self::Stuck,
        ]
        .into_iter()
        .find(|outcome| outcome.name() == name)
    }

    /// Whether the transaction did what was asked.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Committed | Self::NothingToDo | Self::Planned | Self::Forced)
    }
}

/// What a transaction does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", content = "detail", rename_all = "kebab-case")]
pub enum Phase {
    /// It runs this step.
    Running(Step),
    /// It undoes this step.
    Undoing(Step),
    /// It has ended.
    Finished(Outcome),
}

/// A transaction as seen from outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransactionStatus {
    /// Its number.
    pub id: TransactionId,
    /// What was asked for, in one line.
    pub title: String,
    /// What it does now.
    pub phase: Phase,
    /// 0 to 100 over the whole transaction, never falling; 101 when it cannot be told.
    pub percentage: u32,
    /// Bytes a second while downloading; 0 else.
    pub speed: u64,
    /// Seconds until the download is complete, or until an update that nobody confirms is put back;
    /// 0 when unknown.
    pub remaining_seconds: u64,
    /// Whether `cancel` will still be heard.
    pub cancellable: bool,
    /// Until when it waits for `apt-ostree confirm`, while it does.
    #[serde(default)]
    pub confirmation: Option<AwaitedConfirmation>,
    /// Why it failed, once it has.
    pub failure: Option<Failure>,
}

/// How long an update still waits for somebody to confirm it, before it is put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitedConfirmation {
    /// The end of the wait by today's clock, in seconds since 1970. What counts is the time that
    /// passes, whatever is done to the clock.
    pub until_seconds: i64,
    /// Seconds until then.
    pub remaining_seconds: u64,
}

impl Outcome {
    /// The exit status of a command whose transaction ended so.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Committed | Self::NothingToDo | Self::Planned => 0,
            Self::Failed => 1,
            Self::RolledBack => 3,
            Self::Forced => 4,
            Self::Stuck => 6,
            Self::Cancelled => 130,
        }
    }
}

impl Phase {
    /// `running`, `undoing` or `finished`.
    pub fn state(self) -> &'static str {
        match self {
            Self::Running(_) => "running",
            Self::Undoing(_) => "undoing",
            Self::Finished(_) => "finished",
        }
    }

    /// The step or outcome.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Running(step) | Self::Undoing(step) => step.name(),
            Self::Finished(outcome) => outcome.name(),
        }
    }
}

/// The host as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostState {
    /// The OS name of the booted deployment.
    pub os_name: String,
    /// The commit of the booted deployment.
    pub booted: CommitId,
    /// The commit that `/usr` shows now: newer than the booted one after a live update.
    pub running: CommitId,
    /// The commit that boots next.
    pub next: CommitId,
    /// Whether somebody else's deployment waits for the next boot; package updates are refused then.
    pub foreign_pending: bool,
    /// What happens now.
    pub transaction: Option<TransactionStatus>,
    /// The newest transaction that has ended.
    pub last: Option<HistoryRecord>,
    /// Whether an undo failed, or may be missing because the journal was lost: nothing new is begun
    /// until `apt-ostree repair` has mended it.
    pub stuck: bool,
    /// The named rollback points, oldest first.
    #[serde(default)]
    pub points: Vec<Point>,
    /// The updates that can be undone, newest first, with what that costs.
    #[serde(default)]
    pub kept: Vec<KeptUpdate>,
    /// Why the present configuration is not used, but the last good one, where that is so.
    #[serde(default)]
    pub configuration: Option<String>,
    /// A journal that could not be used, until `apt-ostree repair` goes on without it.
    #[serde(default)]
    pub lost: Option<LostJournal>,
    /// Transactions that were kept and that the running tree lacks, newest first: somebody booted an
    /// older entry of the boot menu.
    #[serde(default)]
    pub left_out: Vec<TransactionId>,
    /// The update that takes effect with the next boot.
    #[serde(default)]
    pub awaits_boot: Option<AwaitsBoot>,
}

/// An update that takes effect with the next boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitsBoot {
    /// The transaction.
    pub id: TransactionId,
    /// What was asked for, in one line.
    pub title: String,
    /// How many packages change.
    pub packages: usize,
    /// The packages that cannot change live, by name, each with the reason.
    pub reasons: Vec<Refusal>,
}

/// A journal that could not be used, and was begun anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostJournal {
    /// Why.
    pub reason: String,
    /// The name under which it is kept beside the new one; none where there was none.
    pub kept_as: Option<String>,
    /// When that was found, in seconds since 1970.
    pub at_seconds: i64,
    /// What looks like an update that was interrupted, for people; none before anybody has looked.
    /// While there is any, nothing new is begun.
    pub suspects: Option<Vec<String>>,
}

impl LostJournal {
    /// Whether the host may be between two states.
    pub fn is_suspect(&self) -> bool {
        self.suspects.as_ref().is_none_or(|suspects| !suspects.is_empty())
    }
}
