//! The real archive port: reads Debian packages (deb(5)) in one pass.
//!
//! A package is hostile until it is verified. The reader therefore takes exactly what dpkg takes and
//! refuses the rest, holds no more than a bounded part of it in memory, and never trusts a length.
//!
//! Modules in reading order: `source` reads the file once and hashes it, `ar` splits it into members,
//! `compression` unpacks a member, `control` reads the control file, `tarball` walks a tar archive's
//! headers, `members` judges what they name.

mod ar;
mod compression;
mod control;
mod deb;
mod members;
mod source;
mod tarball;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use apt_ostree_actors::StepContext;
use apt_ostree_actors::port::{Archive, ArchiveContents, PortResult};
use apt_ostree_proto::{ErrorCode, Failure};
use async_trait::async_trait;
use tokio::sync::Semaphore;

/// What is wrong with a package file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DebError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    /// It is not what deb(5) describes, or exceeds a bound.
    #[error("{0}")]
    Malformed(String),
    /// Nobody wants to know any more.
    #[error("cancelled")]
    Cancelled,
}

impl DebError {
    fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed(what.into())
    }
}

/// Reads package files, as many at once as there are processors: unpacking takes a processor whole.
#[derive(Debug)]
pub struct DebArchive {
    processors: Arc<Semaphore>,
}

impl DebArchive {
    /// A reader for this host.
    pub fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { processors: Arc::new(Semaphore::new(processors)) }
    }
}

impl Default for DebArchive {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait(?Send)]
impl Archive for DebArchive {
    async fn inspect(&self, path: &Path, context: &StepContext) -> PortResult<ArchiveContents> {
        let cancelled = || Failure::new(ErrorCode::Cancelled, "the verification was cancelled");
        let permit = tokio::select! {
            biased;
            () = context.cancel.cancelled() => return Err(cancelled()),
            permit = Arc::clone(&self.processors).acquire_owned() => permit,
        };
        let file = path.to_owned();
        let cancel = context.cancel.clone();
        let inspected = tokio::task::spawn_blocking(move || {
            let inspected = deb::inspect(&file, &cancel);
            // Held until here: a cancelled caller must not let another thread in.
            drop(permit);
            inspected
        });
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match inspected.await {
            Ok(Ok(contents)) => Ok(contents),
            Ok(Err(DebError::Cancelled)) => Err(cancelled()),
            Ok(Err(error)) => {
                let what = format!("the file {name:?} is no sound Debian package");
                Err(Failure::caused(ErrorCode::VerificationFailed, &what, &error))
            }
            Err(error) => {
                let what = format!("reading {name:?} failed");
                Err(Failure::caused(ErrorCode::Internal, &what, &error))
            }
        }
    }
}

/// Reads a package of these bytes; what it holds is of no interest.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let read = deb::read(data, &tokio_util::sync::CancellationToken::new());
    if let Ok(contents) = read {
        assert_eq!(contents.size_bytes, data.len() as u64, "it is read to its end");
    }
}
