//! What a dead daemon left is put in order before anything else happens.
//!
//! One rule: OSTree's list of deployments decides. Where the transaction's commit is what boots
//! next, or is booted, the update was kept and is finished forward; else it is unwound. An update that
//! waits for its confirmation, or was confirmed, is not interrupted by the end of a daemon, but by that
//! of the boot.

use apt_ostree_proto::event::Event;
use apt_ostree_proto::id::BootId;
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::request::When;
use apt_ostree_proto::step::Step;
use apt_ostree_proto::{CommitId, ErrorCode, Failure, TransactionId};

use super::drive::Drive;
use super::facts::Facts;
use super::forward::ask;
use super::{Parts, deadline, inspect};
use crate::journal::{Entry, Journal, LONGEST_WAY_BACK, Payload, Recorded};
use crate::overlay::IsDeployed;
use crate::port::Delta;
use crate::saga::{Abort, Legacy, Mark, is_past_pivot, legacy};
use crate::supervisor::GetWorkers;

/// Takes up every transaction that has not ended, newest first; then looks whether the host shows any
/// that the journal does not know. Answers the one that goes on waiting for its confirmation: others
/// must be able to call meanwhile.
pub(super) async fn recover(
    parts: &Parts,
    boot: Option<&BootId>,
) -> Result<Option<Recorded>, Failure> {
    // What cannot be read cannot be unwound either.
    parts.journal.with(Journal::give_up_unreadable).await?;
    let mut waits = None;
    let mut unfinished = parts.journal.with(Journal::unfinished).await?;
    unfinished.reverse();
    for recorded in unfinished {
        let (id, title) = (recorded.id, &recorded.title);
        let is_of_this_boot = recorded.boot.is_some() && recorded.boot.as_ref() == boot;
        if is_of_this_boot && legacy(&recorded.steps, &recorded.marks()) == Legacy::Waits {
            tracing::info!(transaction = id.0, "transaction {id}: goes on waiting: {title}");
            waits = Some(recorded);
            continue;
        }
        tracing::warn!(transaction = id.0, "transaction {id}: was interrupted: {title}");
        let mut recorded = decide(parts, recorded, is_of_this_boot).await?;
        if !is_of_this_boot {
            forget_processes(&mut recorded);
        }
        let record = Drive::resume(parts.clone(), recorded).run().await;
        parts.publish.publish(Event::Finished { id: record.id, outcome: record.outcome });
    }
    inspect::judge_loss(parts).await?;
    Ok(waits)
}

/// Processes of another boot are gone, and their numbers are given anew: a unit that was started at
/// this boot may have read what is about to be put back.
fn forget_processes(recorded: &mut Recorded) {
    for entry in &mut recorded.entries {
        if let Some(Payload::UnitStates(states)) = &mut entry.payload {
            for state in states.values_mut() {
                state.main_pid = 0;
            }
        }
    }
}

/// What a transaction of an earlier boot may have left in `/etc` and `/var`.
#[derive(Clone, Debug)]
pub struct Leftover {
    /// The transaction.
    pub id: TransactionId,
    /// What it was about to deploy: the update is kept if that boots next.
    pub deploying: Option<CommitId>,
    /// What its switch changed.
    pub delta: Delta,
}

/// The switches of earlier boots that have not been undone and are not known to be kept, newest
/// first. Changes nothing: that is recovery's.
pub fn leftovers(journal: &Journal, boot: Option<&BootId>) -> Result<Vec<Leftover>, Failure> {
    let mut unfinished = journal.unfinished()?;
    unfinished.reverse();
    let earlier = |recorded: &Recorded| recorded.boot.is_none() || recorded.boot.as_ref() != boot;
    Ok(unfinished.iter().filter(|recorded| earlier(recorded)).filter_map(leftover).collect())
}

fn leftover(recorded: &Recorded) -> Option<Leftover> {
    let marks = recorded.marks();
    let has_switched = marks.contains(&Mark::Started(Step::Switch))
        && !marks.contains(&Mark::Undone(Step::Switch));
    if !has_switched || is_past_pivot(&recorded.steps, &marks) {
        return None;
    }
    let facts = Facts::of(&recorded.entries);
    let deploying = facts.deploying.filter(|_| was_deploying(&marks));
    Some(Leftover { id: recorded.id, deploying, delta: facts.committed?.delta })
}

/// The kept transactions that the tree of this commit lacks, newest first: it was the running one before
/// the oldest of them. None where the newest of all led to it, or where it is not known. After a boot
/// somebody has chosen an older entry of the boot menu then. Changes nothing.
pub(super) fn lacked_by(
    journal: &Journal,
    commit: &CommitId,
) -> Result<Vec<HistoryRecord>, Failure> {
    let leads_to_it = |newest: &HistoryRecord| newest.commit.as_ref() == Some(commit);
    // Most hosts run what the newest led to: no more is read for them.
    if journal.newest_in_effect(1)?.first().is_none_or(leads_to_it) {
        return Ok(Vec::new());
    }
    let mut kept = journal.newest_in_effect(LONGEST_WAY_BACK)?;
    let oldest = kept.iter().position(|record| record.base.as_ref() == Some(commit));
    kept.truncate(oldest.map_or(0, |oldest| oldest + 1));
    Ok(kept)
}

/// What the transactions that the booted tree lacks changed, newest first. Changes nothing.
pub fn left_out(
    journal: &Journal,
    booted: &CommitId,
) -> Result<Vec<(TransactionId, Delta)>, Failure> {
    let mut left_out = Vec::new();
    for record in lacked_by(journal, booted)? {
        let recorded = journal.recorded(record.id)?;
        let committed = recorded.and_then(|recorded| Facts::of(&recorded.entries).committed);
        // What is not known any more cannot be taken back, nor what it was made on.
        let Some(committed) = committed else { break };
        left_out.push((record.id, committed.delta));
    }
    Ok(left_out)
}

/// What goes with the booted tree besides `/usr`, where the update that led to it was to take effect with
/// the next boot, and has not yet. Changes nothing.
pub fn waits_for(
    journal: &Journal,
    booted: &CommitId,
) -> Result<Option<(TransactionId, Delta)>, Failure> {
    let applied = journal.applied_at_boot()?;
    // One whose daemon did not live to write its end down; then the newest that was kept. Another one may
    // have begun since, and have come to nothing.
    let unfinished = journal.unfinished()?.into_iter().rev();
    let of_record = journal.awaiting_boot()?.map(|record| journal.recorded(record.id));
    let of_record = of_record.transpose()?.flatten();
    let mut at_boot = unfinished
        .filter(|recorded| recorded.request.when == When::NextBoot)
        .chain(of_record)
        .filter(|recorded| !applied.contains(&recorded.id));
    Ok(at_boot.find_map(|recorded| {
        let committed = Facts::of(&recorded.entries).committed?;
        (committed.tree.commit == *booted).then_some((recorded.id, committed.delta))
    }))
}

/// Once its undo is done the steps before may be undone too, whatever boots next.
fn was_deploying(marks: &[Mark]) -> bool {
    marks.contains(&Mark::Started(Step::Deploy)) && !marks.contains(&Mark::Undone(Step::Deploy))
}

/// Adds the entry that says which way to go, where the log does not.
async fn decide(
    parts: &Parts,
    mut recorded: Recorded,
    is_of_this_boot: bool,
) -> Result<Recorded, Failure> {
    let marks = recorded.marks();
    let legacy = legacy(&recorded.steps, &marks);
    if is_past_pivot(&recorded.steps, &marks) {
        return Ok(recorded);
    }
    let deploying = Facts::of(&recorded.entries).deploying;
    let entry = match deploying.filter(|_| was_deploying(&marks)) {
        Some(commit) if is_deployed(parts, commit.clone()).await? => {
            Entry::new(Mark::Succeeded(Step::Deploy))
        }
        _ if is_of_this_boot && legacy == Legacy::GoesOn => return Ok(recorded),
        _ if legacy == Legacy::Waits => {
            let text = "the host went down before anybody confirmed that it is well";
            let failure = Failure::new(ErrorCode::NotConfirmed, text);
            Entry::new(Mark::Failed(Step::Confirm)).with(Payload::Failure(failure))
        }
        _ => Entry::new(Mark::Aborted(Abort::Interrupted)),
    };
    let (id, written) = (recorded.id, entry.clone());
    parts.journal.write(move |journal| journal.append(id, &written)).await?;
    recorded.entries.push(entry);
    Ok(recorded)
}

async fn is_deployed(parts: &Parts, commit: CommitId) -> Result<bool, Failure> {
    let workers =
        parts.supervisor.send(GetWorkers).await.map_err(|error| {
            Failure::caused(ErrorCode::Internal, "the supervisor is gone", &error)
        })?;
    let answer = tokio::time::timeout(deadline::OF_UNDO, ask(&workers.overlay, IsDeployed(commit)));
    answer.await.unwrap_or_else(|_| {
        let text = "what boots next could not be read in time";
        Err(Failure::new(ErrorCode::TimedOut, text))
    })
}
