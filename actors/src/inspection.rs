//! Whether the host is what its record says: what was read of both is held against each other.
//!
//! Architecture invariant: everything here is pure. The coordinator asks the ports, and carries out
//! what `Action` says.
//!
//! Modules in reading order: [`record`] is what the journal says and [`sight`] what the host shows;
//! `mounts`, `trees`, `leftovers` and `contents` compare them; [`suspects`] judges a host whose journal
//! was lost.

mod contents;
mod leftovers;
mod mounts;
pub mod record;
pub mod sight;
mod suspects;
mod trees;

#[cfg(test)]
mod tests;

use apt_ostree_proto::inspection::{Finding, FindingKind, Remedy};
use apt_ostree_proto::{CommitId, TransactionId};

pub use record::Record;
pub use sight::Sight;
pub use suspects::suspects;

/// One thing that was found, with what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What people are told.
    pub finding: Finding,
    /// What mends it; none where nothing safe does.
    pub action: Option<Action>,
}

/// What mends a finding. The order is that of execution.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// A repair transaction has to take this one up.
    RetryUndo(TransactionId),
    /// Make the top mount on `/usr` read-only.
    ProtectUsr,
    /// Stand the transaction's guard down, and unpin its namespace.
    StandDown(TransactionId),
    /// Write the transaction's ref.
    RestoreRef(TransactionId, CommitId),
    /// Deploy the commit, and stage it.
    Deploy(CommitId),
    /// Remove the staging area of a transaction whose tree is in use.
    DropStage(TransactionId),
    /// Forget the rows of the journal that cannot be read, and keep a copy of it.
    ForgetRows,
    /// Remove what no transaction needs.
    CleanUp,
    /// Go on with the journal that was begun anew.
    AcceptLoss,
}

impl Action {
    fn remedy(&self) -> Remedy {
        match self {
            Self::RetryUndo(_) => Remedy::RetryUndo,
            Self::ProtectUsr => Remedy::ProtectUsr,
            Self::StandDown(_) => Remedy::StandDown,
            Self::RestoreRef(..) => Remedy::RestoreRef,
            Self::Deploy(_) => Remedy::Deploy,
            Self::DropStage(_) | Self::CleanUp => Remedy::CleanUp,
            Self::ForgetRows => Remedy::ForgetRows,
            Self::AcceptLoss => Remedy::AcceptLoss,
        }
    }
}

/// How much of a text that others wrote a finding repeats.
const LONGEST_TEXT: usize = 300;

impl Found {
    fn new(
        kind: FindingKind,
        subject: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        let bounded = |text: String| -> String { text.chars().take(LONGEST_TEXT).collect() };
        let (subject, expected, found) = (subject.into(), expected.into(), found.into());
        let finding = Finding {
            kind,
            subject: bounded(subject),
            expected: bounded(expected),
            found: bounded(found),
            remedy: None,
        };
        Self { finding, action: None }
    }

    fn mended_by(mut self, action: Action) -> Self {
        self.finding.remedy = Some(action.remedy());
        self.action = Some(action);
        self
    }
}

/// Everything in which the host is not what its record says, and what is worth knowing besides.
pub fn examine(record: &Record, sight: &Sight) -> Vec<Found> {
    let mut found = of_journal(record);
    found.extend(mounts::examine(record, sight));
    found.extend(trees::examine(record, sight));
    found.extend(leftovers::examine(record, sight));
    found.extend(contents::examine(record, sight));
    found
}

fn of_journal(record: &Record) -> Vec<Found> {
    let mut found = Vec::new();
    if let Some(stuck) = &record.stuck {
        let undo = stuck.failure.as_ref().and_then(|failure| failure.undo.as_ref());
        let why = undo.map_or("an undo failed", |undo| undo.message.as_str());
        let subject = format!("transaction {}", stuck.id);
        found.push(
            Found::new(FindingKind::Stuck, subject, "put back, or kept", why)
                .mended_by(Action::RetryUndo(stuck.id)),
        );
    }
    if let Some(loss) = &record.loss {
        let kept = loss.kept_as.iter().map(|name| format!("it is kept as {name}"));
        let suspects = loss.suspects.iter().flatten().cloned();
        let told: Vec<String> =
            std::iter::once(loss.reason.clone()).chain(kept).chain(suspects).collect();
        let told = told.join("; ");
        found.push(
            Found::new(FindingKind::JournalLost, "the journal", "the record of this host", told)
                .mended_by(Action::AcceptLoss),
        );
    }
    for line in &record.contradictions {
        let subject = "the journal's database";
        found.push(Found::new(FindingKind::JournalDamaged, subject, "whole", line.as_str()));
    }
    for (id, why) in &record.unreadable {
        let subject = format!("transaction {id}");
        found.push(
            Found::new(FindingKind::JournalRow, subject, "readable", why.as_str())
                .mended_by(Action::ForgetRows),
        );
    }
    for id in record.unfinished() {
        let subject = format!("transaction {id}");
        let text = "it has not, and does not run";
        found.push(Found::new(FindingKind::JournalUnfinished, subject, "ended", text));
    }
    found
}
