//! The upper tree of an overlay laid over a mutable tree: only what changed is walked.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use apt_ostree_proto::{ErrorCode, Failure};
use ostree::{MutableTree, Repo};

use super::objects::{is_opaque, shown, write_directory, write_file, write_link};
use super::repository::failed;

/// How many of a package's unsupported files a message names.
const NAMED_FILES: usize = 10;

/// What was found in an upper tree that OSTree cannot hold, and hard links met before.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// Paths within the upper tree, each with the reason.
    pub(super) unsupported: Vec<(PathBuf, &'static str)>,
    links: HashMap<(u64, u64), String>,
}

impl Overlay {
    /// Lays `upper` over `tree`, which stands for the same directory. Errors: `CommitFailed`,
    /// `NoSpace`; what OSTree cannot hold is collected instead.
    pub(super) fn lay(
        &mut self,
        repo: &Repo,
        upper: &Path,
        tree: &MutableTree,
    ) -> Result<(), Failure> {
        let status = fs::symlink_metadata(upper).map_err(|error| unread(upper, &error))?;
        tree.set_metadata_checksum(&write_directory(repo, upper, &status)?);
        self.lay_children(repo, upper, Path::new(""), tree)
    }

    fn lay_children(
        &mut self,
        repo: &Repo,
        upper: &Path,
        below: &Path,
        tree: &MutableTree,
    ) -> Result<(), Failure> {
        let directory = upper.join(below);
        let entries = fs::read_dir(&directory).map_err(|error| unread(&directory, &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| unread(&directory, &error))?;
            let status = entry.metadata().map_err(|error| unread(&entry.path(), &error))?;
            let below = below.join(entry.file_name());
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                self.unsupported.push((below, "a name that is not UTF-8"));
                continue;
            };
            self.lay_one(repo, upper, &below, &name, &status, tree)?;
        }
        Ok(())
    }

    fn lay_one(
        &mut self,
        repo: &Repo,
        upper: &Path,
        below: &Path,
        name: &str,
        status: &Metadata,
        tree: &MutableTree,
    ) -> Result<(), Failure> {
        let path = upper.join(below);
        let kind = status.file_type();
        let unchanged_kind = |error: &ostree::glib::Error| {
            failed(ErrorCode::CommitFailed, &format!("{} cannot be replaced", shown(below)), error)
        };
        if kind.is_dir() {
            if is_opaque(&path)? || !is_directory(tree, name) {
                tree.remove(name, true).map_err(|error| unchanged_kind(&error))?;
            }
            let child = tree.ensure_dir(name).map_err(|error| unchanged_kind(&error))?;
            // libostree crashes on a directory without metadata: set it before anything else.
            child.set_metadata_checksum(&write_directory(repo, &path, status)?);
            return self.lay_children(repo, upper, below, &child);
        }
        if kind.is_char_device() && status.rdev() == 0 {
            return tree.remove(name, true).map_err(|error| unchanged_kind(&error));
        }
        let checksum = if kind.is_file() {
            self.file(repo, &path, status)?
        } else if kind.is_symlink() {
            write_link(repo, &path, status)?
        } else {
            self.unsupported.push((below.to_path_buf(), special(status)));
            return Ok(());
        };
        replace(tree, name, &checksum).map_err(|error| unchanged_kind(&error))
    }

    /// Hard links of one file are read once.
    fn file(&mut self, repo: &Repo, path: &Path, status: &Metadata) -> Result<String, Failure> {
        let identity = (status.dev(), status.ino());
        if let Some(checksum) = self.links.get(&identity) {
            return Ok(checksum.clone());
        }
        let checksum = write_file(repo, path, status)?;
        if status.nlink() > 1 {
            self.links.insert(identity, checksum.clone());
        }
        Ok(checksum)
    }
}

/// Puts a file or link in place of whatever has its name.
pub(super) fn replace(
    tree: &MutableTree,
    name: &str,
    checksum: &str,
) -> Result<(), ostree::glib::Error> {
    if is_directory(tree, name) {
        tree.remove(name, true)?;
    }
    tree.replace_file(name, checksum)
}

/// Whether `tree` has a directory of that name.
pub(super) fn is_directory(tree: &MutableTree, name: &str) -> bool {
    // The lookup's only error is that there is nothing of that name.
    tree.lookup(name).is_ok_and(|(_, directory)| directory.is_some())
}

fn special(status: &Metadata) -> &'static str {
    let kind = status.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        "a device node"
    } else if kind.is_fifo() {
        "a named pipe"
    } else {
        "a socket"
    }
}

fn unread(path: &Path, error: &std::io::Error) -> Failure {
    let what = format!("the staged {} cannot be read", shown(path));
    Failure::caused(ErrorCode::CommitFailed, &what, error)
}

/// The refusal of what packages put where a live update cannot have it: each file with its reason
/// and the package that it belongs to, as the staged dpkg database says.
pub(super) fn refuse(files: &[(PathBuf, String)], database: &Path) -> Option<Failure> {
    if files.is_empty() {
        return None;
    }
    let owners = Owners::read(database);
    let mut named: Vec<String> = files
        .iter()
        .take(NAMED_FILES)
        .map(|(path, reason)| match owners.of(path) {
            Some(package) => format!("{} of {package} ({reason})", shown(path)),
            None => format!("{} ({reason})", shown(path)),
        })
        .collect();
    if files.len() > NAMED_FILES {
        named.push(format!("and {} more", files.len() - NAMED_FILES));
    }
    let message = format!("the packages bring what OSTree cannot hold: {}", named.join(", "));
    Some(Failure::new(ErrorCode::UnsupportedPackage, message))
}

/// Which package of the change brought which file: `info/PACKAGE.list` in the upper tree.
struct Owners {
    lists: Vec<(String, String)>,
}

impl Owners {
    fn read(database: &Path) -> Self {
        let entries = fs::read_dir(database.join("info")).into_iter().flatten().flatten();
        let lists = entries
            .filter_map(|entry| {
                let name = entry.file_name().to_str()?.strip_suffix(".list")?.to_owned();
                Some((name, fs::read_to_string(entry.path()).ok()?))
            })
            .collect();
        Self { lists }
    }

    fn of(&self, path: &Path) -> Option<&str> {
        let wanted = Path::new("/").join(path);
        // An image with a merged /usr may list a file below /lib that is in /usr/lib.
        let short = wanted.strip_prefix("/usr").map(|rest| Path::new("/").join(rest)).ok();
        self.lists
            .iter()
            .find(|(_, list)| {
                list.lines().any(|line| {
                    let line = Path::new(line);
                    line == wanted || short.as_deref() == Some(line)
                })
            })
            .map(|(package, _)| package.as_str())
    }
}
