//! What earlier transactions left and nobody needs any more.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use apt_ostree::host::paths;
use apt_ostree::host::tree::mounted::mounted_transactions;
use apt_ostree::host::tree::task::CleanUpRequest;
use apt_ostree::host::tree::trash;
use apt_ostree_proto::point::KeptUpdate;
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use ostree::{Deployment, Repo, Sysroot};

use super::checkout::{remove_live_tree, remove_ref};
use super::deployment::{is_ours, write};
use super::etc_copy;
use super::lock::open_locked;
use super::namespace::make_private;
use super::repository;
use super::repository::{NEVER, failed};
use super::retention;
use super::staging::remove_tree;

/// Removes them. Idempotent; what a process still has mounted stays. Answers the updates that can be
/// undone.
pub(crate) fn clean_up(request: &CleanUpRequest) -> Result<Vec<KeptUpdate>, Failure> {
    let retention = &request.retention;
    let mounted = mounted_transactions()?;
    make_private()?;
    let sysroot = open_locked(ErrorCode::Internal)?;
    let repo = sysroot.repo();
    empty_trash(&repo)?;
    drop_old_deployments(&sysroot)?;
    let kept = retention::decide(&repo, retention, &sysroot.deployments())?;
    retention::hold_all(&repo, retention, &kept)?;
    let keep = |ids: &mut dyn Iterator<Item = TransactionId>| -> BTreeSet<TransactionId> {
        ids.chain(mounted.iter().copied()).collect()
    };
    let trees = keep(&mut retention.trees(kept.len()));
    let files = keep(&mut retention.files(kept.len()));
    for transaction in known_transactions(&repo)?.difference(&trees) {
        remove_live_tree(&repo, *transaction)?;
        remove_tree(&paths::stage(*transaction))?;
        if !files.contains(transaction) {
            remove_tree(&paths::live(*transaction))?;
            remove_tree(&paths::var_delta(*transaction))?;
        }
    }
    etc_copy::clean_up(&sysroot.deployments())?;
    sysroot
        .cleanup(NEVER)
        .map_err(|error| failed(ErrorCode::Internal, "the repository cannot be pruned", &error))?;
    Ok(kept)
}

/// Removes for good what was moved aside, and the refs that go with it. Idempotent.
pub(crate) fn sweep() -> Result<(), Failure> {
    make_private()?;
    empty_trash(&repository::open()?)
}

fn empty_trash(repo: &Repo) -> Result<(), Failure> {
    for (path, dropped) in trash::entries()? {
        // First the ref: the directory is what says that it is to go.
        if let Some(transaction) = dropped {
            remove_ref(repo, transaction)?;
        }
        remove_tree(&path)?;
    }
    Ok(())
}

/// Transactions with a directory or a ref.
fn known_transactions(repo: &Repo) -> Result<BTreeSet<TransactionId>, Failure> {
    let refs = repo.list_refs(Some("apt-ostree/live"), NEVER).map_err(|error| {
        failed(ErrorCode::Internal, "the repository's refs cannot be read", &error)
    })?;
    // Depending on its version libostree gives the names with or without the prefix.
    let from_refs = refs.keys().filter_map(|name| name.rsplit('/').next()?.parse().ok());
    let kept_of_var = paths::var_delta(TransactionId(0));
    let from_directories = [Some(Path::new(paths::LIVE_DIRECTORY)), kept_of_var.parent()]
        .into_iter()
        .flatten()
        .flat_map(numbered);
    Ok(from_refs.map(TransactionId).chain(from_directories).collect())
}

/// Transactions that have an entry in a directory, which may not be there.
pub(super) fn numbered(directory: &Path) -> Vec<TransactionId> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(TransactionId)
        .collect()
}

/// Deployments of ours stay if they are booted, boot next, are the way back from the booted one, or
/// are the first pinned one.
fn drop_old_deployments(sysroot: &Sysroot) -> Result<(), Failure> {
    let deployments = sysroot.deployments();
    let booted = sysroot.booted_deployment();
    let is_booted =
        |deployment: &Deployment| booted.as_ref().is_some_and(|booted| deployment.equal(booted));
    let position = deployments.iter().position(is_booted);
    let plain = deployments.iter().position(|deployment| !deployment.is_staged());
    let mut pinned = false;
    let mut rest = Vec::new();
    for (index, deployment) in deployments.iter().enumerate() {
        let ours = is_ours(deployment);
        if ours && deployment.is_pinned() {
            if pinned {
                sysroot.deployment_set_pinned(deployment, false).map_err(|error| {
                    failed(ErrorCode::Internal, "a deployment cannot be unpinned", &error)
                })?;
            }
            pinned = true;
        }
        let needed = !ours
            || deployment.is_staged()
            || is_booted(deployment)
            || deployment.is_pinned()
            || Some(index) == plain
            || Some(index) == position.map(|position| position + 1);
        if needed {
            rest.push(deployment.clone());
        }
    }
    if rest.len() == deployments.len() { Ok(()) } else { write(sysroot, &rest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_known_by_their_directories_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["7", "12", "x", "3.tmp", "-1"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let mut found = numbered(directory.path());
        found.sort();
        assert_eq!(found, [TransactionId(7), TransactionId(12)]);
        assert_eq!(numbered(&directory.path().join("none")), []);
    }
}
