//! The repository, and libostree's errors as ours.

use std::path::Path;

use apt_ostree::host::paths;
use apt_ostree_proto::{CommitId, ErrorCode, Failure};
use ostree::gio::{Cancellable, File};
use ostree::glib;

/// Nothing is cancelled from inside: a cancelled worker is killed.
pub(super) const NEVER: Option<&Cancellable> = Cancellable::NONE;

/// Opens the host's repository for what writes neither objects nor refs. One `syncfs` at the end of each task
/// stands in for libostree's many: what is not synced yet is named by no deployment.
pub(super) fn open() -> Result<ostree::Repo, Failure> {
    let repo = open_to_write()?;
    repo.set_disable_fsync(true);
    Ok(repo)
}

/// Opens the host's repository to write objects or refs. Without its syncs libostree gives them their
/// names before their content is on the disk: a power cut leaves an empty object, which the next commit
/// takes for good. With them objects stand in a staging directory until all are on the disk.
pub(super) fn open_to_write() -> Result<ostree::Repo, Failure> {
    let repo = ostree::Repo::new(&File::for_path(Path::new(paths::REPOSITORY)));
    repo.open(NEVER).map_err(|error| {
        failed(ErrorCode::CommitFailed, "the OSTree repository cannot be opened", &error)
    })?;
    Ok(repo)
}

/// Makes everything on the repository's file system durable.
pub(super) fn sync(repo: &ostree::Repo) -> Result<(), Failure> {
    rustix::fs::syncfs(repo.dfd_borrow()).map_err(|error| {
        Failure::caused(ErrorCode::CommitFailed, "the repository cannot be synced", &error)
    })
}

/// The failure that one of libostree's errors is.
pub(super) fn failed(code: ErrorCode, what: &str, error: &glib::Error) -> Failure {
    if error.matches(ostree::gio::IOErrorEnum::NoSpace) {
        return Failure::new(ErrorCode::NoSpace, format!("{what}: {}", error.message()));
    }
    Failure::new(code, format!("{what}: {}", error.message()))
}

/// A commit id of libostree's.
pub(super) fn commit_id(text: &str) -> Result<CommitId, Failure> {
    CommitId::parse(text)
        .map_err(|error| Failure::caused(ErrorCode::Internal, "OSTree names no commit", &error))
}
