//! Trees that nobody needs any more: moved aside in one step while somebody waits, removed for good
//! when nobody does.
//!
//! What was moved aside is in nobody's way: its new place is no transaction's directory. Whoever is
//! interrupted before it is removed leaves it there for the next daemon's sweep.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use apt_ostree_actors::port::PortResult;
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::mounted::{is_mounted_on_host, mounted_transactions};
use super::state::{COMMIT_FILE, PREPARED_FILE};
use crate::host::paths;

/// How often a free name is looked for: one is taken only while an earlier sweep was interrupted.
const MOST_NAMES: usize = 100;
/// The end of the name of a checkout, whose ref goes with it.
const CHECKOUT: &str = "tree";
/// The same of a staging area.
const STAGE: &str = "stage";

/// Moves a transaction's staging area aside. Idempotent. To be called where `/sysroot` is writable.
pub(super) fn discard_stage(transaction: TransactionId) -> PortResult<()> {
    let moved = move_aside(&paths::stage(transaction), transaction, STAGE);
    moved.and_then(|_| remove_if_empty(transaction)).map_err(failed(transaction))
}

/// Moves a transaction's checkout aside, its notes first, so that no half checkout is taken for
/// whole. Refuses while the host has it mounted. Where only a process has that began under it and has
/// mounts of its own, it stays until a clean-up finds it free: removed, it would be empty there.
/// Idempotent. To be called where `/sysroot` is writable.
pub(super) fn discard_checkout(transaction: TransactionId) -> PortResult<()> {
    if is_mounted_on_host(transaction)? {
        let message = format!("the tree of transaction {transaction} is still mounted");
        return Err(Failure::new(ErrorCode::Busy, message));
    }
    if mounted_transactions()?.contains(&transaction) {
        tracing::warn!(%transaction, "a process keeps the tree; a later clean-up removes it");
        return Ok(());
    }
    let discard = || -> io::Result<()> {
        for note in [COMMIT_FILE, PREPARED_FILE] {
            not_found_is_done(fs::remove_file(paths::live(transaction).join(note)))?;
        }
        let moved = move_aside(&paths::checkout(transaction), transaction, CHECKOUT)?;
        let reference =
            Path::new(paths::REPOSITORY).join("refs/heads").join(paths::live_ref(transaction));
        if !moved && reference.try_exists()? {
            // A rollback has a ref without a tree of its own: an empty directory says so.
            let name = format!("{transaction}-{CHECKOUT}");
            make_closed(&Path::new(paths::TRASH_DIRECTORY).join(name))?;
        }
        remove_if_empty(transaction)
    };
    discard().map_err(failed(transaction))
}

/// What was moved aside, with the transaction whose ref is to go with it.
pub fn entries() -> PortResult<Vec<(PathBuf, Option<TransactionId>)>> {
    let unread = |error: io::Error| {
        let what = format!("{} cannot be read", paths::TRASH_DIRECTORY);
        Failure::caused(ErrorCode::Internal, &what, &error)
    };
    let directory = match fs::read_dir(paths::TRASH_DIRECTORY) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unread(error)),
    };
    directory
        .map(|entry| {
            entry.map(|entry| (entry.path(), dropped(&entry.file_name().to_string_lossy())))
        })
        .collect::<io::Result<_>>()
        .map_err(unread)
}

/// The transaction whose checkout has this name in the trash.
fn dropped(name: &str) -> Option<TransactionId> {
    let (number, kind) = name.split_once('-')?;
    let is_checkout = kind == CHECKOUT || kind.starts_with("tree.");
    is_checkout.then(|| number.parse().ok().map(TransactionId)).flatten()
}

/// Whether there was anything to move.
fn move_aside(from: &Path, transaction: TransactionId, kind: &str) -> io::Result<bool> {
    if !from.try_exists()? {
        return Ok(false);
    }
    make_closed(Path::new(paths::TRASH_DIRECTORY))?;
    for number in 0..MOST_NAMES {
        let suffix = if number == 0 { String::new() } else { format!(".{number}") };
        let to = Path::new(paths::TRASH_DIRECTORY).join(format!("{transaction}-{kind}{suffix}"));
        match renameat_with(CWD, from, CWD, &to, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// For the superuser alone, as all that stands beside the deployments.
fn make_closed(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes a transaction's directory once nothing is left in it.
fn remove_if_empty(transaction: TransactionId) -> io::Result<()> {
    match fs::remove_dir(paths::live(transaction)) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => not_found_is_done(other),
    }
}

fn not_found_is_done(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn failed(transaction: TransactionId) -> impl Fn(io::Error) -> Failure {
    move |error| {
        let what = format!("the trees of transaction {transaction} cannot be moved aside");
        Failure::caused(ErrorCode::Internal, &what, &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_checkouts_take_their_ref_along() {
        for (name, transaction) in [
            ("7-tree", Some(7)),
            ("12-tree.3", Some(12)),
            ("7-stage", None),
            ("x-tree", None),
            ("7-treehouse", None),
            ("7", None),
        ] {
            assert_eq!(dropped(name), transaction.map(TransactionId), "{name}");
        }
    }
}
