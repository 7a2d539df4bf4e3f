//! The difference of two trees: equal subtrees have equal checksums and are not looked into.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use apt_ostree::host::tree::task::CompareRequest;
use apt_ostree_actors::difference::describe;
use apt_ostree_proto::difference::TreeDifference;
use apt_ostree_proto::{CommitId, ErrorCode, Failure};
use ostree::glib::Variant;
use ostree::{ObjectType, Repo};

use super::repository::{self, failed};
use super::target::check_complete;

/// What differs between two commits, for people. `NotFound` when the repository has not all of one.
pub(crate) fn describe_difference(request: &CompareRequest) -> Result<TreeDifference, Failure> {
    let repo = repository::open()?;
    check_complete(&repo, &request.old)?;
    check_complete(&repo, &request.new)?;
    let found = compare(&repo, &request.old, &request.new)?;
    let old = found.replaced.into_iter().chain(found.directories_gone).collect();
    let new = found.written.into_iter().chain(found.directories_made).collect();
    let changed = found.directories_changed.into_iter().map(|(path, _)| path).collect();
    Ok(describe(old, new, changed))
}

/// What differs between two commits' trees. Paths have no leading `/`; the parts of directories that
/// are new or gone are named as well.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Files and links of the old tree that are changed or gone in the new one.
    pub(super) replaced: Vec<PathBuf>,
    /// Files and links that are new or changed.
    pub(super) written: Vec<PathBuf>,
    /// Directories that the new tree has not, each before what was in it.
    pub(super) directories_gone: Vec<PathBuf>,
    /// Directories that the old tree had not, each before what is in it.
    pub(super) directories_made: Vec<PathBuf>,
    /// Directories whose owner, mode or attributes changed, with the new metadata's checksum.
    pub(super) directories_changed: Vec<(PathBuf, String)>,
}

/// Compares the `usr` of two commits.
pub(super) fn compare(repo: &Repo, old: &CommitId, new: &CommitId) -> Result<Difference, Failure> {
    let compared = || -> Result<Difference, ostree::glib::Error> {
        let mut difference = Difference::default();
        let old = usr_of(repo, old)?;
        let new = usr_of(repo, new)?;
        difference.directories(repo, Path::new("usr"), old.as_ref(), new.as_ref())?;
        Ok(difference)
    };
    compared().map_err(|error| {
        failed(ErrorCode::CommitFailed, "the trees of two commits cannot be compared", &error)
    })
}

/// The checksums of a directory: its contents, and its owner, mode and attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) contents: String,
    pub(super) metadata: String,
}

/// What is in a directory, by name.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The checksums of files and links.
    pub(super) files: BTreeMap<String, String>,
    pub(super) directories: BTreeMap<String, Directory>,
}

impl Difference {
    /// Every path that is new, changed or gone, sorted.
    pub(super) fn changed(&self) -> Vec<PathBuf> {
        let files = self.replaced.iter().chain(&self.written);
        let directories = self.directories_gone.iter().chain(&self.directories_made);
        let changed = self.directories_changed.iter().map(|(path, _)| path);
        let all: BTreeSet<&PathBuf> = files.chain(directories).chain(changed).collect();
        all.into_iter().cloned().collect()
    }

    fn directories(
        &mut self,
        repo: &Repo,
        path: &Path,
        old: Option<&Directory>,
        new: Option<&Directory>,
    ) -> Result<(), ostree::glib::Error> {
        if old == new {
            return Ok(());
        }
        match (old, new) {
            (Some(_), None) => self.directories_gone.push(path.to_path_buf()),
            (None, Some(_)) => self.directories_made.push(path.to_path_buf()),
            (Some(old), Some(new)) if old.metadata != new.metadata => {
                self.directories_changed.push((path.to_path_buf(), new.metadata.clone()));
            }
            _ => {}
        }
        let old = Contents::load(repo, old)?;
        let new = Contents::load(repo, new)?;
        let differs = |name: &String| old.files.get(name) != new.files.get(name);
        let paths = |names: &BTreeMap<String, String>| -> Vec<PathBuf> {
            names.keys().filter(|name| differs(name)).map(|name| path.join(name)).collect()
        };
        self.replaced.extend(paths(&old.files));
        self.written.extend(paths(&new.files));
        for (name, directory) in &old.directories {
            let other = new.directories.get(name);
            self.directories(repo, &path.join(name), Some(directory), other)?;
        }
        for (name, directory) in &new.directories {
            if !old.directories.contains_key(name) {
                self.directories(repo, &path.join(name), None, Some(directory))?;
            }
        }
        Ok(())
    }
}

impl Contents {
    fn load(repo: &Repo, directory: Option<&Directory>) -> Result<Self, ostree::glib::Error> {
        match directory {
            Some(directory) => Self::of(repo, &directory.contents),
            None => Ok(Self::default()),
        }
    }

    pub(super) fn of(repo: &Repo, checksum: &str) -> Result<Self, ostree::glib::Error> {
        let tree = repo.load_variant(ObjectType::DirTree, checksum)?;
        // The dirtree format: (a(say)a(sayay)). Read in place: bytes taken one by one would cost
        // more than all else.
        let name = |entry: &Variant| entry.child_value(0).str().map(str::to_owned);
        let sum = |entry: &Variant, index| hex(entry.child_value(index).data());
        let files = tree.child_value(0);
        let directories = tree.child_value(1);
        Ok(Self {
            files: files.iter().filter_map(|file| Some((name(&file)?, sum(&file, 1)))).collect(),
            directories: directories
                .iter()
                .filter_map(|entry| {
                    let directory =
                        Directory { contents: sum(&entry, 1), metadata: sum(&entry, 2) };
                    Some((name(&entry)?, directory))
                })
                .collect(),
        })
    }
}

/// The `usr` of a commit.
pub(super) fn usr_of(
    repo: &Repo,
    commit: &CommitId,
) -> Result<Option<Directory>, ostree::glib::Error> {
    let (variant, _) = repo.load_commit(commit.as_str())?;
    // The commit format: (a{sv}aya(say)sstayay); the last but one is the root's contents.
    let root = hex(variant.child_value(6).data());
    Ok(Contents::of(repo, &root)?.directories.remove("usr"))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
