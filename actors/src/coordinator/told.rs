//! What the daemon's log says about a transaction: sentences for people, fields for machines.
//!
//! `journalctl MESSAGE_ID=…` finds the turning points; `TRANSACTION=`, `STEP=`, `OUTCOME=` and
//! `FAILURE_CODE=` narrow them down.

use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::request::Caller;
use apt_ostree_proto::status::{Outcome, Phase};
use apt_ostree_proto::step::Step;
use apt_ostree_proto::{Failure, TransactionId};

use super::BeginTransaction;
use crate::journal::Recorded;
use crate::saga::Abort;

/// A transaction began.
const BEGUN: &str = "5b1ad1d5f0ab4d2a9dbf0ca1e6a3f1c7";
/// It is applied, and waits for its confirmation.
const WAITS: &str = "7d1f4a52c8f94c0f8f1be5a3d0c96b1e";
/// It was confirmed.
const CONFIRMED: &str = "a4f0b8d93e6c4a17b25d7c1e9f80364b";
/// It ended well.
const COMMITTED: &str = "0cf4d9a86d3c4c0c8bb5d3a4fd9a2e15";
/// It failed, or was stopped, and everything is as it was.
const ROLLED_BACK: &str = "c3b7f5f0e2d14b6b8c2f6a90d7e8b421";
/// An undo failed: the host is between two states.
const STUCK: &str = "e98f0a7cb5f64d19a3d27c4b1f60a8d3";

/// Says that a transaction began, and who asked for it.
pub(super) fn begun(id: TransactionId, begin: &BeginTransaction) {
    let kind = if begin.dry_run { "a dry run" } else { "begun" };
    let (title, uid) = (&begin.title, begin.caller.uid);
    tracing::info!(
        message_id = BEGUN,
        transaction = id.0,
        uid,
        "transaction {id}: {kind}, for user {uid}: {title}"
    );
}

/// Says that a transaction begins with what another one has left.
pub(super) fn follows(begun: &Recorded) {
    let (id, title, uid) = (begun.id, &begun.title, begun.caller.uid);
    let text = format!("transaction {id}: begun, for user {uid}: {title}");
    tracing::info!(message_id = BEGUN, transaction = id.0, uid, "{text}");
}

/// Says which step runs or is undone; the end has a line of its own.
pub(super) fn entered(id: TransactionId, phase: Phase) {
    let transaction = id.0;
    match phase {
        Phase::Running(step) => {
            tracing::info!(transaction, step = step.name(), "transaction {id}: {}", step.title());
        }
        Phase::Undoing(step) => {
            let name = step.name();
            tracing::info!(transaction, step = name, "transaction {id}: undoing the step {name}");
        }
        Phase::Finished(_) => {}
    }
}

/// Says that an update waits for its confirmation, and for how long.
pub(super) fn waits(id: TransactionId, seconds: u64) {
    tracing::warn!(
        message_id = WAITS,
        transaction = id.0,
        seconds,
        "transaction {id}: it is put back in {seconds} s unless somebody runs 'apt-ostree confirm'"
    );
}

/// Says who confirmed an update.
pub(super) fn confirmed(id: TransactionId, caller: &Caller) {
    let uid = caller.uid;
    tracing::info!(
        message_id = CONFIRMED,
        transaction = id.0,
        uid,
        "transaction {id}: confirmed by user {uid}: it is kept"
    );
}

/// Says that a step failed, and why.
pub(super) fn step_failed(id: TransactionId, step: Step, failure: &Failure) {
    tracing::warn!(
        transaction = id.0,
        step = step.name(),
        failure_code = failure.code.name(),
        "transaction {id}: the step {step} failed: {failure}"
    );
}

/// Says that an undo failed, and why.
pub(super) fn undo_failed(id: TransactionId, step: Step, failure: &Failure) {
    tracing::error!(
        transaction = id.0,
        step = step.name(),
        failure_code = failure.code.name(),
        "transaction {id}: the step {step} could not be undone: {failure}"
    );
}

/// Says that a step behind the pivot is left for the next transaction.
pub(super) fn gave_up(id: TransactionId, step: Step, why: &str) {
    tracing::error!(
        transaction = id.0,
        step = step.name(),
        "transaction {id}: the step {step} is given up, the update stays: {why}"
    );
}

/// Says why a transaction unwinds although no step failed.
pub(super) fn aborted(id: TransactionId, why: Abort) {
    let why = match why {
        Abort::Cancelled => "it was cancelled",
        Abort::Interrupted => "the daemon is asked to stop",
    };
    tracing::warn!(transaction = id.0, "transaction {id}: {why}; what was done is undone");
}

/// Says how a transaction ended.
pub(super) fn ended(record: &HistoryRecord) {
    let HistoryRecord { id, title, outcome, .. } = record;
    let (transaction, name) = (id.0, outcome.name());
    let seconds = record.duration_milliseconds / 1_000;
    let tenths = record.duration_milliseconds % 1_000 / 100;
    let (failure_code, why) = record
        .failure
        .as_ref()
        .map_or(("", String::new()), |failure| (failure.code.name(), format!(": {failure}")));
    let text = format!("transaction {id} ({title}): {name} after {seconds}.{tenths} s{why}");
    match outcome {
        Outcome::Stuck => {
            tracing::error!(
                message_id = STUCK,
                transaction,
                outcome = name,
                failure_code,
                "{text}; run 'apt-ostree repair'"
            );
        }
        _ if outcome.is_success() => {
            let packages = record.changes.len();
            tracing::info!(
                message_id = COMMITTED,
                transaction,
                outcome = name,
                "{text}; packages changed: {packages}"
            );
        }
        _ => {
            tracing::warn!(
                message_id = ROLLED_BACK,
                transaction,
                outcome = name,
                failure_code,
                "{text}"
            );
        }
    }
}
