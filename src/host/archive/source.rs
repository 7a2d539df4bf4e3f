//! The file below all layers: read once, from its beginning to its end, and hashed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use apt_ostree_proto::Sha256;
use rustix::fs::OFlags;
use sha2::Digest;
use tokio_util::sync::CancellationToken;

use super::DebError;

/// How much is read at once.
const BUFFER_BYTES: usize = 128 * 1024;

/// A reader that counts and hashes.
pub(super) struct Source<R> {
    input: R,
    cancel: CancellationToken,
    digest: sha2::Sha256,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    read_bytes: u64,
}

/// The error that a cancel becomes on its way through the decoders.
#[derive(Debug, thiserror::Error)]
#[error("cancelled")]
struct Cancelled;

/// Opens a file that is really there: no link, no pipe.
pub(super) fn open(path: &Path) -> Result<File, DebError> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file =
        OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(DebError::Read)?;
    if file.metadata().map_err(DebError::Read)?.is_file() {
        Ok(file)
    } else {
        Err(DebError::malformed("it is not a regular file"))
    }
}

impl<R: Read> Source<R> {
    pub(super) fn new(input: R, cancel: CancellationToken) -> Self {
        let digest = sha2::Sha256::new();
        let buffer = vec![0; BUFFER_BYTES];
        Self { input, cancel, digest, buffer, start: 0, end: 0, read_bytes: 0 }
    }

    /// Reads the rest, and gives the digest and the size of the whole.
    pub(super) fn finish(mut self) -> Result<(Sha256, u64), DebError> {
        loop {
            self.start = self.end;
            self.fill().map_err(read_error)?;
            if self.end == 0 {
                break;
            }
        }
        let sha256 = Sha256::parse(format!("{:x}", self.digest.finalize()));
        Ok((sha256.map_err(|error| DebError::malformed(error.to_string()))?, self.read_bytes))
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other(Cancelled));
        }
        let read = loop {
            match self.input.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.digest.update(&self.buffer[..read]);
        self.read_bytes += read as u64;
        (self.start, self.end) = (0, read);
        Ok(())
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end {
            self.fill()?;
        }
        let length = into.len().min(self.end - self.start);
        into[..length].copy_from_slice(&self.buffer[self.start..self.start + length]);
        self.start += length;
        Ok(length)
    }
}

/// What an error of a read means, also after it went through a decoder.
pub(super) fn read_error(error: io::Error) -> DebError {
    if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Cancelled>) {
        return DebError::Cancelled;
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => DebError::malformed("it is cut short"),
        _ => DebError::Read(error),
    }
}
