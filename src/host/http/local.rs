//! file and copy URIs: read where they are, never changed or removed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use apt_ostree_actors::port::{FetchError, FetchRequest, FetchResponse};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rustix::fs::OFlags;

/// How much is read at once.
const READ_BYTES: usize = 256 * 1024;

/// Opens the file that the rest of a URI (behind `file:`) names.
pub(super) async fn open(rest: &str, request: &FetchRequest) -> Result<FetchResponse, FetchError> {
    let path = path_of(rest).ok_or_else(|| FetchError::Unacceptable {
        reason: "its URI names no local file".to_owned(),
    })?;
    let opened = tokio::task::spawn_blocking(move || {
        // A pipe must not be waited for.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let found = file.metadata()?;
        let kind = if found.is_file() { Ok(()) } else { Err(io::Error::other("it is no file")) };
        kind.and_then(|()| Ok((file, found.len(), found.modified()?)))
    });
    let opened = opened.await.map_err(|error| FetchError::Connection(Box::new(error)))?;
    let (file, length, modified) = match opened {
        Ok(opened) => opened,
        Err(error) => return Err(FetchError::Unacceptable { reason: error.to_string() }),
    };
    let validator = httpdate::fmt_http_date(modified);
    let same = request.if_range.as_ref().is_none_or(|asked| *asked == validator);
    let offset = if same && request.offset <= length { request.offset } else { 0 };
    let body = stream::try_unfold((file, offset), |(file, offset)| async move {
        let read = tokio::task::spawn_blocking(move || read_at(file, offset)).await;
        let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
        let (file, bytes) = read.map_err(|error| FetchError::Connection(Box::new(error)))?;
        let next = offset + bytes.len() as u64;
        Ok((!bytes.is_empty()).then_some((Bytes::from(bytes), (file, next))))
    });
    Ok(FetchResponse {
        offset,
        total_bytes: Some(length),
        validator: Some(validator),
        body: body.boxed_local(),
    })
}

fn read_at(file: File, offset: u64) -> io::Result<(File, Vec<u8>)> {
    let mut bytes = vec![0; READ_BYTES];
    let read = file.read_at(&mut bytes, offset)?;
    bytes.truncate(read);
    Ok((file, bytes))
}

/// The path of a URI's rest: `/path`, `///path` or `//localhost/path`, percent-encoded.
fn path_of(rest: &str) -> Option<PathBuf> {
    let path = match rest.strip_prefix("//") {
        Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
        None => rest,
    };
    let mut bytes = Vec::with_capacity(path.len());
    let mut left = path.bytes();
    while let Some(byte) = left.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [left.next()?, left.next()?];
        let digits = digits.map(|digit| char::from(digit).to_digit(16));
        bytes.push(u8::try_from(digits[0]? * 16 + digits[1]?).ok()?);
    }
    (bytes.first() == Some(&b'/')).then(|| PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn local_uris_are_read_as_apt_reads_them() {
        for (rest, path) in [
            ("/srv/a.deb", Some("/srv/a.deb")),
            ("///srv/a%20b%2b.deb", Some("/srv/a b+.deb")),
            ("//localhost/srv", Some("/srv")),
            ("//elsewhere/srv", None),
            ("srv", None),
            ("/a%2", None),
            ("/a%zz", None),
            ("", None),
        ] {
            assert_eq!(path_of(rest).as_deref(), path.map(Path::new), "{rest}");
        }
    }
}
