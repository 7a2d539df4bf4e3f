//! Finds replaced files in `/proc/PID/maps`: `proc_pid_maps(5)`.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use apt_ostree_actors::port::ReplacedFile;
use rustix::fs::makedev;

/// How many arguments of a command line are looked at for the script that it runs: the interpreter,
/// a few options, the script.
const FIRST_ARGUMENTS: usize = 4;

/// The replaced files, ready to be looked up.
pub(super) struct Replaced<'a> {
    by_identity: HashMap<(u64, u64), &'a Path>,
    /// Files whose device a process's maps may show as another: btrfs has a device for each
    /// subvolume that only stat(2) knows, overlayfs shows its own for files of its layers. Inode and
    /// path together then tell the file.
    by_inode: HashMap<u64, Vec<&'a Path>>,
    by_path: HashMap<&'a [u8], &'a Path>,
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
            by_path: files
                .iter()
                .map(|file| (file.path.as_os_str().as_bytes(), file.path.as_path()))
                .collect(),
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
            let same_inode = self.by_inode.get(&mapping.inode)?;
            same_inode.iter().find(|known| known.as_os_str().as_bytes() == path).copied()
        };
        self.by_identity(mapping.device, mapping.inode).or_else(by_path)
    }

    /// The replaced script that a command line has an interpreter run: it is read once and mapped
    /// nowhere, but what runs is the old text.
    pub(super) fn in_script_arguments(&self, command_line: &[u8]) -> Option<&'a Path> {
        let mut arguments = command_line.split(|byte| *byte == 0);
        let program = arguments.next()?;
        let name = program.rsplit(|byte| *byte == b'/').next()?;
        let is_interpreter = [&b"python"[..], b"perl", b"ruby", b"node", b"bash", b"dash", b"sh"]
            .iter()
            .any(|interpreter| name.starts_with(interpreter));
        if !is_interpreter {
            return None;
        }
        arguments.take(FIRST_ARGUMENTS).find_map(|argument| self.by_path.get(argument).copied())
    }
}

/// One line about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping<'a> {
    device: u64,
    inode: u64,
    path: &'a [u8],
}

impl<'a> Mapping<'a> {
    /// Reads `55d0-55d2 r-xp 00002000 fd:01 1234  /usr/bin/x`. None for mappings of no file.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(6, |byte| *byte == b' ').skip(3);
        let device = fields.next()?;
        let inode = decimal(fields.next()?)?;
        if inode == 0 {
            return None;
        }
        let colon = device.iter().position(|byte| *byte == b':')?;
        let (major, minor) = (hexadecimal(&device[..colon])?, hexadecimal(&device[colon + 1..])?);
        Some(Self {
            device: makedev(major, minor),
            inode,
            path: fields.next().unwrap_or_default().trim_ascii_start(),
        })
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
            ReplacedFile { path: "/usr/bin/fail2ban-server".into(), device: 1, inode: 79 },
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
    fn a_file_with_several_mappings_is_found_once() {
        let files = files();
        let maps = "1-2 r--p 0 fd:01 78 /usr/sbin/nginx\n2-3 r-xp 0 fd:01 78 /usr/sbin/nginx\n";
        assert_eq!(Replaced::new(&files).in_maps(maps.as_bytes()).len(), 1);
    }

    #[test]
    fn a_script_is_found_behind_its_interpreter_only() {
        let files = files();
        let replaced = Replaced::new(&files);
        for (command_line, is_found) in [
            (&b"/usr/bin/python3\0/usr/bin/fail2ban-server\0-xf\0start\0"[..], true),
            (b"python3.11\0-u\0/usr/bin/fail2ban-server\0", true),
            (b"/usr/bin/vi\0/usr/bin/fail2ban-server\0", false),
            (b"/usr/bin/python3\0/usr/bin/other\0", false),
            (b"", false),
        ] {
            assert_eq!(replaced.in_script_arguments(command_line).is_some(), is_found);
        }
    }
}
