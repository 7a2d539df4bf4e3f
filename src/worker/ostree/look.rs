//! What there is of deployments, trees, refs and commits, for an inspection. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use apt_ostree::host::paths;
use apt_ostree::host::tree::mounted::mounted_transactions;
use apt_ostree::host::tree::state::{COMMIT_FILE, StateReader};
use apt_ostree::host::tree::task::{LookRequest, RefRequest};
use apt_ostree::host::tree::trash;
use apt_ostree_actors::port::{CommitCondition, DeploymentLook, LiveLook, TreeLook};
use apt_ostree_proto::{CommitId, ErrorCode, Failure, TransactionId};
use ostree::{Repo, RepoCommitState, Sysroot};

use super::clean_up::numbered;
use super::deployment::is_ours;
use super::namespace::make_private;
use super::repository::{self, NEVER, commit_id, failed};

/// Looks at everything.
pub(crate) fn look(request: &LookRequest) -> Result<TreeLook, Failure> {
    let sysroot = Sysroot::new_default();
    sysroot.load(NEVER).map_err(|error| {
        failed(ErrorCode::Internal, "the OSTree deployments cannot be read", &error)
    })?;
    let repo = repository::open()?;
    let commits = request.commits.iter();
    let trash = trash::entries()?;
    // Their refs go with them.
    let dropped = trash.iter().filter_map(|(_, transaction)| *transaction).collect();
    Ok(TreeLook {
        deployments: deployments(&sysroot)?,
        live: live(&repo, &dropped)?,
        commits: commits.map(|commit| (commit.clone(), condition(&repo, commit))).collect(),
        trash: trash.len(),
    })
}

/// Has a transaction's ref name a commit that is in the repository. Idempotent.
pub(crate) fn restore_ref(request: &RefRequest) -> Result<(), Failure> {
    make_private()?;
    let repo = repository::open_to_write()?;
    let unwritten =
        |error| failed(ErrorCode::Internal, "the ref of an update cannot be written", &error);
    let commit = request.commit.as_str();
    repo.load_commit(commit).map_err(unwritten)?;
    let name = paths::live_ref(request.transaction);
    repo.set_ref_immediate(None, &name, Some(commit), NEVER).map_err(unwritten)
}

fn deployments(sysroot: &Sysroot) -> Result<Vec<DeploymentLook>, Failure> {
    let booted = sysroot.booted_deployment();
    let look = |deployment: &ostree::Deployment| {
        Ok(DeploymentLook {
            commit: commit_id(&deployment.csum())?,
            booted: booted.as_ref().is_some_and(|booted| deployment.equal(booted)),
            staged: deployment.is_staged(),
            ours: is_ours(deployment),
        })
    };
    sysroot.deployments().iter().map(look).collect()
}

fn condition(repo: &Repo, commit: &CommitId) -> CommitCondition {
    match repo.load_commit(commit.as_str()) {
        Ok((_, state)) if state.contains(RepoCommitState::PARTIAL) => CommitCondition::Partial,
        Ok(_) => CommitCondition::Whole,
        Err(_) => CommitCondition::Missing,
    }
}

fn live(
    repo: &Repo,
    dropped: &BTreeSet<TransactionId>,
) -> Result<BTreeMap<TransactionId, LiveLook>, Failure> {
    let mut live: BTreeMap<TransactionId, LiveLook> = BTreeMap::new();
    let refs = repo.list_refs(Some("apt-ostree/live"), NEVER).map_err(|error| {
        failed(ErrorCode::Internal, "the repository's refs cannot be read", &error)
    })?;
    for (name, commit) in refs {
        // Depending on its version libostree gives the names with or without the prefix.
        let Some(number) = name.rsplit('/').next().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let transaction = TransactionId(number);
        if !dropped.contains(&transaction) {
            live.entry(transaction).or_default().reference = Some(commit_id(&commit)?);
        }
    }
    let state = StateReader::default();
    for id in numbered(Path::new(paths::LIVE_DIRECTORY)) {
        let look = live.entry(id).or_default();
        look.has_stage = paths::stage(id).exists();
        look.has_files = holds_more_than_a_stage(&paths::live(id)).map_err(|error| {
            let what = format!("what transaction {id} has cannot be listed");
            Failure::caused(ErrorCode::Internal, &what, &error)
        })?;
        let is_whole = paths::live(id).join(COMMIT_FILE).exists();
        look.checkout = is_whole.then(|| state.live_commit(id)).flatten();
    }
    if let Some(deltas) = paths::var_delta(TransactionId(0)).parent() {
        for id in numbered(deltas) {
            live.entry(id).or_default().has_files = true;
        }
    }
    for id in mounted_transactions()? {
        live.entry(id).or_default().is_mounted = true;
    }
    Ok(live)
}

/// An empty directory is more, too: it is not to be there.
fn holds_more_than_a_stage(directory: &Path) -> std::io::Result<bool> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name());
    }
    Ok(names.is_empty() || names.iter().any(|name| name != "stage"))
}
