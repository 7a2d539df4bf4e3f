//! The private root that packages are installed in: upper trees, the snapshot of `/etc`, and a
//! skeleton with the deployment's top-level links.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use apt_ostree::host::tree::layout::{SKELETON_DIRECTORIES, Stage};
use apt_ostree::host::tree::state::StateReader;
use apt_ostree::host::tree::task::TransactionRequest;
use apt_ostree_proto::{ErrorCode, Failure};

use super::copy::{copy_attributes, copy_tree};
use super::lock::open_locked;
use super::namespace::make_private;

/// Makes the staging area anew. Idempotent: what an interrupted attempt left is removed first.
pub(crate) fn stage(request: &TransactionRequest) -> Result<(), Failure> {
    let state = StateReader::default();
    let mounts = state.mounts()?;
    let booted = state.booted(&mounts)?;
    let running = state.running(&mounts, &booted)?;
    make_private()?;
    // Nobody waits for minutes of installing only to hear that an upgrade of the host runs.
    drop(open_locked(ErrorCode::Internal)?);
    let area = Stage::of(request.transaction);
    remove_stage(&area)?;
    make(&area, &booted.directory, &running.usr).map_err(|error| {
        let code = if error.kind() == io::ErrorKind::StorageFull {
            ErrorCode::NoSpace
        } else {
            ErrorCode::Internal
        };
        Failure::caused(code, "the staging area cannot be made", &error)
    })
}

fn remove_stage(stage: &Stage) -> Result<(), Failure> {
    remove_tree(&stage.directory)
}

/// Removes a tree that may not be there.
pub(super) fn remove_tree(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            let what = format!("\"{}\" cannot be removed", path.display());
            Err(Failure::caused(ErrorCode::Internal, &what, &error))
        }
    }
}

/// Makes a directory and its missing parents, for the superuser alone: below it are copies of `/etc`,
/// set-id programs that are replaced for a reason, and scratch directories that scripts trust.
pub(super) fn make_closed_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn make(stage: &Stage, deployment: &Path, usr: &Path) -> io::Result<()> {
    make_closed_directory(&stage.directory)?;
    for (name, lower) in [("usr", usr), ("etc", Path::new("/etc")), ("var", Path::new("/var"))] {
        let upper = stage.upper(name);
        fs::create_dir_all(&upper)?;
        fs::create_dir_all(stage.work(name))?;
        // The upper directory is what the overlay shows as the root of the tree.
        copy_attributes(lower, &upper, &fs::symlink_metadata(lower)?)?;
    }
    copy_tree(Path::new("/etc"), &stage.etc_snapshot())?;
    make_skeleton(&stage.root(), deployment)
}

fn make_skeleton(root: &Path, deployment: &Path) -> io::Result<()> {
    fs::create_dir(root)?;
    for entry in top_level(deployment)? {
        let (from, to) = (deployment.join(&entry), root.join(&entry));
        let status = fs::symlink_metadata(&from)?;
        if status.is_symlink() {
            symlink(fs::read_link(&from)?, to)?;
        } else if status.is_dir() {
            fs::create_dir(&to)?;
            copy_attributes(&from, &to, &status)?;
        }
    }
    for name in SKELETON_DIRECTORIES {
        fs::create_dir_all(root.join(name))?;
    }
    copy_attributes(deployment, root, &fs::symlink_metadata(deployment)?)
}

/// The names at the top of a tree.
pub(super) fn top_level(root: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(root)?.map(|entry| entry.map(|entry| entry.file_name().into())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_stands_beside_the_deployments_is_closed_to_users() {
        let directory = tempfile::tempdir().unwrap();
        make_closed_directory(&directory.path().join("live/1/stage")).unwrap();
        make_closed_directory(&directory.path().join("live/1")).unwrap();
        for path in ["live", "live/1", "live/1/stage"] {
            let mode = fs::metadata(directory.path().join(path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{path}");
        }
    }
}
