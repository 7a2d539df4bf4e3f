//! A host whose journal was lost: whether an update was interrupted that nobody knows of any more.

use apt_ostree_proto::TransactionId;

use crate::port::{HostTree, LayerOwner, TreeLook, UsrLook};

/// What looks like an interrupted update among what no record is left of, for people. `is_recorded`
/// says which transactions the journal still knows the end of.
///
/// An update that ended, well or put back, leaves neither a staging area nor a guard, and its tree
/// boots next where it is mounted. One whose tree neither runs nor boots may have been put back by a
/// power cut alone, with its files still in `/etc`.
pub fn suspects(
    host: &HostTree,
    usr: &UsrLook,
    trees: &TreeLook,
    is_recorded: impl Fn(TransactionId) -> bool,
) -> Vec<String> {
    let mut suspects = Vec::new();
    for id in usr.helpers.iter().filter(|id| !is_recorded(**id)) {
        suspects.push(format!("the rescue guard of transaction {id} waits"));
    }
    if let Some(LayerOwner::Live(id)) = usr.layers.last().map(|layer| &layer.owner)
        && !is_recorded(*id)
        && host.next != host.running
        && !host.foreign_pending
    {
        suspects.push(format!("the tree of transaction {id} runs and does not boot next"));
    }
    let unrecorded = || trees.live.iter().filter(|(id, _)| !is_recorded(**id));
    for (id, _) in unrecorded().filter(|(_, live)| live.has_stage) {
        suspects.push(format!("transaction {id} left a staging area"));
    }
    // Of trees that are kept for a rollback only the newest can have been interrupted.
    if let Some((id, live)) = unrecorded().next_back()
        && Some(*id) == trees.live.keys().next_back().copied()
        && !live.has_stage
        && let Some(commit) = live.reference.as_ref()
    {
        let is_deployed = trees.deployments.iter().any(|one| one.commit == *commit);
        if !is_deployed && host.running != *commit {
            suspects.push(format!("the tree of transaction {id} neither runs nor boots"));
        }
    }
    suspects
}
