//! Checkouts of commits beside the deployments, made of hard links.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use apt_ostree::host::paths;
use apt_ostree::host::tree::mountinfo;
use apt_ostree::host::tree::state::{COMMIT_FILE, DeploymentPath, PREPARED_FILE, StateReader};
use apt_ostree::host::tree::task::{CheckOutRequest, PrepareRequest};
use apt_ostree_actors::port::{CommittedTree, ReplacedFile, TreeIdentity};
use apt_ostree_proto::{CommitId, ErrorCode, Failure, TransactionId};
use ostree::{Repo, RepoCheckoutAtOptions};

use super::amend::amend;
use super::compare::{Difference, compare};
use super::lock::open_locked;
use super::namespace::make_private;
use super::repository::{self, NEVER, failed};
use super::staging::{make_closed_directory, remove_tree};
use super::target::check_complete;

/// Checks a commit out that is in the repository, unless a tree of it is there: a rollback goes back
/// to the one that ran before.
pub(crate) fn check_out(request: &CheckOutRequest) -> Result<CommittedTree, Failure> {
    make_private()?;
    let lock = open_locked(ErrorCode::CommitFailed)?;
    let repo = repository::open_to_write()?;
    check_complete(&repo, &request.commit)?;
    repo.set_ref_immediate(
        None,
        &paths::live_ref(request.transaction),
        Some(request.commit.as_str()),
        NEVER,
    )
    .map_err(|error| failed(ErrorCode::CommitFailed, "the ref cannot be written", &error))?;
    let committed = match ready_tree(&request.commit)? {
        Some(usr) => {
            let difference = compare(&repo, &request.base, &request.commit)?;
            describe(&request.commit, usr, difference)
        }
        None => make_tree(&repo, request.transaction, &request.base, &request.commit),
    };
    drop(lock);
    committed
}

/// The `usr` of a tree of this commit that nothing removes while it is in use: the booted
/// deployment's own, or that of an update that is kept.
fn ready_tree(commit: &CommitId) -> Result<Option<PathBuf>, Failure> {
    let state = StateReader::default();
    let mounts = state.mounts()?;
    // With composefs the deployment's directory has no files.
    let deployment = ["/", "/usr"]
        .iter()
        .filter_map(|point| mounts.iter().find(|mount| mount.point == Path::new(point)))
        .find_map(|mount| DeploymentPath::parse(&mount.root));
    if let Some(deployment) = deployment.filter(|deployment| deployment.commit == *commit) {
        return Ok(Some(deployment.directory.join("usr")));
    }
    let entries = match fs::read_dir(paths::LIVE_DIRECTORY) {
        Ok(entries) => entries,
        // The first transaction of this host.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unmade(&error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| unmade(&error))?;
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(transaction) = number.map(TransactionId) else { continue };
        let usr = paths::checkout(transaction).join("usr");
        if noted(&paths::live(transaction), COMMIT_FILE).as_ref() == Some(commit) && usr.is_dir() {
            return Ok(Some(usr));
        }
    }
    Ok(None)
}

/// Checks the running commit out for a commit that is still to come: its difference alone is left to
/// do then.
pub(crate) fn prepare(request: &PrepareRequest) -> Result<(), Failure> {
    make_private()?;
    let repo = repository::open()?;
    let live = paths::live(request.transaction);
    let tree = paths::checkout(request.transaction);
    remove_tree(&tree)?;
    make_closed_directory(&live).map_err(|error| unmade(&error))?;
    check_out_to(&repo, &request.base, &tree)?;
    fs::write(live.join(PREPARED_FILE), request.base.as_str()).map_err(|error| unmade(&error))?;
    // The links' inodes reach the disk while packages are installed: the commit's own sync would
    // otherwise wait for the whole tree's.
    repository::sync(&repo)
}

/// Makes the transaction's checkout of `commit`, unless it is there and complete; durable, and with
/// what is new in it against the running commit.
pub(super) fn make_tree(
    repo: &Repo,
    transaction: TransactionId,
    base: &CommitId,
    commit: &CommitId,
) -> Result<CommittedTree, Failure> {
    let live = paths::live(transaction);
    let tree = paths::checkout(transaction);
    let difference = compare(repo, base, commit)?;
    if noted(&live, COMMIT_FILE).as_ref() != Some(commit) {
        if noted(&live, PREPARED_FILE).as_ref() == Some(base) {
            // What is half amended must never be taken for a checkout of the base.
            fs::remove_file(live.join(PREPARED_FILE)).map_err(|error| unmade(&error))?;
            amend(repo, &tree, commit, &difference)?;
        } else {
            remove_tree(&tree)?;
            make_closed_directory(&live).map_err(|error| unmade(&error))?;
            check_out_to(repo, commit, &tree)?;
        }
        fs::write(live.join(COMMIT_FILE), commit.as_str()).map_err(|error| unmade(&error))?;
    }
    repository::sync(repo)?;
    describe(commit, tree.join("usr"), difference)
}

/// What the switch and the services have to know of a tree.
fn describe(
    commit: &CommitId,
    usr: PathBuf,
    difference: Difference,
) -> Result<CommittedTree, Failure> {
    let status = fs::metadata(&usr).map_err(|error| {
        Failure::caused(ErrorCode::CommitFailed, "the checkout has no usr", &error)
    })?;
    Ok(CommittedTree {
        commit: commit.clone(),
        usr: TreeIdentity { path: usr, device: status.dev(), inode: status.ino() },
        changed: difference.changed(),
        replaced: replaced_files(difference.replaced)?,
    })
}

fn noted(live: &Path, name: &str) -> Option<CommitId> {
    CommitId::parse(fs::read_to_string(live.join(name)).ok()?.trim()).ok()
}

fn unmade(error: &std::io::Error) -> Failure {
    Failure::caused(ErrorCode::CommitFailed, "the checkout cannot be made", error)
}

/// Checks a commit out with hard links into a directory that is not there yet.
fn check_out_to(repo: &Repo, commit: &CommitId, to: &Path) -> Result<(), Failure> {
    repo.checkout_at(Some(&options()), ostree::AT_FDCWD, to, commit.as_str(), NEVER).map_err(
        |error| failed(ErrorCode::CommitFailed, "the commit cannot be checked out", &error),
    )
}

/// How everything is checked out.
pub(super) fn options() -> RepoCheckoutAtOptions {
    RepoCheckoutAtOptions {
        // A copy would cost the tree's size, and would not be told apart by its inodes.
        no_copy_fallback: true,
        // All empty files are one object, which may have more links than the file system allows.
        force_copy_zerosized: true,
        ..RepoCheckoutAtOptions::default()
    }
}

/// The running tree's files at these paths, as `/proc/*/maps` shows them. The device is the mount's:
/// stat(2) gives another one on file systems with subvolumes.
fn replaced_files(paths: Vec<PathBuf>) -> Result<Vec<ReplacedFile>, Failure> {
    let state = StateReader::default();
    let mounts = state.mounts()?;
    let device = mountinfo::holding(&mounts, Path::new("/usr"))
        .map(|mount| mount.device)
        .ok_or_else(|| Failure::new(ErrorCode::Internal, "no mount holds /usr"))?;
    let running = state.running(&mounts, &state.booted(&mounts)?)?.usr;
    let files = paths.into_iter().filter_map(|path| {
        let below = path.strip_prefix("usr").ok()?;
        // What is not there cannot be in use.
        let status = fs::symlink_metadata(running.join(below)).ok()?;
        let path = Path::new("/").join(&path);
        status.is_file().then(|| ReplacedFile { path, device, inode: status.ino() })
    });
    Ok(files.collect())
}

/// Removes checkout, note and ref; the note first, so that no half checkout is taken for whole.
pub(super) fn remove_live_tree(repo: &Repo, transaction: TransactionId) -> Result<(), Failure> {
    for note in [COMMIT_FILE, PREPARED_FILE] {
        match fs::remove_file(paths::live(transaction).join(note)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let what = format!("a note of transaction {transaction} cannot be removed");
                return Err(Failure::caused(ErrorCode::Internal, &what, &error));
            }
            _ => {}
        }
    }
    remove_tree(&paths::checkout(transaction))?;
    remove_ref(repo, transaction)
}

/// Removes a transaction's ref. Idempotent.
pub(super) fn remove_ref(repo: &Repo, transaction: TransactionId) -> Result<(), Failure> {
    let reference = paths::live_ref(transaction);
    let gone = || repo.resolve_rev(&reference, true).map(|commit| commit.is_none());
    let removed = gone().and_then(|gone| {
        if gone { Ok(()) } else { repo.set_ref_immediate(None, &reference, None, NEVER) }
    });
    removed.map_err(|error| {
        failed(ErrorCode::Internal, &format!("the ref {reference} cannot be removed"), &error)
    })
}
