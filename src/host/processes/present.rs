//! Whether a file that a process has mapped is the one that the present tree has at its path.
//!
//! A path in `/proc/PID/maps` is that of the directory entry that the file was opened through, in
//! whatever mount showed it then. Four things may have become of it since:
//! - Its entry is gone: the kernel appends ` (deleted)`. So it is after dpkg has put a new file in
//!   its place.
//! - Another tree is mounted over it: the path still names a file, but another one. So it is after
//!   an update.
//! - That mount itself is gone: the path begins at the mount's root, `/lib/x` for `/usr/lib/x`. So
//!   it is once the covered tree was taken off.
//! - Nothing.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Host, Process, maps, mountinfo};

/// Where no file is part of an installed program: files that a process made for itself, memory with
/// a name, devices.
const NOT_INSTALLED: &[&str] = &["/dev", "/proc", "/run", "/sys", "/tmp", "/var/tmp", "/var/run"];

/// How many bytes of paths are known at a time, each with what was found of it: those of all files that
/// the programs of a host map, many times over. What does not fit is looked at as often as it is met.
const MOST_KNOWN_BYTES: usize = 32 << 20;
/// What a path takes besides its bytes.
const PATH_BYTES: usize = 256;

/// Where what is installed is the system's, whoever owns the directories.
const SYSTEMS_OWN: &[&str] = &["/usr", "/opt", "/var/opt", "/var/usrlocal"];

/// What the kernel appends to the path of a file whose directory entry is gone.
const DELETED: &[u8] = b" (deleted)";

/// What of the files a process sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// The host's.
    Host,
    /// The host's root, with mounts of its own; the mount namespace's number.
    OwnMounts(u64),
    /// Another root directory: how the kernel calls it, and its device and inode.
    OtherRoot(PathBuf, (u64, u64)),
}

impl View {
    /// What tells the verdicts about files of one view from those of another.
    fn key(&self) -> (u64, u64) {
        match self {
            Self::Host => (0, 0),
            Self::OwnMounts(namespace) => (0, *namespace),
            Self::OtherRoot(_, root) => *root,
        }
    }
}

/// A file that a process maps or executes, as `/proc` names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// As the kernel writes it, escapes and ` (deleted)` included.
    pub(super) path: &'a [u8],
    /// The link below the process's directory that leads to the very file.
    pub(super) link: Link<'a>,
}

/// A link of `/proc/PID` to a file that is open or mapped.
#[derive(Clone, Copy, Debug)]
pub(super) enum Link<'a> {
    /// The program.
    Program,
    /// A mapping, by its range of addresses.
    Mapping(&'a [u8]),
    /// An open file, by the name of its descriptor.
    Descriptor(&'a OsStr),
}

/// A file that is not the present one any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Old {
    /// Its path, for people; below the other root where it has one.
    pub(super) path: PathBuf,
    /// Whether it is, or was, a file of the process's own root and not of the host's.
    pub(super) is_of_other_root: bool,
}

/// What a file is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Identity {
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }

    /// Whether both are the same file. Where a device has no name of its own (overlayfs, a subvolume
    /// of btrfs) the same file may be told with two of them: then size and time have to be equal too.
    fn is(&self, other: &Self) -> bool {
        if self.device == other.device {
            return self.inode == other.inode;
        }
        (is_anonymous(self.device) || is_anonymous(other.device))
            && (self.inode, self.size, self.modified) == (other.inode, other.size, other.modified)
    }
}

/// Whether stat(2) and a process's maps may call the device of one file differently.
fn is_anonymous(device: u64) -> bool {
    rustix::fs::major(device) == 0
}

/// Compares with what there is now; every file is looked at once.
pub(super) struct Present<'a> {
    host: &'a Host,
    usr_device: Option<u64>,
    in_host: HashMap<PathBuf, Option<Identity>>,
    root_alone: HashMap<PathBuf, bool>,
    verdicts: HashMap<VerdictKey, Option<Old>>,
    known_bytes: usize,
}

/// View, device, inode, path.
type VerdictKey = ((u64, u64), u64, u64, Box<[u8]>);

impl<'a> Present<'a> {
    pub(super) fn new(host: &'a Host) -> Self {
        let usr_device = Identity::of(&host.path(Path::new("/usr"))).map(|usr| usr.device);
        let (in_host, root_alone) = (HashMap::new(), HashMap::new());
        Self { host, usr_device, in_host, root_alone, verdicts: HashMap::new(), known_bytes: 0 }
    }

    /// Judges the file; none where it is the present one, or no part of an installed program.
    pub(super) fn judge(&mut self, process: &Process, view: &View, seen: Seen<'_>) -> Option<Old> {
        let key = (view.key(), seen.device, seen.inode, Box::from(seen.path));
        if let Some(verdict) = self.verdicts.get(&key) {
            return verdict.clone();
        }
        let verdict = self.judge_anew(process, view, seen);
        if self.has_room_for(2 * seen.path.len()) {
            self.verdicts.insert(key, verdict.clone());
        }
        verdict
    }

    fn judge_anew(&mut self, process: &Process, view: &View, seen: Seen<'_>) -> Option<Old> {
        let (path, is_deleted) = match seen.path.strip_suffix(DELETED) {
            Some(path) => (path, true),
            None => (seen.path, false),
        };
        let path = PathBuf::from(std::ffi::OsString::from_vec(mountinfo::unescape(path)));
        match view {
            View::OtherRoot(root, _) => match path.strip_prefix(root) {
                // The whole of another tree, or the part of this one that is the process's root.
                Ok(below) => other_root(process, &Path::new("/").join(below), is_deleted, seen),
                // Opened before it went there.
                Err(_) => self.in_tree(process, path, is_deleted, seen),
            },
            View::Host => self.in_tree(process, path, is_deleted, seen),
            View::OwnMounts(_) => {
                let plain = path.clone();
                self.in_tree(process, path, is_deleted, seen)
                    .filter(|_| !is_of_own_mount(process, &plain, seen))
            }
        }
    }

    /// Judges a file of the host's tree.
    fn in_tree(
        &mut self,
        process: &Process,
        path: PathBuf,
        is_deleted: bool,
        seen: Seen<'_>,
    ) -> Option<Old> {
        if !may_be_installed(&path) {
            return None;
        }
        let now = self.look(&path);
        if now.is_some_and(|now| is_same(process, seen, &now)) {
            return None;
        }
        let is_of_usr = path.starts_with("/usr");
        // Where it would be now if its mount was the one of `/usr`, and is gone.
        let under_usr = (!is_of_usr).then(|| Path::new("/usr").join(relative(&path)));
        let under_usr = under_usr.and_then(|path| self.look(&path).map(|now| (path, now)));
        if under_usr.as_ref().is_some_and(|(_, now)| is_same(process, seen, now)) {
            return None;
        }
        let old = |path| Some(Old { path, is_of_other_root: false });
        if is_of_usr || is_deleted {
            return old(path);
        }
        // The mount is gone that it was opened through. If the file is not on the tree's device it
        // was some other mount's, of which nothing is known.
        let is_on_device_of_usr = self.usr_device == Some(seen.device)
            || (is_anonymous(seen.device) && self.usr_device.is_some_and(is_anonymous));
        if !is_on_device_of_usr {
            return None;
        }
        match under_usr {
            Some((path, _)) => old(path),
            None if now.is_none() => old(Path::new("/usr").join(relative(&path))),
            None => old(path),
        }
    }

    /// Whether a file at that path of the host is part of the system: installed with it, or where nobody
    /// but root can put one. What a job of a user's runs from elsewhere is that user's business, and
    /// would make the service that started the job seem old for ever.
    pub(super) fn is_the_systems(&mut self, path: &Path) -> bool {
        SYSTEMS_OWN.iter().any(|place| path.starts_with(place))
            || path.ancestors().skip(1).all(|directory| self.is_root_alone(directory))
    }

    /// Whether nobody but root can put something into that directory of the host, or take it away.
    fn is_root_alone(&mut self, directory: &Path) -> bool {
        if let Some(known) = self.root_alone.get(directory) {
            return *known;
        }
        // What is in a directory that is gone is gone as well.
        let is_root_alone = fs::metadata(self.host.path(directory))
            .is_ok_and(|status| status.uid() == 0 && status.mode() & 0o022 == 0);
        if self.has_room_for(directory.as_os_str().len()) {
            self.root_alone.insert(directory.to_owned(), is_root_alone);
        }
        is_root_alone
    }

    /// Takes room for a path of so many bytes among what is known, if there is any.
    fn has_room_for(&mut self, path: usize) -> bool {
        let bytes = self.known_bytes + PATH_BYTES + path;
        if bytes <= MOST_KNOWN_BYTES {
            self.known_bytes = bytes;
        }
        bytes <= MOST_KNOWN_BYTES
    }

    /// What is at that path of the host now.
    pub(super) fn look(&mut self, path: &Path) -> Option<Identity> {
        if let Some(known) = self.in_host.get(path) {
            return *known;
        }
        let now = Identity::of(&self.host.path(path));
        if self.has_room_for(path.as_os_str().len()) {
            self.in_host.insert(path.to_owned(), now);
        }
        now
    }
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Judges a file below the process's own root, by what that root has at its path.
fn other_root(process: &Process, below: &Path, is_deleted: bool, seen: Seen<'_>) -> Option<Old> {
    if !may_be_installed(below) {
        return None;
    }
    let now = Identity::of(&process.directory.join("root").join(relative(below)));
    match now {
        Some(now) if is_same(process, seen, &now) => None,
        // A mount that is gone: nothing is known.
        None if !is_deleted => None,
        _ => Some(Old { path: below.to_owned(), is_of_other_root: true }),
    }
}

/// Whether the process has a mount of its own below `/usr` or elsewhere that shows the file, so that
/// what the host has at that path is another matter.
fn is_of_own_mount(process: &Process, path: &Path, seen: Seen<'_>) -> bool {
    let own = Identity::of(&process.directory.join("root").join(relative(path)));
    if !own.is_some_and(|own| is_same(process, seen, &own)) {
        return false;
    }
    if !path.starts_with("/usr") {
        return true;
    }
    let Ok(text) = fs::read(process.directory.join("mountinfo")) else { return false };
    mountinfo::below_usr(&text).any(|mount_point| path.starts_with(mount_point))
}

/// Whether a file at this path can be part of an installed program. Memory with a name looks like a
/// file in the root directory: `/memfd:x`, `/SYSV00000000`.
fn may_be_installed(path: &Path) -> bool {
    let is_deep = path.components().count() > 2;
    is_deep && path.is_absolute() && !NOT_INSTALLED.iter().any(|place| path.starts_with(place))
}

/// Whether the process's file is that one, by what tells it exactly where its maps cannot.
fn is_same(process: &Process, seen: Seen<'_>, now: &Identity) -> bool {
    if (seen.device, seen.inode) == (now.device, now.inode) {
        return true;
    }
    if !(is_anonymous(seen.device) || is_anonymous(now.device)) {
        return false;
    }
    let link = match seen.link {
        Link::Program => process.directory.join("exe"),
        Link::Descriptor(name) => process.directory.join("fd").join(name),
        Link::Mapping(range) => {
            process.directory.join("map_files").join(OsStr::from_bytes(&maps::plain_range(range)))
        }
    };
    Identity::of(&link).is_some_and(|exact| exact.is(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_with_a_name_and_files_of_a_moment_are_no_programs() {
        for (path, expected) in [
            ("/usr/lib/libssl.so.3", true),
            ("/opt/app/bin/app", true),
            ("/lib/libssl.so.3", true),
            ("/srv/app/run", true),
            ("/memfd:doublemapper", false),
            ("/SYSV00000000", false),
            ("/[aio]", false),
            ("/dev/zero", false),
            ("/tmp/orcexec.x", false),
            ("/var/tmp/a/b", false),
            ("/run/apt-ostree/rescue", false),
            ("/", false),
            ("", false),
            ("relative/path", false),
        ] {
            assert_eq!(may_be_installed(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn what_is_known_of_paths_has_a_limit_and_is_found_all_the_same() {
        let host = Host::open(Path::new("/proc"), "self").unwrap();
        let mut present = Present::new(&host);
        let long = format!("/usr/{}", "x/".repeat(2_000));
        for number in 0..20_000 {
            assert_eq!(present.look(Path::new(&format!("{long}{number}"))), None);
        }
        assert!(present.in_host.len() < 10_000, "{}", present.in_host.len());
        assert!(present.known_bytes <= MOST_KNOWN_BYTES);
        assert!(present.look(Path::new("/usr")).is_some());
    }

    #[test]
    fn a_file_is_told_by_its_inode_and_by_more_where_its_device_has_no_name() {
        let named = rustix::fs::makedev(8, 1);
        let (one, other) = (rustix::fs::makedev(0, 40), rustix::fs::makedev(0, 41));
        let file = |device, inode, size| Identity { device, inode, size, modified: (1, 0) };
        for (left, right, expected) in [
            (file(named, 7, 1), file(named, 7, 2), true),
            (file(named, 7, 1), file(named, 8, 1), false),
            (file(named, 7, 1), file(rustix::fs::makedev(8, 2), 7, 1), false),
            (file(one, 7, 1), file(other, 7, 1), true),
            (file(one, 7, 1), file(other, 7, 2), false),
            (file(one, 7, 1), file(named, 7, 1), true),
        ] {
            assert_eq!(left.is(&right), expected, "{left:?} {right:?}");
        }
    }
}
