//! A checkout of one commit made into that of another: only what differs is touched.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use apt_ostree_proto::{CommitId, ErrorCode, Failure};
use ostree::{Repo, RepoCheckoutAtOptions, RepoCheckoutOverwriteMode};
use rustix::fs::{
    AtFlags, CWD, Timespec, Timestamps, XattrFlags, llistxattr, lremovexattr, lsetxattr, utimensat,
};

use super::checkout::options;
use super::compare::Difference;
use super::objects::shown;
use super::repository::{NEVER, failed};

/// The time of every directory that libostree checks out.
const CHECKOUT_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Makes `tree`, a checkout that nobody uses yet, a checkout of `commit`, which has that difference.
pub(super) fn amend(
    repo: &Repo,
    tree: &Path,
    commit: &CommitId,
    difference: &Difference,
) -> Result<(), Failure> {
    remove(tree, difference).map_err(|error| unmade(&error))?;
    let made = topmost(&difference.directories_made);
    for path in &made {
        check_out(repo, commit, path, &tree.join(path))?;
    }
    for path in difference.written.iter().filter(|path| !is_below_any(path, &made)) {
        check_out(repo, commit, path, &parent(tree, path))?;
    }
    for (path, metadata) in &difference.directories_changed {
        set_metadata(repo, &tree.join(path), metadata)?;
    }
    reset_times(tree, difference).map_err(|error| unmade(&error))
}

fn remove(tree: &Path, difference: &Difference) -> io::Result<()> {
    let gone = topmost(&difference.directories_gone);
    for path in &gone {
        fs::remove_dir_all(tree.join(path))?;
    }
    difference
        .replaced
        .iter()
        .filter(|path| !is_below_any(path, &gone))
        .try_for_each(|path| fs::remove_file(tree.join(path)))
}

/// A directory is checked out as `to`, a file or link into it.
fn check_out(repo: &Repo, commit: &CommitId, path: &Path, to: &Path) -> Result<(), Failure> {
    let options = RepoCheckoutAtOptions {
        subpath: Some(Path::new("/").join(path)),
        overwrite_mode: RepoCheckoutOverwriteMode::UnionFiles,
        ..options()
    };
    repo.checkout_at(Some(&options), ostree::AT_FDCWD, to, commit.as_str(), NEVER).map_err(
        |error| {
            failed(
                ErrorCode::CommitFailed,
                &format!("{} cannot be checked out", shown(path)),
                &error,
            )
        },
    )
}

fn set_metadata(repo: &Repo, path: &Path, checksum: &str) -> Result<(), Failure> {
    let metadata = repo.read_dirmeta(checksum).map_err(|error| {
        failed(ErrorCode::CommitFailed, "a directory's metadata cannot be read", &error)
    })?;
    let set = || -> io::Result<()> {
        chown(path, Some(metadata.uid), Some(metadata.gid))?;
        fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode & 0o7777))?;
        let mut names = [0; 4096];
        let length = llistxattr(path, &mut names[..])?;
        for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            lremovexattr(path, std::ffi::OsStr::from_bytes(name))?;
        }
        for (name, value) in &metadata.xattrs {
            let name = name.strip_suffix(b"\0").unwrap_or(name);
            lsetxattr(path, std::ffi::OsStr::from_bytes(name), value, XattrFlags::empty())?;
        }
        Ok(())
    };
    set().map_err(|error| unmade(&error))
}

/// Directories in which something was made or removed get back the time that a checkout gives them.
fn reset_times(tree: &Path, difference: &Difference) -> io::Result<()> {
    let files = difference.replaced.iter().chain(&difference.written);
    let directories = difference.directories_gone.iter().chain(&difference.directories_made);
    let touched: BTreeSet<PathBuf> =
        files.chain(directories).map(|path| parent(tree, path)).collect();
    let times = Timestamps { last_access: CHECKOUT_TIME, last_modification: CHECKOUT_TIME };
    for directory in touched {
        match utimensat(CWD, &directory, &times, AtFlags::SYMLINK_NOFOLLOW) {
            // Gone with everything in it, or a link by now.
            Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn parent(tree: &Path, path: &Path) -> PathBuf {
    path.parent().map_or_else(|| tree.to_path_buf(), |parent| tree.join(parent))
}

/// Of directories that stand before what is in them, those that are in no other one.
fn topmost(directories: &[PathBuf]) -> Vec<PathBuf> {
    let mut topmost: Vec<PathBuf> = Vec::new();
    for directory in directories {
        if !topmost.last().is_some_and(|last| directory.starts_with(last)) {
            topmost.push(directory.clone());
        }
    }
    topmost
}

fn is_below_any(path: &Path, directories: &[PathBuf]) -> bool {
    path.ancestors().any(|above| directories.iter().any(|directory| directory == above))
}

fn unmade(error: &io::Error) -> Failure {
    Failure::caused(ErrorCode::CommitFailed, "the checkout cannot be made", error)
}
