//! What runs, what boots next, and what a rollback needs.

use apt_ostree_proto::CommitId;
use apt_ostree_proto::inspection::FindingKind;

use super::{Action, Found, Record, Sight};
use crate::journal::RecordedUpdate;
use crate::port::{CommitCondition, LayerOwner};

/// What is wrong with commits, refs and deployments.
pub(super) fn examine(record: &Record, sight: &Sight) -> Vec<Found> {
    let mut found = of_refs(record, sight);
    found.extend(of_awaited(record, sight));
    let Some((update, commit)) =
        record.newest().and_then(|update| Some((update, update.record.commit.as_ref()?)))
    else {
        found.extend(of_unrecorded(record, sight));
        return found;
    };
    let host = &sight.host;
    if host.running == *commit {
        found.extend(of_running(record, update, commit, sight));
    } else if record.is_of_this_boot(update) {
        let expected = format!("commit {}, of update {}", commit.short(), update.record.id);
        let text = format!("commit {}", host.running.short());
        found.push(Found::new(FindingKind::RunningTree, "/usr", expected, text));
    } else {
        let expected = format!("commit {}, of update {}", commit.short(), update.record.id);
        let text = format!("commit {}", host.running.short());
        found.push(Found::new(FindingKind::BootedElsewhere, "/usr", expected, text));
    }
    found.extend(of_unrecorded(record, sight));
    found
}

/// The newest update's tree runs: it boots next, and the way back is there.
fn of_running(
    record: &Record,
    update: &RecordedUpdate,
    commit: &CommitId,
    sight: &Sight,
) -> Vec<Found> {
    let mut found = Vec::new();
    let host = &sight.host;
    if host.foreign_pending {
        let expected = format!("commit {}", commit.short());
        let text = format!("commit {}, deployed by another program", host.next.short());
        found.push(Found::new(FindingKind::PendingDeployment, "the next boot", expected, text));
    } else if record.awaits_boot.is_some() {
        // It boots next, instead of the tree that runs.
    } else if host.next != *commit {
        found.push(not_next(commit, "which runs", sight));
    } else if is_live(sight) && host.booted != *commit {
        found.extend(of_deployments(commit, sight));
    }
    let base = update.record.base.as_ref();
    for (wanted, why) in [(Some(commit), "to run it again"), (base, "to roll it back")] {
        let Some(wanted) = wanted else { continue };
        let how = match sight.trees.commits.get(wanted) {
            Some(CommitCondition::Partial) => "objects of it are missing",
            Some(CommitCondition::Missing) => "it is not in the repository",
            Some(CommitCondition::Whole) | None => continue,
        };
        let expected = format!("there, {why} (update {})", update.record.id);
        let subject = format!("commit {wanted}");
        found.push(Found::new(FindingKind::CommitMissing, subject, expected, how));
    }
    found
}

/// What takes effect with the next boot boots next.
fn of_awaited(record: &Record, sight: &Sight) -> Option<Found> {
    let commit = record.awaits_boot.as_ref().filter(|_| !sight.host.foreign_pending)?;
    if sight.host.next == *commit {
        return of_deployments(commit, sight);
    }
    Some(not_next(commit, "which takes effect with it", sight))
}

/// A tree of ours is deployed twice: plainly, for a power cut leaves that, and staged, for a shutdown merges
/// what was edited in `/etc` since only into such a one.
fn of_deployments(commit: &CommitId, sight: &Sight) -> Option<Found> {
    let has = |staged: bool| {
        sight.trees.deployments.iter().any(|one| one.commit == *commit && one.staged == staged)
    };
    let text = match (has(false), has(true)) {
        (true, true) => return None,
        (false, _) => "only staged: a power cut would boot the tree before",
        (true, false) => "not staged: what is edited in /etc would be left behind",
    };
    let subject = format!("commit {commit}");
    Some(
        Found::new(FindingKind::DeploymentMissing, subject, "deployed and staged", text)
            .mended_by(Action::Deploy(commit.clone())),
    )
}

fn not_next(commit: &CommitId, why: &str, sight: &Sight) -> Found {
    let text = format!("commit {}", sight.host.next.short());
    let expected = format!("commit {commit}, {why}");
    Found::new(FindingKind::NextBoot, "the next boot", expected, text)
        .mended_by(Action::Deploy(commit.clone()))
}

/// A live tree that the journal says nothing about, for it was lost, has to boot next: nobody can put
/// `/etc` and the units back that go with it.
fn of_unrecorded(record: &Record, sight: &Sight) -> Option<Found> {
    let Some(LayerOwner::Live(id)) = sight.usr.layers.last().map(|layer| &layer.owner) else {
        return None;
    };
    let is_unrecorded = !record.fates.contains_key(id) && record.loss.is_some();
    let running = &sight.host.running;
    let is_next = sight.host.next == *running || sight.host.foreign_pending;
    (is_unrecorded && !is_next).then(|| not_next(running, "which runs", sight))
}

fn of_refs(record: &Record, sight: &Sight) -> Vec<Found> {
    let mut found = Vec::new();
    for (index, update) in record.updates.iter().enumerate() {
        let (id, Some(commit)) = (update.record.id, &update.record.commit) else { continue };
        let live = sight.trees.live.get(&id);
        let reference = live.and_then(|live| live.reference.as_ref());
        let is_checked_out = live.is_some_and(|live| live.checkout.is_some());
        // What was kept once need not be kept for ever; the newest is, and whoever has its files.
        let is_needed = is_checked_out || (index == 0 && sight.host.running == *commit);
        let subject = format!("apt-ostree/live/{id}");
        let problem = match reference {
            None if is_needed => Found::new(
                FindingKind::RefMissing,
                subject,
                format!("commit {commit}"),
                "no such ref",
            ),
            Some(other) if other != commit => Found::new(
                FindingKind::RefWrong,
                subject,
                format!("commit {commit}"),
                format!("commit {other}"),
            ),
            _ => continue,
        };
        let is_whole = sight.trees.commits.get(commit) == Some(&CommitCondition::Whole);
        found.push(if is_whole {
            problem.mended_by(Action::RestoreRef(id, commit.clone()))
        } else {
            problem
        });
    }
    found
}

fn is_live(sight: &Sight) -> bool {
    let top = sight.usr.layers.last();
    top.is_some_and(|layer| matches!(layer.owner, LayerOwner::Live(_)))
}
