//! What an inspection sees of the simulated disk.

use std::collections::BTreeSet;

use apt_ostree_proto::{CommitId, TransactionId};

use super::{DiskState, sim_commit};
use crate::port::{
    CommitCondition, DeploymentLook, FileDifference, FileDifferenceKind, LayerOwner, LiveLook,
    TreeComparison, TreeLook, UsrLayer, UsrLook,
};

/// What is mounted.
pub(super) fn usr(state: &DiskState) -> UsrLook {
    let layer = |owner| UsrLayer { owner, read_only: !state.writable, peers: Vec::new() };
    let live = state.mounted.iter().map(|commit| {
        let made = state.checkouts.iter().rev().find(|(_, made)| *made == commit);
        made.map_or_else(
            || LayerOwner::Foreign("a tree that nobody checked out".to_owned()),
            |(id, _)| LayerOwner::Live(*id),
        )
    });
    let own = (!state.collapsed).then_some(LayerOwner::Deployment);
    UsrLook {
        layers: own.into_iter().chain(live).map(layer).collect(),
        helpers: state.guards.union(&state.pins).copied().collect(),
    }
}

/// What trees there are.
pub(super) fn trees(state: &DiskState, commits: &[CommitId]) -> TreeLook {
    let deployment = |commit: &CommitId, staged: bool| DeploymentLook {
        commit: commit.clone(),
        booted: *commit == state.booted && !staged,
        staged,
        ours: *commit != sim_commit(1),
    };
    let staged = state.staged.iter().map(|commit| deployment(commit, true));
    let plain = state.deployed.iter().map(|commit| deployment(commit, false));
    let ids: BTreeSet<TransactionId> = state
        .checkouts
        .keys()
        .chain(&state.stages)
        .chain(&state.prepared)
        .chain(&state.kept_files)
        .copied()
        .collect();
    let live = ids.into_iter().map(|id| {
        let checkout = state.checkouts.get(&id);
        let look = LiveLook {
            reference: checkout.filter(|_| !state.lost_refs.contains(&id)).cloned(),
            checkout: checkout.cloned(),
            has_stage: state.stages.contains(&id),
            has_files: checkout.is_some()
                || state.prepared.contains(&id)
                || state.kept_files.contains(&id),
            is_mounted: checkout.is_some_and(|commit| state.mounted.contains(commit)),
        };
        (id, look)
    });
    TreeLook {
        deployments: staged.chain(plain).collect(),
        live: live.collect(),
        commits: commits.iter().map(|one| (one.clone(), CommitCondition::Whole)).collect(),
        trash: 0,
    }
}

/// The running tree against its commit.
pub(super) fn comparison(state: &DiskState) -> TreeComparison {
    let differences = state.spoilt.iter().map(|path| FileDifference {
        path: path.display().to_string(),
        kind: FileDifferenceKind::Changed,
        expected: "as it was".to_owned(),
        found: "as it is".to_owned(),
    });
    TreeComparison { files: 1, bytes: 1, differences: differences.collect(), ..Default::default() }
}
