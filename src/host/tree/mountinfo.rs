//! `/proc/*/mountinfo`, as far as trees need it: `proc_pid_mountinfo(5)`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The file system's device, as `/proc/*/maps` shows it.
    pub device: u64,
    /// Which directory of the file system is mounted.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// The file system's type.
    pub file_system: String,
}

/// Reads the lines that make sense, in their order: later mounts cover earlier ones.
pub fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

/// The mount that shows `path`: the last one on the longest prefix.
pub fn holding<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())
}

fn parse_line(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    let mut fields = head.split(' ').skip(2);
    let (major, minor) = fields.next()?.split_once(':')?;
    let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    let file_system = tail.split(' ').next()?.to_owned();
    Some(Mount { device, root, point, file_system })
}

/// Space, tab, newline and backslash stand there as three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.filter(|_| first == b'\\');
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
23 1 8:1 /ostree/deploy/debian/deploy/ab.0 / rw,relatime shared:1 - ext4 /dev/root rw
24 23 8:1 / /sysroot ro - ext4 /dev/root rw
25 23 8:1 /ostree/deploy/debian/deploy/ab.0/usr /usr ro - ext4 /dev/root rw
26 25 8:1 /ostree/live/7/tree/usr /usr ro - ext4 /dev/root rw
27 23 0:30 / /mnt/a\\040b\\134c rw - tmpfs tmpfs rw
nonsense
";

    #[test]
    fn lines_are_read_with_their_escapes_and_nonsense_is_passed_over() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 5);
        assert_eq!(mounts[4].point, Path::new("/mnt/a b\\c"));
        assert_eq!(mounts[4].file_system, "tmpfs");
        assert_eq!(mounts[0].device, rustix::fs::makedev(8, 1));
    }

    #[test]
    fn the_topmost_mount_of_the_longest_prefix_holds_a_path() {
        let mounts = parse(TEXT);
        let root = |path: &str| holding(&mounts, Path::new(path)).unwrap().root.clone();
        assert_eq!(root("/usr/bin/sh"), Path::new("/ostree/live/7/tree/usr"));
        assert_eq!(root("/usrlocal"), Path::new("/ostree/deploy/debian/deploy/ab.0"));
        assert_eq!(root("/sysroot/ostree"), Path::new("/"));
    }
}
