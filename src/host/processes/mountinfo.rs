//! Reads `/proc/PID/mountinfo`: `proc_pid_mountinfo(5)`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The mount points strictly below `/usr`.
pub(super) fn below_usr(mountinfo: &[u8]) -> impl Iterator<Item = PathBuf> {
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .filter(|mount_point| mount_point.starts_with(b"/usr/"))
        .map(|mount_point| PathBuf::from(OsString::from_vec(unescape(mount_point))))
}

/// Undoes the kernel's `\040` for blanks, tabs, newlines and backslashes.
pub(super) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'\\').then(|| after.get(..3).and_then(octal)).flatten();
        if let Some(byte) = escaped {
            plain.push(byte);
            rest = &after[3..];
        } else {
            plain.push(first);
            rest = after;
        }
    }
    plain
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_usr_count() {
        let text = b"21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
            22 21 8:1 /x /usr ro - ext4 /dev/sda1 rw\n\
            23 22 0:5 / /usr/lib/modules rw - tmpfs tmpfs rw\n\
            24 22 0:5 / /usr/my\\040dir\\134x rw - tmpfs tmpfs rw\n\
            25 21 0:5 / /usrlocal rw - tmpfs tmpfs rw\n\
            short line\n";
        let found: Vec<_> = below_usr(text).collect();
        assert_eq!(found, [PathBuf::from("/usr/lib/modules"), PathBuf::from("/usr/my dir\\x")]);
    }

    #[test]
    fn a_broken_escape_stays_as_it_is() {
        assert_eq!(unescape(b"a\\"), b"a\\");
        assert_eq!(unescape(b"a\\09"), b"a\\09");
        assert_eq!(unescape(b"a\\777"), b"a\\777");
    }
}
