//! Whom the files below `/var` belong to.
//!
//! Users have their homes there: they mount what they like, rename what is being looked at, and nest
//! directories as deep as they like. What cannot be looked into fails nothing, and is told.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::mount::mountinfo;

/// How many directories below each other are looked into. Each is held open meanwhile, and a process
/// may have 1,024 files open.
const DEEPEST: usize = 256;
/// How long it may take: some ten million files.
const LONGEST_WALK: Duration = Duration::from_secs(60);
/// How much of a path is told.
const LONGEST_TOLD_PATH: usize = 200;
/// File systems that answer only as long as a user's process or another machine does.
const FOREIGN: &[&str] = &[
    "9p", "afs", "autofs", "beegfs", "ceph", "cifs", "gpfs", "lustre", "nfs", "nfs4", "orangefs",
    "smb3",
];

/// Whom files belong to.
#[derive(Debug, Default)]
pub(super) struct Owners {
    pub(super) users: BTreeSet<u32>,
    pub(super) groups: BTreeSet<u32>,
    /// A place that was not looked into, and why: nobody can tell whose files are there.
    pub(super) unseen: Option<String>,
}

/// What is left out of the look.
#[derive(Debug)]
pub(super) struct Except<'a> {
    /// What earlier transactions displaced is nobody's data: it comes back with its users or not at all.
    pub(super) deltas: &'a Path,
    /// What goes, below `/var`. What is in it counts all the same.
    pub(super) removed: &'a BTreeSet<PathBuf>,
}

/// The owners of everything below `var`, on whatever mount. Errors: that `var` cannot be opened, and
/// `Interrupted` when it is cancelled.
pub(super) fn below(
    var: &Path,
    except: &Except<'_>,
    cancel: &CancellationToken,
) -> io::Result<Owners> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = Dir::new(rustix::fs::openat(CWD, var, flags, Mode::empty())?)?;
    let walk = Walk {
        var,
        except,
        foreign: foreign_mounts(),
        until: Instant::now() + LONGEST_WALK,
        owners: Owners::default(),
    };
    walk.run(top, cancel)
}

struct Walk<'a> {
    var: &'a Path,
    except: &'a Except<'a>,
    foreign: BTreeSet<PathBuf>,
    until: Instant,
    owners: Owners,
}

impl Walk<'_> {
    fn run(mut self, top: Dir, cancel: &CancellationToken) -> io::Result<Owners> {
        let mut open = vec![top];
        // Of the directory that is read.
        let mut path = PathBuf::new();
        loop {
            let depth = open.len();
            let Some(directory) = open.last_mut() else { break };
            if cancel.is_cancelled() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if Instant::now() > self.until {
                self.miss(&path, &"it takes too long");
                break;
            }
            let entry = match directory.read() {
                Some(Ok(entry)) => entry,
                end => {
                    if let Some(Err(error)) = end {
                        self.miss(&path, &error);
                    }
                    open.pop();
                    path.pop();
                    continue;
                }
            };
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            path.push(OsStr::from_bytes(name));
            match self.look_at(directory, &path, depth) {
                Ok(Some(below)) => {
                    open.push(below);
                    continue;
                }
                Ok(None) | Err(Errno::NOENT) => {}
                Err(error) => self.miss(&path, &error),
            }
            path.pop();
        }
        Ok(self.owners)
    }

    /// Notes whose the entry is; answers a directory that is to be read, never through a link: its owner
    /// may rename it meanwhile. Services go on writing and removing.
    fn look_at(&mut self, parent: &Dir, path: &Path, depth: usize) -> Result<Option<Dir>, Errno> {
        let (parent, name) = (parent.fd()?, path.file_name().unwrap_or_default());
        let absolute = self.var.join(path);
        if absolute == self.except.deltas {
            return Ok(None);
        }
        if self.foreign.contains(&absolute) {
            self.miss(path, &"it is not this host's own file system");
            return Ok(None);
        }
        let status = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if !self.except.removed.contains(path) {
            self.owners.users.insert(status.st_uid);
            self.owners.groups.insert(status.st_gid);
        }
        if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
            return Ok(None);
        }
        if depth >= DEEPEST {
            self.miss(path, &"it is too deep");
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Ok(directory) => Dir::new(directory).map(Some),
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn miss(&mut self, path: &Path, why: &dyn Display) {
        if self.owners.unseen.is_none() {
            let place = self.var.join(path);
            let place: String = place.to_string_lossy().chars().take(LONGEST_TOLD_PATH).collect();
            tracing::warn!(?place, %why, "whose files are there is not known");
            self.owners.unseen = Some(format!("{place:?}: {why}"));
        }
    }
}

/// Where file systems are mounted that are not to be waited for.
fn foreign_mounts() -> BTreeSet<PathBuf> {
    // This thread may be in another namespace than the process.
    let text = std::fs::read("/proc/thread-self/mountinfo").unwrap_or_default();
    let mounts = mountinfo::parse(&text).unwrap_or_default().into_iter();
    let is_foreign = |kind: &str| kind.starts_with("fuse") || FOREIGN.contains(&kind);
    mounts.filter(|mount| is_foreign(&mount.file_system)).map(|mount| mount.mount_point).collect()
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    fn look(var: &Path, deltas: &Path) -> Owners {
        let removed = BTreeSet::new();
        below(var, &Except { deltas, removed: &removed }, &CancellationToken::new()).unwrap()
    }

    #[test]
    fn what_was_displaced_keeps_no_user() {
        let var = tempfile::tempdir().unwrap();
        let deltas = var.path().join("delta");
        std::fs::create_dir_all(deltas.join("1")).unwrap();
        std::fs::write(deltas.join("1/0"), "displaced").unwrap();
        assert_eq!(look(var.path(), &deltas).users.len(), 0);
        let owners = look(var.path(), Path::new("/elsewhere"));
        assert_eq!((owners.users.len(), owners.unseen), (1, None));
    }

    #[test]
    fn what_goes_keeps_no_user_but_what_is_in_it_does() {
        let var = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(var.path().join("a")).unwrap();
        let users = |removed: &[&str]| {
            let removed = removed.iter().map(PathBuf::from).collect();
            let except = Except { deltas: Path::new("/elsewhere"), removed: &removed };
            below(var.path(), &except, &CancellationToken::new()).unwrap().users.len()
        };
        assert_eq!(users(&["a"]), 0);
        std::fs::write(var.path().join("a/file"), "").unwrap();
        assert_eq!(users(&["a"]), 1);
    }

    #[test]
    fn directories_without_end_are_told_and_fail_nothing() {
        let var = tempfile::tempdir().unwrap();
        let mut directory = OwnedFd::from(std::fs::File::open(var.path()).unwrap());
        for _ in 0..DEEPEST + 50 {
            rustix::fs::mkdirat(&directory, "d", Mode::RWXU).unwrap();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            directory = rustix::fs::openat(&directory, "d", flags, Mode::empty()).unwrap();
        }
        std::os::unix::fs::symlink("/usr", var.path().join("link")).unwrap();
        let unseen = look(var.path(), Path::new("/elsewhere")).unseen.unwrap();
        assert!(unseen.ends_with("it is too deep"), "{unseen}");
    }

    #[test]
    fn a_look_is_cancelled() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let except = Except { deltas: Path::new("/elsewhere"), removed: &BTreeSet::new() };
        let error = below(Path::new("/usr"), &except, &cancel).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }
}
