//! What happens in a transaction, as it is published. Byte counts may be dropped on the way, state
//! changes never are.

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::id::TransactionId;
use crate::status::{Outcome, Phase};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The transaction entered another phase.
    PhaseChanged {
        /// The transaction.
        id: TransactionId,
        /// The phase.
        phase: Phase,
    },
    /// The whole transaction's progress. May be dropped.
    Progress {
        /// The transaction.
        id: TransactionId,
        /// 0 to 100, or 101 for unknown.
        percentage: u32,
        /// Bytes a second.
        speed: u64,
        /// Seconds.
        remaining_seconds: u64,
    },
    /// One package's or unit's progress. May be dropped except for its last.
    Item {
        /// The transaction.
        id: TransactionId,
        /// The package or unit.
        item: String,
        /// What happens to it: `downloading`, `verified`, `unpacking`, `restarted`, …
        status: String,
        /// 0 to 100, or 101 for unknown.
        percentage: u32,
    },
    /// Something that people should read: a warning, a line of a maintainer script.
    Message {
        /// The transaction.
        id: TransactionId,
        /// Which kind.
        level: MessageLevel,
        /// The text, without control characters.
        text: String,
    },
    /// The transaction failed and begins to unwind, or could not begin at all.
    Failed {
        /// The transaction.
        id: TransactionId,
        /// Why.
        failure: Failure,
    },
    /// The transaction ended.
    Finished {
        /// The transaction.
        id: TransactionId,
        /// How.
        outcome: Outcome,
    },
}

impl Event {
    /// The transaction that it happened in.
    pub fn transaction(&self) -> TransactionId {
        match self {
            Self::PhaseChanged { id, .. }
            | Self::Progress { id, .. }
            | Self::Item { id, .. }
            | Self::Message { id, .. }
            | Self::Failed { id, .. }
            | Self::Finished { id, .. } => *id,
        }
    }
}

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MessageLevel {
    /// A line of a tool's output.
    Log,
    /// Worth knowing.
    Info,
    /// Worth acting on.
    Warning,
}
