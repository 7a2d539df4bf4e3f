//! Files, links and directories of a staged tree as objects of the repository.

use std::ffi::CString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use apt_ostree_proto::{ErrorCode, Failure};
use ostree::ObjectType;
use ostree::gio::prelude::*;
use ostree::glib::Variant;
use rustix::fs::{lgetxattr, llistxattr, llistxattr_query};
use rustix::io::Errno;

use super::repository::{NEVER, failed};

/// Files up to this size are handed over in one piece; larger ones are streamed, so that memory is
/// bounded.
const INLINE_BYTES: u64 = 1 << 20;
/// The piece that larger files are streamed in.
const CHUNK_BYTES: usize = 1 << 18;
/// The kernel's own limits: `XATTR_LIST_MAX`, `XATTR_SIZE_MAX` (`linux/limits.h`).
const LARGEST_XATTR_BYTES: usize = 65_536;

/// Names, each with a NUL behind it, and values.
pub(super) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Writes a regular file and answers its checksum.
pub(super) fn write_file(
    repo: &ostree::Repo,
    path: &Path,
    status: &Metadata,
) -> Result<String, Failure> {
    let xattrs = xattrs(path)?;
    let mut file = File::open(path).map_err(|error| unreadable(path, &error))?;
    if status.len() <= INLINE_BYTES {
        let mut bytes = Vec::with_capacity(usize::try_from(status.len()).unwrap_or_default());
        file.read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
        return repo
            .write_regfile_inline(
                None,
                status.uid(),
                status.gid(),
                status.mode(),
                Some(&xattrs),
                &bytes,
                NEVER,
            )
            .map(Into::into)
            .map_err(|error| unwritten(path, &error));
    }
    stream_file(repo, path, status, &xattrs, &mut file)
}

fn stream_file(
    repo: &ostree::Repo,
    path: &Path,
    status: &Metadata,
    xattrs: &Variant,
    file: &mut File,
) -> Result<String, Failure> {
    let writer = repo
        .write_regfile(None, status.uid(), status.gid(), status.mode(), status.len(), Some(xattrs))
        .map_err(|error| unwritten(path, &error))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = file.read(&mut chunk).map_err(|error| unreadable(path, &error))?;
        if count == 0 {
            break;
        }
        let (_, partial) =
            writer.write_all(&chunk[..count], NEVER).map_err(|error| unwritten(path, &error))?;
        if let Some(error) = partial {
            return Err(unwritten(path, &error));
        }
    }
    writer.finish(NEVER).map(Into::into).map_err(|error| unwritten(path, &error))
}

/// Writes a symbolic link and answers its checksum.
pub(super) fn write_link(
    repo: &ostree::Repo,
    path: &Path,
    status: &Metadata,
) -> Result<String, Failure> {
    let target = fs::read_link(path).map_err(|error| unreadable(path, &error))?;
    let Some(target) = target.to_str() else {
        return Err(Failure::new(
            ErrorCode::UnsupportedPackage,
            format!(
                "the target of the link {} is not UTF-8, which OSTree cannot store",
                shown(path)
            ),
        ));
    };
    repo.write_symlink(None, status.uid(), status.gid(), Some(&xattrs(path)?), target, NEVER)
        .map(Into::into)
        .map_err(|error| unwritten(path, &error))
}

/// Writes a directory's owner, mode and attributes, and answers their checksum.
pub(super) fn write_directory(
    repo: &ostree::Repo,
    path: &Path,
    status: &Metadata,
) -> Result<String, Failure> {
    write_directory_metadata(repo, status.mode(), status.uid(), status.gid(), &xattrs(path)?)
        .map_err(|error| unwritten(path, &error))
}

/// The same for a directory of root's that is nowhere on the disk.
pub(super) fn write_plain_directory(repo: &ostree::Repo) -> Result<String, Failure> {
    const PLAIN: u32 = 0o040_755;
    write_directory_metadata(repo, PLAIN, 0, 0, &variant_of(&[]))
        .map_err(|error| unwritten(Path::new("usr"), &error))
}

fn write_directory_metadata(
    repo: &ostree::Repo,
    mode: u32,
    uid: u32,
    gid: u32,
    xattrs: &Variant,
) -> Result<String, ostree::glib::Error> {
    // The dirmeta format: (uuua(ayay)), numbers in network byte order.
    let numbers = [uid, gid, mode].map(|number| number.to_be().to_variant());
    let metadata = Variant::tuple_from_iter(numbers.into_iter().chain([xattrs.clone()]));
    let checksum = repo.write_metadata(ObjectType::DirMeta, None, &metadata, NEVER)?;
    Ok(checksum.to_hex())
}

/// A file's attributes as `a(ayay)`, sorted by name as OSTree demands.
fn xattrs(path: &Path) -> Result<Variant, Failure> {
    attributes(path).map(|attributes| variant_of(&attributes))
}

/// The same in parts. `trusted.*` is overlayfs's bookkeeping and is left out.
pub(super) fn attributes(path: &Path) -> Result<Attributes, Failure> {
    let read = || -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        // Most files have none: ask before memory is taken for the names.
        match llistxattr_query(path) {
            Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut list = vec![0; LARGEST_XATTR_BYTES];
        let length = llistxattr(path, &mut list[..])?;
        let mut attributes = Vec::new();
        for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            if name.starts_with(b"trusted.") {
                continue;
            }
            let key = CString::new(name)?;
            let mut value = vec![0; LARGEST_XATTR_BYTES];
            let length = lgetxattr(path, &key, &mut value[..])?;
            value.truncate(length);
            attributes.push((key.into_bytes_with_nul(), value));
        }
        attributes.sort();
        Ok(attributes)
    };
    read().map_err(|error| unreadable(path, &error))
}

fn variant_of(attributes: &[(Vec<u8>, Vec<u8>)]) -> Variant {
    attributes.to_vec().to_variant()
}

/// Whether a directory of an upper tree hides what lies below it in the lower one.
pub(super) fn is_opaque(path: &Path) -> Result<bool, Failure> {
    let mut value = [0; 4];
    match lgetxattr(path, c"trusted.overlay.opaque", &mut value[..]) {
        Ok(length) => Ok(value[..length] == *b"y"),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
        Err(error) => Err(unreadable(path, &error.into())),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let what = format!("{} cannot be read", shown(path));
    Failure::caused(ErrorCode::CommitFailed, &what, error)
}

fn unwritten(path: &Path, error: &ostree::glib::Error) -> Failure {
    failed(ErrorCode::CommitFailed, &format!("{} cannot be stored", shown(path)), error)
}

/// A path for a message: quoted, without control characters, at most as long as anyone reads.
pub(super) fn shown(path: &Path) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(path.as_os_str().as_bytes());
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().count() > LONGEST {
        shown.push('…');
    }
    format!("\"{shown}\"")
}
