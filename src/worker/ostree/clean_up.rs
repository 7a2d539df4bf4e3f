//! What earlier transactions left and nobody needs any more.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use apt_ostree::host::paths;
use apt_ostree::host::tree::mountinfo;
use apt_ostree::host::tree::task::CleanUpRequest;
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use ostree::{Deployment, Sysroot};

use super::checkout::remove_live_tree;
use super::deployment::{is_ours, write};
use super::etc_copy;
use super::lock::open_locked;
use super::namespace::make_private;
use super::repository::{NEVER, failed};
use super::staging::remove_tree;

/// Removes them. Idempotent; what a process still has mounted stays.
pub(crate) fn clean_up(request: &CleanUpRequest) -> Result<(), Failure> {
    let mut keep = mounted_transactions()?;
    keep.extend(&request.keep);
    make_private()?;
    let sysroot = open_locked(ErrorCode::Internal)?;
    for transaction in known_transactions(&sysroot.repo())?.difference(&keep) {
        remove_live_tree(&sysroot.repo(), *transaction)?;
        remove_tree(&paths::live(*transaction))?;
        remove_tree(&paths::var_delta(*transaction))?;
    }
    drop_old_deployments(&sysroot)?;
    etc_copy::clean_up(&sysroot.deployments())?;
    sysroot
        .cleanup(NEVER)
        .map_err(|error| failed(ErrorCode::Internal, "the repository cannot be pruned", &error))
}

/// Transactions with a directory or a ref.
fn known_transactions(repo: &ostree::Repo) -> Result<BTreeSet<TransactionId>, Failure> {
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
fn numbered(directory: &Path) -> Vec<TransactionId> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(TransactionId)
        .collect()
}

/// Transactions whose tree any process's mount namespace shows.
pub(super) fn mounted_transactions() -> Result<BTreeSet<TransactionId>, Failure> {
    let processes = fs::read_dir("/proc").map_err(|error| {
        Failure::caused(ErrorCode::Internal, "the processes cannot be listed", &error)
    })?;
    let mut seen = BTreeSet::new();
    let mut mounted = BTreeSet::new();
    for process in processes.flatten() {
        // One look a namespace; processes that are gone by now hold nothing.
        let Ok(namespace) = fs::read_link(process.path().join("ns/mnt")) else { continue };
        if !seen.insert(namespace) {
            continue;
        }
        if let Ok(text) = fs::read_to_string(process.path().join("mountinfo")) {
            let mounts = mountinfo::parse(&text);
            mounted.extend(mounts.iter().filter_map(|mount| transaction_of(&mount.root)));
        }
    }
    Ok(mounted)
}

/// The transaction whose directory a mount's root is in.
fn transaction_of(root: &Path) -> Option<TransactionId> {
    let names: Vec<&str> = root.iter().map(|name| name.to_str().unwrap_or("")).collect();
    let start = names.windows(3).position(|pair| pair[0] == "ostree" && pair[1] == "live")?;
    names[start + 2].parse().ok().map(TransactionId)
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

    #[test]
    fn a_mount_of_any_part_of_a_live_tree_holds_it() {
        for (root, transaction) in [
            ("/ostree/live/7/tree/usr", Some(7)),
            ("/@/ostree/live/12/tree/usr/lib/modules", Some(12)),
            ("/ostree/live", None),
            ("/ostree/deploy/debian/deploy/x.0/usr", None),
            ("/ostree/live/x/tree", None),
        ] {
            assert_eq!(transaction_of(Path::new(root)), transaction.map(TransactionId), "{root}");
        }
    }
}
