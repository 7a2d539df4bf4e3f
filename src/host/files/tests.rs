//! Deltas on directories of a test's own: no privileges needed.

mod carry_over;
mod crashes;
mod merge;
mod reverse;
mod var;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use apt_ostree_actors::port::{Delta, DeltaSource};
use apt_ostree_proto::{Failure, TransactionId};
use rustix::fs::{CWD, FileType, Mode};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::root::Root;
use super::{FileTrees, Roots};

const FIRST: TransactionId = TransactionId(1);
const SECOND: TransactionId = TransactionId(2);

/// A host of directories. What a test writes below `etc` before [`Fixture::snapshot`] is the base;
/// what it writes with [`Fixture::stage`] is what packages changed.
struct Fixture {
    directory: TempDir,
    trees: FileTrees,
}

impl Fixture {
    fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    /// In memory, for tests that sync some ten thousand times.
    fn in_memory() -> Self {
        Self::within(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    fn within(directory: TempDir) -> Self {
        let at = |name: &str| directory.path().join(name);
        for name in ["etc", "var/lib", "var/log", "live", "deltas", "usr/etc", "info"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let trees = FileTrees::new(Roots {
            etc: at("etc"),
            var: at("var"),
            live: at("live"),
            var_deltas: at("deltas"),
            default_etc: at("usr/etc"),
            package_lists: at("info"),
        });
        Self { directory, trees }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path).unwrap();
        }
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn exists(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// Copies `/etc` for the transaction, as staging does, and makes empty upper directories.
    fn snapshot(&self, transaction: TransactionId) {
        let stage = self.path(&format!("live/{transaction}/stage"));
        fs::create_dir_all(stage.join("etc/upper")).unwrap();
        fs::create_dir_all(stage.join("var/upper")).unwrap();
        copy_tree(&self.path("etc"), &stage.join("etc/snapshot"));
    }

    fn upper(&self, transaction: TransactionId, path: &str) -> PathBuf {
        let (tree, rest) = path.split_once('/').unwrap();
        let upper = self.path(&format!("live/{transaction}/stage/{tree}/upper")).join(rest);
        let parent = upper.parent().unwrap();
        // As a copy-up does, with the directories' own modes.
        let base = self.path(&format!("live/{transaction}/stage/{tree}/upper"));
        let mut made = base.clone();
        for part in parent.strip_prefix(&base).unwrap() {
            made.push(part);
            if !made.exists() {
                fs::create_dir(&made).unwrap();
                let live = self.path(tree).join(made.strip_prefix(&base).unwrap());
                if let Ok(status) = fs::metadata(live) {
                    fs::set_permissions(&made, status.permissions()).unwrap();
                }
            }
        }
        upper
    }

    /// A file that the packages wrote.
    fn stage(&self, transaction: TransactionId, path: &str, text: &str) -> PathBuf {
        let upper = self.upper(transaction, path);
        fs::write(&upper, text).unwrap();
        upper
    }

    /// A file or directory that the packages removed.
    fn stage_removal(&self, transaction: TransactionId, path: &str) {
        whiteout(&self.upper(transaction, path));
    }

    fn prepare(&self, transaction: TransactionId, source: &DeltaSource) -> Result<Delta, Failure> {
        self.trees.prepare(source, transaction, &CancellationToken::new())
    }

    fn prepare_stage(&self, transaction: TransactionId) -> Delta {
        self.prepare(transaction, &DeltaSource::Stage).unwrap()
    }

    /// Everything in `/etc` and `/var`: type, mode, content, and a file's time.
    fn state(&self) -> BTreeMap<PathBuf, String> {
        let mut state = BTreeMap::new();
        for tree in ["etc", "var"] {
            describe(&self.path(tree), Path::new(tree), &mut state);
        }
        state.remove(Path::new("etc/.pwd.lock"));
        state
    }
}

fn describe(directory: &Path, name: &Path, state: &mut BTreeMap<PathBuf, String>) {
    let root = Root::open(directory).unwrap();
    for child in root.names(Path::new("")).unwrap() {
        let (path, name) = (directory.join(&child), name.join(&child));
        let identity = root.identify(Path::new(&child)).unwrap();
        let status = path.symlink_metadata().unwrap();
        let time = if status.is_file() { status.mtime_nsec() } else { 0 };
        state.insert(name.clone(), format!("{identity:?} {time}"));
        if status.is_dir() {
            describe(&path, &name, state);
        }
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_tree(&entry.path(), &target);
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A character device 0:0, which needs no privilege.
fn whiteout(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn paths(delta: &Delta) -> Vec<&str> {
    delta.entries.iter().map(|entry| entry.path.to_str().unwrap()).collect()
}
