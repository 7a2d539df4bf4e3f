//! Reads `/proc/PID/mountinfo`: proc(5), section 3.5 of the kernel's `filesystems/proc.rst`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One line of a mountinfo file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// The mount's id, unique among the mounts that exist.
    pub id: u64,
    /// The id of the mount that it is mounted on.
    pub parent: u64,
    /// The device number, put together as `st_dev` has it.
    pub device: u64,
    /// The directory of the file system that is the mount's root.
    pub root: PathBuf,
    /// Where it is mounted, relative to the reading process' root.
    pub mount_point: PathBuf,
    /// Whether the mount itself is read-only, whatever its file system is.
    pub read_only: bool,
    /// The peer group of a shared mount: what is mounted on one of a group shows on all.
    pub peer_group: Option<u64>,
    /// The peer group that it gets mounts and unmounts from, and gives it none.
    pub master: Option<u64>,
    /// The file system's type.
    pub file_system: String,
    /// The file system's own word for where it comes from.
    pub source: String,
    /// The super block's options.
    pub super_options: String,
}

/// Reads a whole file. The error is the first line that is not one of mountinfo's, cut short.
pub fn parse(text: &[u8]) -> Result<Vec<MountInfo>, String> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            parse_line(line).ok_or_else(|| {
                String::from_utf8_lossy(&line[..line.len().min(LONGEST_QUOTE)]).into_owned()
            })
        })
        .collect()
}

/// How much of a malformed line an error quotes.
const LONGEST_QUOTE: usize = 80;

fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    let (major, minor) = text(fields[2])?.split_once(':')?;
    let group = |kind: &[u8]| {
        fields[6..dash].iter().find_map(|field| field.strip_prefix(kind)).and_then(number)
    };
    Some(MountInfo {
        id: number(fields[0])?,
        parent: number(fields[1])?,
        device: device_number(major.parse().ok()?, minor.parse().ok()?),
        root: PathBuf::from(OsString::from_vec(unescape(fields[3]))),
        mount_point: PathBuf::from(OsString::from_vec(unescape(fields[4]))),
        read_only: fields[5].split(|byte| *byte == b',').any(|option| option == b"ro"),
        peer_group: group(b"shared:"),
        master: group(b"master:"),
        file_system: lossy(fields.get(dash + 1)?),
        source: lossy(fields.get(dash + 2)?),
        super_options: fields.get(dash + 3).map(|field| lossy(field)).unwrap_or_default(),
    })
}

fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

fn number(field: &[u8]) -> Option<u64> {
    text(field)?.parse().ok()
}

fn lossy(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// The user space encoding of a device number, as `stat` gives it: `makedev(3)` of glibc.
fn device_number(major: u64, minor: u64) -> u64 {
    ((major & 0xffff_f000) << 32)
        | ((major & 0xfff) << 8)
        | ((minor & 0xffff_ff00) << 12)
        | (minor & 0xff)
}

/// Space, tab, newline, backslash and `#` stand as a backslash and three octal digits. Anything else
/// behind a backslash is left as it is.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        if let (b'\\', Some(value)) = (byte, tail.get(..3).and_then(octal)) {
            bytes.push(value);
            rest = &tail[3..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    bytes
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value.checked_mul(8)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_line_is_read_with_any_number_of_optional_fields() {
        for optional in
            ["", "shared:1 ", "shared:1 master:2 ", "master:2 propagate_from:1 unbindable "]
        {
            let line = format!(
                "36 35 98:0 /mnt1 /mnt2 rw,noatime {optional}- ext3 /dev/root rw,errors=continue\n"
            );
            let mounts = parse(line.as_bytes()).unwrap();
            assert_eq!(mounts.len(), 1, "{line}");
            assert_eq!((mounts[0].id, mounts[0].parent), (36, 35));
            assert_eq!(mounts[0].device, 98 << 8);
            assert_eq!(mounts[0].root, Path::new("/mnt1"));
            assert_eq!(mounts[0].mount_point, Path::new("/mnt2"));
            assert_eq!(mounts[0].file_system, "ext3");
            assert_eq!(mounts[0].super_options, "rw,errors=continue");
            assert_eq!(mounts[0].peer_group, optional.starts_with("shared:").then_some(1));
            assert!(!mounts[0].read_only);
        }
        let mounts = parse(b"1 0 8:1 / /usr nosuid,ro,relatime - ext4 d rw").unwrap();
        assert!(mounts[0].read_only && mounts[0].peer_group.is_none());
    }

    #[test]
    fn octal_escapes_are_taken_back_and_nothing_else_is() {
        for (escaped, plain) in [
            ("/a\\040b", "/a b"),
            ("/a\\011b", "/a\tb"),
            ("/a\\012b", "/a\nb"),
            ("/a\\134b", "/a\\b"),
            ("/a\\043b", "/a#b"),
            ("/a\\134040", "/a\\040"),
            ("/a\\9zz", "/a\\9zz"),
            ("/a\\04", "/a\\04"),
            ("/a\\777", "/a\\777"),
            ("/\u{e4}", "/\u{e4}"),
        ] {
            let line = format!("1 0 8:1 / {escaped} rw - ext4 /dev/sda rw");
            assert_eq!(
                parse(line.as_bytes()).unwrap()[0].mount_point,
                Path::new(plain),
                "{escaped}"
            );
        }
    }

    #[test]
    fn a_mount_without_source_text_or_super_options_is_read() {
        let mounts = parse(b"1 0 0:5 / /x rw - tmpfs  rw\n2 0 0:5 / /y rw - tmpfs none").unwrap();
        assert_eq!(mounts[0].source, "");
        assert_eq!(mounts[1].super_options, "");
    }

    #[test]
    fn device_numbers_are_put_together_as_stat_has_them() {
        assert_eq!(device_number(8, 1), 0x801);
        assert_eq!(device_number(0, 300), 0x10_002c);
        assert_eq!(device_number(259, 0x12345), 0x1231_0345);
    }

    #[test]
    fn a_malformed_line_is_quoted_and_cut() {
        for bad in ["x", "1 2 3:4 / /", "1 2 34 / / rw - a b c", "1 2 3:4 / / rw shared:1 a b c"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(parse("y".repeat(10_000).as_bytes()).unwrap_err().len(), LONGEST_QUOTE);
    }
}
