//! The running tree against its commit: every file by its OSTree checksum, which covers content, owner,
//! mode, target and attributes; every directory by its own; and the commit's objects. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use apt_ostree::host::paths;
use apt_ostree::host::tree::mountinfo;
use apt_ostree::host::tree::state::StateReader;
use apt_ostree_actors::port::{FileDifference, FileDifferenceKind, TreeComparison};
use apt_ostree_proto::{CommitId, ErrorCode, Failure};
use ostree::{ChecksumFlags, ObjectType, Repo};

use super::compare::{Contents, Directory, usr_of};
use super::objects::{Attributes, attributes, shown};
use super::repository::{self, NEVER, failed};

/// How many differences are told; the others are counted.
const MOST_DIFFERENCES: usize = 100;
/// Others come first: an inspection reads all of a tree.
const NICENESS: i32 = 10;
/// How much of a checksum tells it from others, for people.
const SHORT: usize = 12;

/// Compares the tree that `/usr` shows.
pub(crate) fn compare_running() -> Result<TreeComparison, Failure> {
    if let Err(error) = rustix::process::nice(NICENESS) {
        eprintln!("the worker cannot step back: {error}");
    }
    let state = StateReader::default();
    let mounts = state.mounts()?;
    let running = state.running(&mounts, &state.booted(&mounts)?)?;
    let root = mountinfo::holding(&mounts, Path::new("/usr"));
    if running.transaction.is_none()
        && let Some(mount) = root.filter(|mount| mount.file_system == "overlay")
    {
        let why =
            format!("/usr is a mount of type {}, not the deployment's own", mount.file_system);
        return Ok(TreeComparison { not_compared: Some(why), ..TreeComparison::default() });
    }
    compare_tree(&repository::open()?, &running.commit, &running.usr)
}

fn compare_tree(repo: &Repo, commit: &CommitId, usr: &Path) -> Result<TreeComparison, Failure> {
    let mut comparison = Comparison::new(repo);
    comparison.object(ObjectType::Commit, commit.as_str());
    let expected = usr_of(repo, commit).map_err(|error| {
        failed(ErrorCode::Internal, "the running commit cannot be read", &error)
    })?;
    let Some(expected) = expected else {
        return Err(Failure::new(ErrorCode::Internal, "the running commit has no usr"));
    };
    comparison.directory(Path::new("/usr"), usr, &expected)?;
    Ok(comparison.told)
}

struct Comparison<'a> {
    repo: &'a Repo,
    /// Objects that were looked at already; many files are one object.
    seen: BTreeSet<String>,
    told: TreeComparison,
}

impl<'a> Comparison<'a> {
    fn new(repo: &'a Repo) -> Self {
        Self { repo, seen: BTreeSet::new(), told: TreeComparison::default() }
    }

    fn directory(
        &mut self,
        path: &Path,
        place: &Path,
        expected: &Directory,
    ) -> Result<(), Failure> {
        self.object(ObjectType::DirTree, &expected.contents);
        self.object(ObjectType::DirMeta, &expected.metadata);
        let Some(status) = status(place)? else {
            self.tell(path, FileDifferenceKind::Missing, "a directory", "nothing");
            return Ok(());
        };
        if !status.is_dir() {
            self.tell(path, FileDifferenceKind::Changed, "a directory", &describe(&status));
            return Ok(());
        }
        self.metadata(path, place, &status, &expected.metadata)?;
        let Ok(contents) = Contents::of(self.repo, &expected.contents) else {
            // The object has been told; what ought to be here cannot be known.
            return Ok(());
        };
        let mut there = names(place)?;
        for (name, checksum) in &contents.files {
            let is_there = there.remove(name).is_some();
            self.file(&path.join(name), &place.join(name), checksum, is_there)?;
        }
        for (name, directory) in &contents.directories {
            there.remove(name);
            self.directory(&path.join(name), &place.join(name), directory)?;
        }
        for (name, raw) in there {
            let found = status_of_unknown(&place.join(raw))?;
            self.tell(&path.join(name), FileDifferenceKind::Unknown, "nothing", &found);
        }
        Ok(())
    }

    fn metadata(
        &mut self,
        path: &Path,
        place: &Path,
        status: &Metadata,
        checksum: &str,
    ) -> Result<(), Failure> {
        let Ok(wanted) = self.repo.read_dirmeta(checksum) else { return Ok(()) };
        let is_same =
            (wanted.uid, wanted.gid, wanted.mode) == (status.uid(), status.gid(), status.mode());
        if !is_same {
            let expected = format!("mode {:o}, owner {}:{}", wanted.mode, wanted.uid, wanted.gid);
            self.tell(path, FileDifferenceKind::Changed, &expected, &describe(status));
        } else if attributes(place)? != own(wanted.xattrs) {
            let expected = "the attributes of the commit";
            self.tell(path, FileDifferenceKind::Changed, expected, "others");
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: &Path,
        place: &Path,
        checksum: &str,
        is_there: bool,
    ) -> Result<(), Failure> {
        let expected = format!("object {}", &checksum[..SHORT]);
        let status = if is_there { status(place)? } else { None };
        let object = self.file_object(checksum, status.as_ref())?;
        let Some(status) = status else {
            self.tell(path, FileDifferenceKind::Missing, &expected, "nothing");
            return Ok(());
        };
        self.told.files += 1;
        self.told.bytes += status.len();
        let found = checksum_of(place, &status)?;
        if found.as_deref() == Some(checksum) {
            return Ok(());
        }
        let sum = found.map(|found| format!(", checksum {}", &found[..SHORT]));
        let shared = match object {
            Object::IsTheFile => "; the object in the repository is the same file",
            Object::IsAnother => "",
        };
        let text = format!("{}{}{shared}", describe(&status), sum.unwrap_or_default());
        self.tell(path, FileDifferenceKind::Changed, &expected, &text);
        Ok(())
    }

    /// Looks whether the object of a file is there, and whole unless it is the file itself, which is
    /// read anyway.
    fn file_object(&mut self, checksum: &str, file: Option<&Metadata>) -> Result<Object, Failure> {
        let path = Path::new(paths::REPOSITORY)
            .join("objects")
            .join(&checksum[..2])
            .join(format!("{}.file", &checksum[2..]));
        let object = status(&path)?;
        let same =
            |one: &Metadata, other: &Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
        if let (Some(object), Some(file)) = (&object, file)
            && same(object, file)
        {
            return Ok(Object::IsTheFile);
        }
        self.object(ObjectType::File, checksum);
        Ok(Object::IsAnother)
    }

    fn object(&mut self, kind: ObjectType, checksum: &str) {
        if !self.seen.insert(checksum.to_owned()) {
            return;
        }
        if let Err(error) = self.repo.fsck_object(kind, checksum, NEVER) {
            let name = PathBuf::from(format!("{checksum}.{}", suffix_of(kind)));
            let kind = FileDifferenceKind::Object;
            self.tell(&name, kind, "whole", error.message());
        }
    }

    fn tell(&mut self, path: &Path, kind: FileDifferenceKind, expected: &str, found: &str) {
        if self.told.differences.len() >= MOST_DIFFERENCES {
            self.told.more += 1;
            return;
        }
        let quoted = shown(path);
        self.told.differences.push(FileDifference {
            path: quoted.trim_matches('"').to_owned(),
            kind,
            expected: expected.to_owned(),
            found: found.to_owned(),
        });
    }
}

/// A file's object: a checkout is made of hard links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Object {
    IsTheFile,
    IsAnother,
}

/// The end of an object's name in a repository that keeps files as they are.
fn suffix_of(kind: ObjectType) -> &'static str {
    match kind {
        ObjectType::File => "file",
        ObjectType::DirTree => "dirtree",
        ObjectType::DirMeta => "dirmeta",
        _ => "commit",
    }
}

/// The file's checksum as OSTree reckons it; none for what OSTree cannot hold.
fn checksum_of(place: &Path, status: &Metadata) -> Result<Option<String>, Failure> {
    if !status.is_file() && !status.is_symlink() {
        return Ok(None);
    }
    let (kind, flags) = (ObjectType::File, ChecksumFlags::NONE);
    ostree::checksum_file_at(ostree::AT_FDCWD, place, None, kind, flags, NEVER)
        .map(|checksum| Some(checksum.to_string()))
        .map_err(|error| {
            failed(ErrorCode::Internal, &format!("{} cannot be read", shown(place)), &error)
        })
}

fn status(path: &Path) -> Result<Option<Metadata>, Failure> {
    match fs::symlink_metadata(path) {
        Ok(status) => Ok(Some(status)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(unread(path, &error)),
    }
}

fn status_of_unknown(path: &Path) -> Result<String, Failure> {
    Ok(status(path)?.map_or_else(|| "nothing".to_owned(), |status| describe(&status)))
}

/// The names in a directory, as text and as they are.
fn names(place: &Path) -> Result<BTreeMap<String, std::ffi::OsString>, Failure> {
    let read = || -> io::Result<BTreeMap<String, std::ffi::OsString>> {
        fs::read_dir(place)?
            .map(|entry| {
                let name = entry?.file_name();
                // OSTree's own names are UTF-8: another one is in no commit.
                Ok((name.to_string_lossy().into_owned(), name))
            })
            .collect()
    };
    read().map_err(|error| unread(place, &error))
}

/// The attributes as a commit holds them, in the order of [`attributes`].
fn own(mut attributes: Attributes) -> Attributes {
    for (name, _) in attributes.iter_mut().filter(|(name, _)| !name.ends_with(b"\0")) {
        name.push(0);
    }
    attributes.sort();
    attributes
}

fn describe(status: &Metadata) -> String {
    let kind = if status.is_dir() {
        "a directory"
    } else if status.is_symlink() {
        "a link"
    } else if status.is_file() {
        "a file"
    } else {
        "a special file"
    };
    let (mode, uid, gid) = (status.mode() & 0o7777, status.uid(), status.gid());
    let size = if status.is_file() { format!(", {} bytes", status.len()) } else { String::new() };
    format!("{kind}, mode {mode:o}, owner {uid}:{gid}{size}")
}

fn unread(path: &Path, error: &io::Error) -> Failure {
    Failure::caused(ErrorCode::Internal, &format!("{} cannot be read", shown(path)), error)
}
