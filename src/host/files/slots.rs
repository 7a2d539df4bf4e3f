//! A transaction's staging area for one tree: a directory on the same mount, with one slot an entry.
//! Before an entry is applied its slot holds the new file, afterwards the one that was there.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use apt_ostree_actors::port::FileIdentity;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::attributes;
use super::disk;
use super::root::{Entry, Root};

/// Says that something was applied from this area: it must not be made anew any more.
const BEGUN: &str = "begun";

/// The copies of a user database: as it was, as it is to be, and the one that is made of them.
pub(super) const BEFORE: &str = "before";
pub(super) const AFTER: &str = "after";
pub(super) const MERGED: &str = "merged";

/// The name of an entry's slot.
pub(super) fn slot(index: usize) -> PathBuf {
    PathBuf::from(index.to_string())
}

/// The name of a copy of a user database.
pub(super) fn copy(index: usize, which: &str) -> PathBuf {
    PathBuf::from(format!("{index}.{which}"))
}

/// Removes a staging area unless something was applied from it: then it holds the only copy of what
/// was there.
pub(super) fn clear(path: &Path) -> io::Result<()> {
    if path.join(BEGUN).try_exists()? {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "files of this transaction were applied already",
        ));
    }
    remove(path)
}

/// Makes an empty staging area at `path`, under the same condition.
pub(super) fn make(path: &Path) -> io::Result<Root> {
    clear(path)?;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(path)?;
    Root::open(path)
}

/// Removes a staging area with all that is in it.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Marks the area as applied from, durably.
pub(super) fn mark_begun(slots: &Root) -> io::Result<()> {
    disk::crash_point()?;
    let entry = entry(slots, Path::new(BEGUN))?;
    drop(create(&entry, 0o600)?);
    sync_directory(slots, Path::new(""))
}

/// Copies `path` of `source` into a slot, with owner, mode, attributes and times. Durable only after
/// [`sync_all`].
pub(super) fn fill(
    slots: &Root,
    name: &Path,
    source: &Root,
    path: &Path,
    wanted: &FileIdentity,
) -> io::Result<()> {
    let from = entry(source, path)?;
    let to = entry(slots, name)?;
    let status = from.status()?.ok_or(io::ErrorKind::NotFound)?;
    let (uid, gid) = (Uid::from_raw(wanted.uid), Gid::from_raw(wanted.gid));
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => {
            let mut source = from.open(OFlags::RDONLY)?;
            let mut target = create(&to, 0o600)?;
            io::copy(&mut source, &mut target)?;
            dress(&source, &target, wanted)?;
        }
        FileType::Directory => {
            rustix::fs::mkdirat(&to.directory, &to.name, Mode::RWXU)?;
            let source = from.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
            let target = to.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
            dress(&source, &target, wanted)?;
        }
        FileType::Symlink => {
            rustix::fs::symlinkat(from.read_link()?, &to.directory, &to.name)?;
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&to.directory, &to.name, Some(uid), Some(gid), flags)?;
        }
        _ => return Err(io::Error::other("it is neither a file nor a directory nor a link")),
    }
    let times = times(&status);
    rustix::fs::utimensat(&to.directory, &to.name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    if to.identify()?.as_ref() == Some(wanted) {
        Ok(())
    } else {
        Err(io::Error::other("it changed while it was copied"))
    }
}

/// Writes a file with these bytes, dressed like `like`; durable only after a sync. What is there
/// under that name is replaced.
pub(super) fn write(slots: &Root, name: &Path, bytes: &[u8], like: &File) -> io::Result<Entry> {
    let to = entry(slots, name)?;
    disk::crash_point()?;
    match rustix::fs::unlinkat(&to.directory, &to.name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    disk::crash_point()?;
    let mut target = create(&to, 0o600)?;
    target.write_all(bytes)?;
    let status = rustix::fs::fstat(like)?;
    rustix::fs::fchown(
        &target,
        Some(Uid::from_raw(status.st_uid)),
        Some(Gid::from_raw(status.st_gid)),
    )?;
    rustix::fs::fchmod(&target, Mode::from_raw_mode(status.st_mode & 0o7777))?;
    attributes::copy(like.as_fd(), target.as_fd())?;
    Ok(to)
}

/// Makes everything in a staging area durable: in one call, for syncing fifty files one by one takes
/// fifty flushes of the disk. Little else is dirty: the commit has synced the same file system.
pub(super) fn sync_all(slots: &Root) -> io::Result<()> {
    let directory = slots.directory(Path::new(""))?.ok_or(io::ErrorKind::NotFound)?;
    rustix::fs::syncfs(&directory)?;
    Ok(())
}

/// Gives a file the times of another.
pub(super) fn take_times(to: &Entry, from: &Entry) -> io::Result<()> {
    let status = from.status()?.ok_or(io::ErrorKind::NotFound)?;
    rustix::fs::utimensat(&to.directory, &to.name, &times(&status), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(root: &Root, path: &Path) -> io::Result<()> {
    match root.directory(path)? {
        Some(directory) => disk::sync(directory),
        // It went with what was in it.
        None => Ok(()),
    }
}

/// The entry at `path`, whose directory has to be there.
pub(super) fn entry(root: &Root, path: &Path) -> io::Result<Entry> {
    root.entry(path)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn create(entry: &Entry, mode: u32) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&entry.directory, &entry.name, flags, Mode::from_raw_mode(mode))?;
    Ok(File::from(file))
}

/// Owner first, then mode: a change of owner takes set-id bits away. Attributes last: an ACL shows in
/// the mode.
fn dress(source: &File, target: &File, wanted: &FileIdentity) -> io::Result<()> {
    rustix::fs::fchown(target, Some(Uid::from_raw(wanted.uid)), Some(Gid::from_raw(wanted.gid)))?;
    rustix::fs::fchmod(target, Mode::from_raw_mode(wanted.mode & 0o7777))?;
    attributes::copy(source.as_fd(), target.as_fd())
}

fn times(status: &rustix::fs::Stat) -> Timestamps {
    let stamp = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: stamp(status.st_atime, status.st_atime_nsec),
        last_modification: stamp(status.st_mtime, status.st_mtime_nsec),
    }
}

/// The directory of a path within a tree.
pub(super) fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}
