//! The package manager's own logs: what dpkg and apt wrote in the staged root goes to the host's.

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};

use super::root::Root;
use super::slots;

/// The logs, within `/var`.
const LOGS: &[&str] = &["log/dpkg.log", "log/apt/history.log", "log/apt/term.log"];

/// The most that one transaction appends to a log, and the most that is searched for what an earlier try
/// has appended: some 50,000 lines, which is what dpkg writes about 5,000 packages. Of more, the newest
/// lines count.
const LARGEST_PART_BYTES: u64 = 4 << 20;
/// How much of two logs is compared at a time.
const COMPARED_BYTES: usize = 64 << 10;

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
    let Some(staged) = upper.entry(path)? else { return Ok(()) };
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Ok(());
    }
    let mut staged = staged.open(OFlags::RDONLY)?;
    // Without its directory there is nothing to log to.
    let Some(entry) = live.entry(path)? else { return Ok(()) };
    let new = match entry.open(OFlags::RDONLY) {
        Ok(mut present) => missing(&mut staged, &mut present)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            missing(&mut staged, &mut Cursor::new([]))?
        }
        Err(error) => return Err(error),
    };
    if new.is_empty() {
        return Ok(());
    }
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
    file.write_all(&new)?;
    file.sync_all()?;
    slots::sync_directory(live, &slots::parent(path))
}

/// What `staged` has and `present` has not. Both began as the same text; what was written to either
/// since follows it.
fn missing(
    staged: &mut (impl Read + Seek),
    present: &mut (impl Read + Seek),
) -> io::Result<Vec<u8>> {
    let shared = shared(staged, present)?;
    if shared.is_all_of_present {
        // Nobody else wrote, but for an earlier try that was cut short.
        return last_part(staged, shared.bytes);
    }
    // The shared text ends with a line; the same first letters of two different lines do not count.
    let new = last_part(staged, shared.lines_bytes)?;
    let since = last_part(present, shared.lines_bytes)?;
    let is_there = since.windows(new.len().max(1)).any(|window| window == new);
    Ok(if is_there { Vec::new() } else { new })
}

/// The text that two logs begin with.
#[derive(Debug, Default)]
struct Shared {
    bytes: u64,
    /// Of these, the whole lines.
    lines_bytes: u64,
    is_all_of_present: bool,
}

fn shared(staged: &mut impl Read, present: &mut impl Read) -> io::Result<Shared> {
    let mut shared = Shared::default();
    loop {
        let (ours, theirs) = (chunk(staged)?, chunk(present)?);
        let common = ours.iter().zip(&theirs).take_while(|(one, other)| one == other).count();
        if let Some(at) = ours[..common].iter().rposition(|byte| *byte == b'\n') {
            shared.lines_bytes = shared.bytes + at as u64 + 1;
        }
        shared.bytes += common as u64;
        if common < COMPARED_BYTES {
            shared.is_all_of_present = common == theirs.len();
            return Ok(shared);
        }
    }
}

/// The next bytes, fewer than [`COMPARED_BYTES`] only at the end.
fn chunk(log: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(COMPARED_BYTES);
    log.by_ref().take(COMPARED_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What follows the first `skipped` bytes: the last lines of it, where it is more than one transaction's.
fn last_part(log: &mut (impl Read + Seek), skipped: u64) -> io::Result<Vec<u8>> {
    let end = log.seek(SeekFrom::End(0))?;
    let start = skipped.max(end.saturating_sub(LARGEST_PART_BYTES));
    log.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    log.by_ref().take(LARGEST_PART_BYTES).read_to_end(&mut bytes)?;
    if start > skipped {
        let line = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        bytes.drain(..line);
    }
    Ok(bytes)
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
            let appended = missing_of(staged, present);
            assert_eq!(appended, expected.as_bytes(), "{staged:?} onto {present:?}");
        }
    }

    #[test]
    fn logs_longer_than_what_is_compared_at_a_time_are_told_apart_where_they_differ() {
        let line = "2026-01-01 00:00:00 status installed a:amd64 1\n";
        for lines in [COMPARED_BYTES / line.len(), COMPARED_BYTES / 4] {
            let old = line.repeat(lines);
            for (added, others) in [("new\n", ""), ("new\n", "other\n"), ("", ""), ("", "other\n")]
            {
                let (staged, present) = (format!("{old}{added}"), format!("{old}{others}"));
                assert_eq!(missing_of(&staged, &present), added.as_bytes(), "{lines} {others:?}");
            }
        }
        let exactly = "x".repeat(COMPARED_BYTES);
        assert!(missing_of(&format!("{exactly}y"), &exactly) == b"y");
        assert!(missing_of(&exactly, &format!("{exactly}y")).is_empty(), "it is there already");
    }

    #[test]
    fn of_more_than_one_transaction_writes_only_the_last_lines_are_appended() {
        // As after a rotation: the live log is a new one.
        let lines: String = (0..500_000).map(|number| format!("line {number}\n")).collect();
        for present in ["", "rotated\n"] {
            let appended = String::from_utf8(missing_of(&lines, present)).unwrap();
            assert!(appended.len() as u64 <= LARGEST_PART_BYTES);
            assert!(appended.len() as u64 > LARGEST_PART_BYTES - 100);
            assert!(appended.starts_with("line ") && appended.ends_with("line 499999\n"));
        }
    }

    fn missing_of(staged: &str, present: &str) -> Vec<u8> {
        missing(&mut Cursor::new(staged), &mut Cursor::new(present)).unwrap()
    }
}
