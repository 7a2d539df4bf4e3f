//! A copy of a small tree that keeps owners, modes, times, attributes and hard links.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, lgetxattr, llistxattr, lsetxattr, mknodat,
    utimensat,
};
use rustix::io::Errno;

/// The kernel's own limit of a list of attribute names and of a value (`linux/limits.h`).
const LARGEST_XATTR_BYTES: usize = 65_536;

/// Copies the directory `from`, which stays on its file system, to `to`, which must not exist.
/// Sockets are left out: they mean nothing without their process.
pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let status = fs::symlink_metadata(from)?;
    let mut copier = Copier { device: status.dev(), links: HashMap::new() };
    copier.directory(from, to, &status)
}

/// Gives `to` the owner, mode, attributes and times of the file that `status` was taken of.
pub(super) fn copy_attributes(from: &Path, to: &Path, status: &Metadata) -> io::Result<()> {
    lchown(to, Some(status.uid()), Some(status.gid()))?;
    if !status.is_symlink() {
        // After the owner: a change of owner clears the set-id bits.
        fs::set_permissions(to, fs::Permissions::from_mode(status.mode() & 0o7777))?;
    }
    copy_xattrs(from, to)?;
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(status.atime(), status.atime_nsec()),
        last_modification: time(status.mtime(), status.mtime_nsec()),
    };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

struct Copier {
    device: u64,
    links: HashMap<u64, PathBuf>,
}

impl Copier {
    fn directory(&mut self, from: &Path, to: &Path, status: &Metadata) -> io::Result<()> {
        fs::create_dir(to)?;
        if status.dev() == self.device {
            for entry in fs::read_dir(from)? {
                let name = entry?.file_name();
                match self.entry(&from.join(&name), &to.join(&name)) {
                    // Gone since the directory was read: /etc is live.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        }
        copy_attributes(from, to, status)
    }

    fn entry(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let status = fs::symlink_metadata(from)?;
        let kind = status.file_type();
        if kind.is_dir() {
            return self.directory(from, to, &status);
        }
        if kind.is_file() && status.nlink() > 1 {
            if let Some(first) = self.links.get(&status.ino()) {
                return fs::hard_link(first, to);
            }
            self.links.insert(status.ino(), to.to_path_buf());
        }
        if kind.is_file() {
            fs::copy(from, to)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(from)?, to)?;
        } else if kind.is_socket() {
            return Ok(());
        } else {
            let kind = FileType::from_raw_mode(status.mode());
            mknodat(CWD, to, kind, Mode::RUSR, status.rdev())?;
        }
        copy_attributes(from, to, &status)
    }
}

fn copy_xattrs(from: &Path, to: &Path) -> io::Result<()> {
    let mut list = [0; 4096];
    let length = match llistxattr(from, &mut list[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for name in list[..length].split_inclusive(|byte| *byte == 0) {
        let name = std::ffi::CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        if name.to_bytes().starts_with(b"trusted.") {
            continue;
        }
        let mut value = vec![0; LARGEST_XATTR_BYTES];
        let length = lgetxattr(from, name, &mut value[..])?;
        lsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_modes_links_and_times() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::create_dir_all(from.join("d")).unwrap();
        fs::write(from.join("d/a"), "text").unwrap();
        fs::hard_link(from.join("d/a"), from.join("b")).unwrap();
        symlink("nowhere", from.join("l")).unwrap();
        fs::set_permissions(from.join("b"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(from.join("d"), fs::Permissions::from_mode(0o1750)).unwrap();
        copy_tree(&from, &to).unwrap();
        let status = |name: &str| fs::symlink_metadata(to.join(name)).unwrap();
        assert_eq!(status("b").mode() & 0o7777, 0o640);
        assert_eq!(status("d").mode() & 0o7777, 0o1750);
        assert_eq!(status("b").ino(), status("d/a").ino());
        assert_eq!(fs::read_link(to.join("l")).unwrap(), Path::new("nowhere"));
        let original = fs::symlink_metadata(from.join("b")).unwrap();
        assert_eq!(status("b").mtime_nsec(), original.mtime_nsec());
    }
}
