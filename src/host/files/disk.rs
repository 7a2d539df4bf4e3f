//! The calls that change the disk, each of which may be the last one before a crash.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::RenameFlags;

use super::root::Entry;

/// Swaps two entries in one step: `RENAME_EXCHANGE` of renameat2(2).
pub(super) fn exchange(one: &Entry, other: &Entry) -> io::Result<()> {
    rename(one, other, RenameFlags::EXCHANGE)
}

/// Moves an entry to a place where nothing is: `RENAME_NOREPLACE` of renameat2(2).
pub(super) fn move_away(from: &Entry, to: &Entry) -> io::Result<()> {
    rename(from, to, RenameFlags::NOREPLACE)
}

fn rename(from: &Entry, to: &Entry, flags: RenameFlags) -> io::Result<()> {
    crash_point()?;
    rustix::fs::renameat_with(&from.directory, &from.name, &to.directory, &to.name, flags)?;
    Ok(())
}

/// Makes what was done to a file or a directory durable.
pub(super) fn sync(file: impl AsFd) -> io::Result<()> {
    crash_point()?;
    rustix::fs::fsync(file)?;
    Ok(())
}

/// Sets the owner and the permission bits of an open directory.
pub(super) fn set_owner_and_mode(
    directory: BorrowedFd<'_>,
    uid: u32,
    gid: u32,
    mode: u32,
) -> io::Result<()> {
    use rustix::fs::{Gid, Mode, Uid};
    crash_point()?;
    rustix::fs::fchown(directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    crash_point()?;
    rustix::fs::fchmod(directory, Mode::from_raw_mode(mode & 0o7777))?;
    Ok(())
}

/// Where a test may let the process "die": nothing after the point happens.
#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "in tests it fails")]
pub(super) fn crash_point() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) use faults::crash_point;

/// Simulated crashes, of one thread: a test counts the points first and then dies at each.
#[cfg(test)]
pub(super) mod faults {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
        static PASSED: Cell<u32> = const { Cell::new(0) };
    }

    pub(in crate::host::files) fn crash_point() -> io::Result<()> {
        PASSED.with(|passed| passed.set(passed.get() + 1));
        LEFT.with(|left| match left.get() {
            Some(0) => Err(io::Error::other("simulated crash")),
            Some(count) => {
                left.set(Some(count - 1));
                Ok(())
            }
            None => Ok(()),
        })
    }

    /// Dies at the point number `count`, from 0, and at every later one.
    pub(in crate::host::files) fn crash_at(count: u32) {
        LEFT.with(|left| left.set(Some(count)));
    }

    /// No more crashes; answers how many points were passed since the last call.
    pub(in crate::host::files) fn calm() -> u32 {
        LEFT.with(|left| left.set(None));
        PASSED.with(|passed| passed.replace(0))
    }
}
