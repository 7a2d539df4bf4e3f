//! The history: one record a transaction.

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::id::{CommitId, PointName, TransactionId};
use crate::package::PackageChange;
use crate::request::{Caller, UpdateRequest};
use crate::service::UnitEffect;
use crate::status::Outcome;

/// What is kept of a transaction once it has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// The transaction.
    pub id: TransactionId,
    /// What was asked for, in one line.
    pub title: String,
    /// What was asked for, whole.
    pub request: UpdateRequest,
    /// Who asked.
    pub caller: Caller,
    /// When it began, in seconds since 1970.
    pub started_seconds: i64,
    /// How long it took.
    pub duration_milliseconds: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed, when it did.
    pub failure: Option<Failure>,
    /// The commit that ran before.
    pub base: Option<CommitId>,
    /// The commit that it made or switched to.
    pub commit: Option<CommitId>,
    /// The packages that changed, or would have.
    pub changes: Vec<PackageChange>,
    /// The units that it touched.
    pub units: Vec<UnitEffect>,
    /// How long each step took, in milliseconds, by the step's name and in the steps' order.
    pub steps: Vec<(String, u64)>,
    /// Warnings that it left.
    pub warnings: Vec<String>,
    /// The transaction that has the rest take effect with the next boot.
    #[serde(default)]
    pub followed_by: Option<TransactionId>,
}

/// Whether a transaction that changed the host can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RollbackState {
    /// It can: `apt-ostree rollback ID`.
    Possible,
    /// It has been.
    Undone,
    /// Not any more: the tree before it is not kept.
    Gone,
}

/// A record with what has become of its transaction since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The record.
    #[serde(flatten)]
    pub record: HistoryRecord,
    /// Whether it can be undone; none when it changed nothing.
    #[serde(default)]
    pub rollback: Option<RollbackState>,
    /// What the tree before it occupies, which nothing else keeps; none when that is not known.
    #[serde(default)]
    pub kept_bytes: Option<u64>,
    /// The rollback points that name the state it led to.
    #[serde(default)]
    pub points: Vec<PointName>,
    /// Whether it takes effect with the next boot, and has not yet.
    #[serde(default)]
    pub awaits_boot: bool,
}

/// A record with the lines that its transaction's tools printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedTransaction {
    /// The record.
    #[serde(flatten)]
    pub entry: HistoryEntry,
    /// The log's last lines.
    pub log: Vec<String>,
}
