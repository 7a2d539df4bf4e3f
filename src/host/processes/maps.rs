//! Finds replaced files in `/proc/PID/maps`: `proc_pid_maps(5)`.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use apt_ostree_actors::port::ReplacedFile;
use rustix::fs::makedev;

use super::Process;
use super::interpreters::Resolved;

/// The replaced files, ready to be looked up.
pub(super) struct Replaced<'a> {
    by_identity: HashMap<(u64, u64), &'a Path>,
    /// Files whose device a process's maps may show as another: btrfs has a device for each
    /// subvolume that only stat(2) knows, overlayfs shows its own for files of its layers. Inode and
    /// path together then tell the file.
    by_inode: HashMap<u64, Vec<&'a Path>>,
}

impl<'a> Replaced<'a> {
    pub(super) fn new(files: &'a [ReplacedFile]) -> Self {
        let mut by_inode: HashMap<u64, Vec<&Path>> = HashMap::with_capacity(files.len());
        for file in files {
            by_inode.entry(file.inode).or_default().push(&file.path);
        }
        Self {
            by_identity: files
                .iter()
                .map(|file| ((file.device, file.inode), file.path.as_path()))
                .collect(),
            by_inode,
        }
    }

    /// The file with that device and inode.
    pub(super) fn by_identity(&self, device: u64, inode: u64) -> Option<&'a Path> {
        self.by_identity.get(&(device, inode)).copied()
    }

    /// The replaced files that are mapped. A file has several lines in a row: each is looked up once.
    pub(super) fn in_maps(&self, maps: &[u8]) -> Vec<&'a Path> {
        let mut found = Vec::new();
        let mut last = (0, 0);
        for line in maps.split(|byte| *byte == b'\n') {
            let Some(mapping) = Mapping::parse(line) else { continue };
            let identity = (mapping.device, mapping.inode);
            if identity == last {
                continue;
            }
            last = identity;
            found.extend(self.find(&mapping));
        }
        found
    }

    fn find(&self, mapping: &Mapping<'_>) -> Option<&'a Path> {
        let by_path = || {
            let path = mapping.path.strip_suffix(b" (deleted)").unwrap_or(mapping.path);
            self.by_inode_and_path(mapping.inode, path)
        };
        self.by_identity(mapping.device, mapping.inode).or_else(by_path)
    }

    fn by_inode_and_path(&self, inode: u64, path: &[u8]) -> Option<&'a Path> {
        let same_inode = self.by_inode.get(&inode)?;
        same_inode.iter().find(|known| known.as_os_str().as_bytes() == path).copied()
    }

    /// The replaced file that an interpreter has read.
    pub(super) fn file(&self, read: &Resolved) -> Option<&'a Path> {
        let by_path = || self.by_inode_and_path(read.inode, read.path.as_os_str().as_bytes());
        self.by_identity(read.device, read.inode).or_else(by_path)
    }

    /// The replaced archives that a process has open.
    pub(super) fn open_in(&self, process: &Process) -> Vec<&'a Path> {
        let archives = process.open_archives().into_iter();
        archives
            .filter_map(|(name, _)| {
                let file = std::fs::metadata(process.directory.join("fd").join(name)).ok()?;
                self.by_identity(file.dev(), file.ino())
            })
            .collect()
    }
}

/// A mapping's range of addresses as the links of `/proc/PID/map_files` have it: without the zeros
/// that `maps` has before short ones.
pub(super) fn plain_range(range: &[u8]) -> Vec<u8> {
    let plain = |address: &[u8]| {
        let zeros = address.iter().take_while(|byte| **byte == b'0').count();
        address[zeros.min(address.len().saturating_sub(1))..].to_vec()
    };
    let parts: Vec<Vec<u8>> = range.split(|byte| *byte == b'-').map(plain).collect();
    parts.join(&b'-')
}

/// One line about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping<'a> {
    /// The addresses, `START-END`.
    pub(super) range: &'a [u8],
    is_executable: bool,
    pub(super) device: u64,
    pub(super) inode: u64,
    /// As the kernel writes it, ` (deleted)` included.
    pub(super) path: &'a [u8],
}

impl<'a> Mapping<'a> {
    /// Reads `55d0-55d2 r-xp 00002000 fd:01 1234  /usr/bin/x`. None for mappings of no file.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let (range, permissions) = (fields.next()?, fields.next()?);
        let mut fields = fields.skip(1);
        let device = fields.next()?;
        let inode = decimal(fields.next()?)?;
        if inode == 0 {
            return None;
        }
        let colon = device.iter().position(|byte| *byte == b':')?;
        let (major, minor) = (hexadecimal(&device[..colon])?, hexadecimal(&device[colon + 1..])?);
        Some(Self {
            range,
            is_executable: permissions.contains(&b'x'),
            device: makedev(major, minor),
            inode,
            path: fields.next().unwrap_or_default().trim_ascii_start(),
        })
    }

    /// Whether what is mapped is code: to be executed, or Java's, which is not. Data that programs map
    /// (locales, caches of icons, databases) is as often written anew as it is replaced.
    pub(super) fn is_code(&self) -> bool {
        let path = self.path.strip_suffix(b" (deleted)").unwrap_or(self.path);
        self.is_executable
            || path.ends_with(b".jar")
            || path.ends_with(b".jsa")
            || (path.ends_with(b"/lib/modules") && path.starts_with(b"/usr/lib/jvm/"))
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<ReplacedFile> {
        vec![
            ReplacedFile {
                path: "/usr/lib/x86_64-linux-gnu/libssl.so.3".into(),
                device: makedev(0xfd, 1),
                inode: 77,
            },
            ReplacedFile { path: "/usr/sbin/nginx".into(), device: makedev(0xfd, 1), inode: 78 },
        ]
    }

    #[test]
    fn lines_of_maps_are_found_by_device_and_inode_or_by_inode_and_path() {
        let files = files();
        let replaced = Replaced::new(&files);
        let ssl = Some("/usr/lib/x86_64-linux-gnu/libssl.so.3");
        for (line, expected) in [
            ("7f00-7f01 r-xp 00002000 fd:01 77    /usr/lib/x86_64-linux-gnu/libssl.so.3", ssl),
            ("7f00-7f01 r-xp 00002000 fd:01 77    /usr/lib/elsewhere (deleted)", ssl),
            // Another device: the path decides.
            ("7f00-7f01 r-xp 00002000 00:2f 77    /usr/lib/x86_64-linux-gnu/libssl.so.3", ssl),
            ("7f00-7f01 r-xp 0 00:2f 77    /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)", ssl),
            ("7f00-7f01 r-xp 00002000 00:2f 77    /opt/libssl.so.3", None),
            ("7f00-7f01 r-xp 00002000 fd:01 99    /usr/lib/x86_64-linux-gnu/libssl.so.3", None),
            ("7f00-7f01 rw-p 00000000 00:00 0     [heap]", None),
            ("7f00-7f01 rw-p 00000000 00:00 0", None),
            ("7f00-7f01 rw-p", None),
            ("garbage", None),
            ("", None),
        ] {
            let found = replaced.in_maps(line.as_bytes());
            assert_eq!(found.first().map(|path| path.to_str().unwrap()), expected, "{line}");
        }
    }

    #[test]
    fn code_is_what_is_executed_and_what_java_maps() {
        for (line, is_code) in [
            ("7f00-7f01 r-xp 00002000 fd:01 77    /usr/lib/libssl.so.3", true),
            ("7f00-7f01 r--p 00002000 fd:01 77    /usr/lib/libssl.so.3", false),
            ("7f00-7f01 r--p 00000000 fd:01 78    /usr/lib/locale/locale-archive", false),
            ("7f00-7f01 r--s 00000000 fd:01 79    /usr/share/java/a.jar", true),
            ("7f00-7f01 r--s 00000000 fd:01 79    /usr/share/java/a.jar (deleted)", true),
            ("7f00-7f01 r--s 00000000 fd:01 80    /usr/lib/jvm/java-17/lib/modules", true),
            ("7f00-7f01 r--s 00000000 fd:01 80    /usr/lib/modules", false),
        ] {
            let mapping = Mapping::parse(line.as_bytes()).unwrap();
            assert_eq!(mapping.is_code(), is_code, "{line}");
        }
    }

    #[test]
    fn a_mappings_link_has_its_addresses_without_leading_zeros() {
        for (range, link) in [
            (&b"00400000-0040b000"[..], &b"400000-40b000"[..]),
            (b"7f00-7f01", b"7f00-7f01"),
            (b"00000000-00001000", b"0-1000"),
            (b"", b""),
        ] {
            assert_eq!(plain_range(range), link);
        }
    }

    #[test]
    fn a_file_with_several_mappings_is_found_once() {
        let files = files();
        let maps = "1-2 r--p 0 fd:01 78 /usr/sbin/nginx\n2-3 r-xp 0 fd:01 78 /usr/sbin/nginx\n";
        assert_eq!(Replaced::new(&files).in_maps(maps.as_bytes()).len(), 1);
    }
}
