//! What differs between two versions of a directory tree.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use apt_ostree_actors::port::FileIdentity;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::root::{Root, is_directory, is_file};

/// One path that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Within the tree.
    pub(super) path: PathBuf,
    /// What was there.
    pub(super) base: Option<FileIdentity>,
    /// What is to be there.
    pub(super) wanted: Option<FileIdentity>,
}

/// What an overlay's upper directory changes of its lower one: whiteouts and opaque directories as
/// the kernel's `filesystems/overlayfs.rst` has them.
pub(super) fn of_overlay(upper: &Root, lower: &Root) -> io::Result<Vec<Change>> {
    let mut walk = Walk { new: upper, old: lower, changes: Vec::new() };
    walk.directory(Path::new(""), false)?;
    Ok(walk.changes)
}

/// What a whole tree changes of another.
pub(super) fn of_trees(new: &Root, old: &Root) -> io::Result<Vec<Change>> {
    let mut walk = Walk { new, old, changes: Vec::new() };
    walk.directory(Path::new(""), true)?;
    Ok(walk.changes)
}

struct Walk<'a> {
    new: &'a Root,
    old: &'a Root,
    changes: Vec<Change>,
}

impl Walk<'_> {
    /// Goes through one directory of the new tree. When it is opaque, what only the old one has is gone.
    fn directory(&mut self, path: &Path, opaque: bool) -> io::Result<()> {
        let names = self.new.names(path)?;
        for name in &names {
            self.entry(&path.join(name), opaque)?;
        }
        if opaque {
            for name in self.old.names(path)? {
                if names.binary_search(&name).is_err() {
                    self.gone(&path.join(name))?;
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, opaque: bool) -> io::Result<()> {
        let Some(status) = self.new.status(path)? else { return Ok(()) };
        let kind = FileType::from_raw_mode(status.st_mode);
        if kind == FileType::CharacterDevice && status.st_rdev == 0 {
            return self.gone(path);
        }
        // Two checkouts of the same object are one file.
        if kind == FileType::RegularFile
            && let Some(old) = self.old.status(path)?
            && (old.st_dev, old.st_ino) == (status.st_dev, status.st_ino)
        {
            return Ok(());
        }
        let wanted = self.new.identify(path)?;
        let base = self.old.identify(path)?;
        let was_directory = base.as_ref().is_some_and(is_directory);
        if kind != FileType::Directory && was_directory {
            self.gone_below(path)?;
        }
        if wanted != base {
            self.changes.push(Change { path: path.to_owned(), base, wanted });
        }
        if kind == FileType::Directory {
            let opaque = opaque || is_opaque(self.new, path)?;
            self.directory(path, opaque)?;
        }
        Ok(())
    }

    fn gone(&mut self, path: &Path) -> io::Result<()> {
        let Some(base) = self.old.identify(path)? else { return Ok(()) };
        if is_directory(&base) {
            self.gone_below(path)?;
        }
        self.changes.push(Change { path: path.to_owned(), base: Some(base), wanted: None });
        Ok(())
    }

    fn gone_below(&mut self, path: &Path) -> io::Result<()> {
        for name in self.old.names(path)? {
            self.gone(&path.join(name))?;
        }
        Ok(())
    }
}

/// Whether an upper directory hides all that is below it.
fn is_opaque(root: &Root, path: &Path) -> io::Result<bool> {
    let Some(entry) = root.entry(path)? else { return Ok(false) };
    let directory = entry.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
    for name in ["trusted.overlay.opaque", "user.overlay.opaque"] {
        let mut value = [0; 4];
        match rustix::fs::fgetxattr(&directory, name, &mut value[..]) {
            Ok(length) if value[..length] == *b"y" => return Ok(true),
            Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// Whether the change is between two regular files.
pub(super) fn is_between_files(change: &Change, live: Option<&FileIdentity>) -> bool {
    [change.base.as_ref(), change.wanted.as_ref(), live]
        .iter()
        .all(|identity| identity.is_some_and(is_file))
}

/// Whether the last part of `path` ends like this.
pub(super) fn ends_with(path: &Path, suffix: &str) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.ends_with(suffix))
}
