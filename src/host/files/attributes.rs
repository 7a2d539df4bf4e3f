//! Extended attributes: ACLs, capabilities and what users set. See xattr(7).

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use sha2::Digest;

/// The attributes of an open file that belong to it, sorted by name. `trusted.*` is the overlays'
/// own book-keeping; `SELinux` labels follow from the path, not from the file.
fn read(file: BorrowedFd<'_>) -> io::Result<Vec<(CString, Vec<u8>)>> {
    let names = match list(file) {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut attributes = Vec::new();
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let bytes = name.to_bytes();
        if bytes.starts_with(b"trusted.") || bytes == b"security.selinux" {
            continue;
        }
        match value(file, name) {
            Ok(value) => attributes.push((name.to_owned(), value)),
            // It went between the two calls.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    attributes.sort();
    Ok(attributes)
}

/// The largest list of names and the largest value that the kernel lets anybody set: `XATTR_LIST_MAX`
/// and `XATTR_SIZE_MAX` of `linux/limits.h`.
const LARGEST: usize = 65_536;

fn list(file: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 512];
    match rustix::fs::flistxattr(file, &mut small) {
        Ok(length) => Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; LARGEST];
            let length = rustix::fs::flistxattr(file, &mut large[..])?;
            large.truncate(length);
            Ok(large)
        }
        Err(error) => Err(error),
    }
}

fn value(file: BorrowedFd<'_>, name: &CStr) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; LARGEST];
    let length = rustix::fs::fgetxattr(file, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

/// Adds a file's attributes to a digest; says whether there were any.
pub(super) fn hash(file: BorrowedFd<'_>, digest: &mut sha2::Sha256) -> io::Result<bool> {
    let attributes = read(file)?;
    for (name, value) in &attributes {
        digest.update(name.to_bytes_with_nul());
        digest.update((value.len() as u64).to_le_bytes());
        digest.update(value);
    }
    Ok(!attributes.is_empty())
}

/// Gives `to` the attributes of `from`.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    for (name, value) in read(from)? {
        rustix::fs::fsetxattr(to, &name, &value, XattrFlags::empty())?;
    }
    Ok(())
}
