//! The package manager's own logs: what dpkg and apt wrote in the staged root goes to the host's.

use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid};

use super::root::Root;
use super::slots;

/// The logs, within `/var`.
const LOGS: &[&str] = &["log/dpkg.log", "log/apt/history.log", "log/apt/term.log"];

/// Appends to each log of `live` what its copy in `upper` has more. Answers the first error after all
/// logs were tried, with the log's path.
pub(super) fn append(upper: &Root, live: &Root) -> Result<(), (&'static Path, io::Error)> {
    let mut first = None;
    for log in LOGS {
        let path = Path::new(log);
        if let Err(error) = append_one(upper, live, path) {
            first.get_or_insert((path, error));
        }
    }
    first.map_or(Ok(()), Err)
}

fn append_one(upper: &Root, live: &Root, path: &Path) -> io::Result<()> {
    let Some(status) = upper.status(path)? else { return Ok(()) };
    let staged = upper.read(path)?;
    let present = live.read(path)?;
    let new = missing(&staged, &present);
    if new.is_empty() {
        return Ok(());
    }
    // Without its directory there is nothing to log to.
    let Some(entry) = live.entry(path)? else { return Ok(()) };
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(status.st_mode & 0o777);
    let mut file = match entry.open(flags) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let flags = flags | OFlags::CREATE | OFlags::EXCL;
            let file = rustix::fs::openat(&entry.directory, &entry.name, flags, mode)?;
            let (uid, gid) = (Uid::from_raw(status.st_uid), Gid::from_raw(status.st_gid));
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
            rustix::fs::fchmod(&file, mode)?;
            file.into()
        }
        other => other?,
    };
    file.write_all(new)?;
    file.sync_all()?;
    slots::sync_directory(live, &slots::parent(path))
}

/// What `staged` has and `present` has not. Both began as the same text; what was written to either
/// since follows it.
fn missing<'a>(staged: &'a [u8], present: &[u8]) -> &'a [u8] {
    let common = staged.iter().zip(present).take_while(|(one, other)| one == other).count();
    if common == present.len() {
        // Nobody else wrote, but for an earlier try that was cut short.
        return &staged[common..];
    }
    // The shared text ends with a line; the same first letters of two different lines do not count.
    let shared = staged[..common].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let new = &staged[shared..];
    if present[shared..].windows(new.len().max(1)).any(|window| window == new) { &[] } else { new }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_yet_is_appended() {
        for (staged, present, expected) in [
            ("a\nb\n", "", "a\nb\n"),
            ("a\nb\n", "a\n", "b\n"),
            ("a\nb\n", "a\nb\n", ""),
            ("a\nbcd\n", "a\nbc", "d\n"),
            ("a\nbcd\n", "a\nbxx\n", "bcd\n"),
            ("a\nbcd\n", "a\nbxx\nbcd\n", ""),
            ("a\nbcd\n", "a\nbxx\nbcd\nlater\n", ""),
            ("", "a\n", ""),
        ] {
            let appended = missing(staged.as_bytes(), present.as_bytes());
            assert_eq!(appended, expected.as_bytes(), "{staged:?} onto {present:?}");
        }
    }
}
