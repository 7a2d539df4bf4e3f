//! A directory tree that is read and changed by paths within it, never through a symbolic link.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use apt_ostree_actors::port::FileIdentity;
use apt_ostree_proto::Sha256;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags};
use rustix::io::Errno;
use sha2::Digest;

use super::attributes;

/// The root of such a tree.
#[derive(Debug)]
pub(super) struct Root {
    directory: OwnedFd,
    path: PathBuf,
}

/// A directory entry: the directory, held open, and the name in it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) directory: OwnedFd,
    pub(super) name: OsString,
}

impl Root {
    /// Opens the directory at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        Ok(Self { directory, path: path.to_owned() })
    }

    /// Where it is, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The entry at `path`, which need not exist. None when the directory that it would be in does
    /// not exist, or is reached through something that is no directory.
    pub(super) fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        let Some(name) = path.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a path without a name"));
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok(self.directory(parent)?.map(|directory| Entry { directory, name: name.to_owned() }))
    }

    /// The directory at `path`, held open; none when it is none.
    pub(super) fn directory(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&self.directory, path, flags, Mode::empty(), resolve) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What is at `path`.
    pub(super) fn identify(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
        match self.entry(path)? {
            Some(entry) => entry.identify(),
            None => Ok(None),
        }
    }

    /// The status of what is at `path`.
    pub(super) fn status(&self, path: &Path) -> io::Result<Option<Stat>> {
        match self.entry(path)? {
            Some(entry) => entry.status(),
            None => Ok(None),
        }
    }

    /// The names in the directory at `path`, sorted; none when it is no directory.
    pub(super) fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        match self.directory(path)? {
            Some(directory) => names(&directory),
            None => Ok(Vec::new()),
        }
    }

    /// A regular file's bytes; empty when there is nothing.
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.entry(path)? {
            Some(entry) => entry.read(),
            None => Ok(Vec::new()),
        }
    }

    /// Whether what is or would be at `path` is on the same mount as this root: a rename from one
    /// mount to another is not possible, even within one file system.
    pub(super) fn is_on_same_mount(&self, path: &Path) -> io::Result<bool> {
        let mount = |directory: &OwnedFd, name: &OsStr, flags| {
            rustix::fs::statx(directory, name, flags, StatxFlags::MNT_ID)
                .map(|status| status.stx_mnt_id)
        };
        let own = mount(&self.directory, OsStr::new(""), AtFlags::EMPTY_PATH)?;
        for ancestor in path.ancestors() {
            if ancestor.as_os_str().is_empty() {
                break;
            }
            if let Some(entry) = self.entry(ancestor)? {
                match mount(&entry.directory, &entry.name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(id) => return Ok(id == own),
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(true)
    }
}

impl Entry {
    /// Its status; none when nothing is there.
    pub(super) fn status(&self) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => Ok(Some(status)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What it is; none when nothing is there.
    ///
    /// Extended attributes belong to what tells one state from another: they are appended to what
    /// the digest covers when there are any.
    pub(super) fn identify(&self) -> io::Result<Option<FileIdentity>> {
        let Some(status) = self.status()? else { return Ok(None) };
        let digest = match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => {
                let mut file = self.open(OFlags::RDONLY)?;
                let mut digest = sha2::Sha256::new();
                hash_file(&mut file, &mut digest)?;
                attributes::hash(file.as_fd(), &mut digest)?;
                Some(digest)
            }
            FileType::Symlink => {
                Some(sha2::Sha256::new().chain_update(self.read_link()?.as_bytes()))
            }
            FileType::Directory => {
                let directory = self.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
                let mut digest = sha2::Sha256::new();
                attributes::hash(directory.as_fd(), &mut digest)?.then_some(digest)
            }
            _ => None,
        };
        Ok(Some(FileIdentity {
            mode: status.st_mode,
            uid: status.st_uid,
            gid: status.st_gid,
            sha256: digest.map(|digest| to_sha256(&digest.finalize())),
        }))
    }

    /// The target of a symbolic link.
    pub(super) fn read_link(&self) -> io::Result<OsString> {
        let target = rustix::fs::readlinkat(&self.directory, &self.name, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// The bytes of a regular file; empty when nothing is there.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.open(OFlags::RDONLY) {
            Ok(mut file) => file.read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(bytes)
    }

    /// Opens what is there, which must not be a symbolic link.
    pub(super) fn open(&self, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(File::from(rustix::fs::openat(&self.directory, &self.name, flags, Mode::empty())?))
    }

    /// Whether it is a directory with something in it.
    pub(super) fn is_filled_directory(&self) -> io::Result<bool> {
        match self.status()? {
            Some(status) if FileType::from_raw_mode(status.st_mode) == FileType::Directory => {
                let directory = self.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
                Ok(!names(&OwnedFd::from(directory))?.is_empty())
            }
            _ => Ok(false),
        }
    }
}

fn names(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn hash_file(file: &mut File, digest: &mut sha2::Sha256) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => digest.update(&buffer[..read]),
        }
    }
}

fn to_sha256(bytes: &[u8]) -> Sha256 {
    use std::fmt::Write;
    let mut text = String::with_capacity(64);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
    }
    Sha256::parse(text).expect("a digest has 64 digits")
}

/// The identity of a regular file with these bytes and the rest of `like`, which has no extended
/// attributes of its own.
pub(super) fn identity_of_bytes(bytes: &[u8], like: &FileIdentity) -> FileIdentity {
    let digest = sha2::Sha256::new().chain_update(bytes).finalize();
    FileIdentity { sha256: Some(to_sha256(&digest)), ..like.clone() }
}

/// Whether an identity is a directory's.
pub(super) fn is_directory(identity: &FileIdentity) -> bool {
    FileType::from_raw_mode(identity.mode) == FileType::Directory
}

/// Whether an identity is a regular file's.
pub(super) fn is_file(identity: &FileIdentity) -> bool {
    FileType::from_raw_mode(identity.mode) == FileType::RegularFile
}

/// Whether an identity is of a kind that a delta can carry: devices, sockets and pipes are not.
pub(super) fn is_plain(identity: &FileIdentity) -> bool {
    is_directory(identity)
        || is_file(identity)
        || FileType::from_raw_mode(identity.mode) == FileType::Symlink
}
