//! What a dead daemon left is put in order before anything else happens.
//!
//! One rule: OSTree's list of deployments decides. Where the transaction's commit is what boots
//! next, or is booted, the update was kept and is finished forward; else it is unwound.

use apt_ostree_proto::event::Event;
use apt_ostree_proto::id::BootId;
use apt_ostree_proto::step::Step;
use apt_ostree_proto::{ErrorCode, Failure};

use super::drive::Drive;
use super::facts::Facts;
use super::forward::ask;
use super::{Parts, deadline};
use crate::journal::{Entry, Payload, Recorded};
use crate::overlay::IsDeployed;
use crate::saga::{Abort, Mark, is_past_pivot};
use crate::supervisor::GetWorkers;

/// Takes up every transaction that has not ended, newest first.
pub(super) async fn recover(parts: &Parts, boot: Option<&BootId>) -> Result<(), Failure> {
    let mut unfinished = parts.journal.with(super::super::journal::Journal::unfinished).await?;
    unfinished.reverse();
    for recorded in unfinished {
        let (id, title) = (recorded.id, &recorded.title);
        tracing::warn!(transaction = id.0, "transaction {id}: was interrupted: {title}");
        let mut recorded = decide(parts, recorded).await?;
        if recorded.boot.is_none() || recorded.boot.as_ref() != boot {
            forget_processes(&mut recorded);
        }
        let record = Drive::resume(parts.clone(), recorded).run().await;
        parts.publish.publish(Event::Finished { id: record.id, outcome: record.outcome });
    }
    Ok(())
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

/// Adds the entry that says which way to go.
async fn decide(parts: &Parts, mut recorded: Recorded) -> Result<Recorded, Failure> {
    let marks = recorded.marks();
    if is_past_pivot(&recorded.steps, &marks) {
        return Ok(recorded);
    }
    // Once its undo is done the steps before may be undone too, whatever boots next.
    let was_deploying = marks.contains(&Mark::Started(Step::Deploy))
        && !marks.contains(&Mark::Undone(Step::Deploy));
    let entry = match Facts::of(&recorded.entries).deploying.filter(|_| was_deploying) {
        Some(commit) if is_deployed(parts, commit.clone()).await? => {
            Entry::new(Mark::Succeeded(Step::Deploy))
        }
        _ => Entry::new(Mark::Aborted(Abort::Interrupted)),
    };
    let (id, written) = (recorded.id, entry.clone());
    parts.journal.write(move |journal| journal.append(id, &written)).await?;
    recorded.entries.push(entry);
    Ok(recorded)
}

async fn is_deployed(parts: &Parts, commit: apt_ostree_proto::CommitId) -> Result<bool, Failure> {
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
