//! One transfer of one file from one mirror.

use std::time::Duration;

use apt_ostree_proto::package::PackageFile;
use apt_ostree_proto::{ErrorCode, Failure};
use futures_util::StreamExt;
use tokio::time::Instant;

use super::cancelled;
use super::fetch::Session;
use super::partial::Partial;
use super::progress::FileProgress;
use crate::port::{FetchError, FetchRequest, FetchResponse};

/// Why a transfer did not bring the file.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No mirror can help: cancelled, or the disk failed.
    Fatal(Failure),
    /// The file took longer than any patience.
    Overdue,
    /// This mirror does not have the file.
    Missing(String),
    /// This mirror has another file by that name.
    Mismatch(String),
    /// What was there before does not belong to the file; it is gone now.
    StalePrefix(String),
    /// It may go better another time. What came is kept.
    Passing {
        /// What happened.
        reason: String,
        /// When a server that is asked too much would like to be asked again.
        retry_after: Option<Duration>,
        /// Whether bytes came.
        gained: bool,
    },
    /// Only apt speaks this URI's scheme.
    ForeignScheme,
}

/// How long something may be waited for.
struct Patience<'a> {
    session: &'a Session,
    deadline: Instant,
}

impl Patience<'_> {
    /// Waits for `future`: `Ok(None)` if `limit` passes first.
    async fn wait<T>(
        &self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Result<Option<T>, Trouble> {
        tokio::select! {
            biased;
            () = self.session.context.cancel.cancelled() => Err(Trouble::Fatal(cancelled())),
            () = tokio::time::sleep_until(self.deadline) => Err(Trouble::Overdue),
            answer = tokio::time::timeout(limit, future) => Ok(answer.ok()),
        }
    }
}

/// Fetches `file` from `uri` into the cache, resuming what is there of it. Answers how many of its
/// bytes were.
pub(super) async fn attempt(
    session: &Session,
    file: &PackageFile,
    uri: &str,
    progress: &FileProgress,
    deadline: Instant,
) -> Result<u64, Trouble> {
    let path = session.cache.partial_path(file);
    let patience = Patience { session, deadline };
    let disk = |error| session.disk_trouble(file, &error);
    let longest = session.limits.bound(file.size_bytes);
    let Some(_pass) = patience.wait(longest, session.gates.enter(uri)).await? else {
        return Err(Trouble::Overdue);
    };
    let mut partial =
        Partial::open(path, file.size_bytes, session.context.cancel.clone()).await.map_err(disk)?;
    progress.set(partial.length_bytes());
    let before = partial.length_bytes();
    let transferred = if before == file.size_bytes {
        Ok(())
    } else {
        transfer(&patience, file, uri, &mut partial, progress).await
    };
    let (resumed, length) = (partial.resumed_bytes(), partial.length_bytes());
    let wanted = transferred.is_ok().then(|| (file.sha256.clone(), session.cache.path(file)));
    let closed = partial.close(wanted).await.map_err(disk)?;
    match transferred {
        Ok(()) => {}
        Err(Trouble::Mismatch(reason)) => {
            closed.discard().await.map_err(disk)?;
            return Err(Trouble::Mismatch(reason));
        }
        Err(Trouble::StalePrefix(reason)) => {
            closed.discard().await.map_err(disk)?;
            return Err(Trouble::StalePrefix(reason));
        }
        Err(Trouble::Passing { reason, retry_after, .. }) => {
            let gained = length > before;
            return Err(Trouble::Passing { reason, retry_after, gained });
        }
        Err(trouble) => return Err(trouble),
    }
    if closed.sha256 != file.sha256 {
        let reason = format!("its SHA-256 is {}, not {}", closed.sha256, file.sha256);
        closed.discard().await.map_err(disk)?;
        let stale = resumed > 0;
        return Err(if stale { Trouble::StalePrefix(reason) } else { Trouble::Mismatch(reason) });
    }
    Ok(resumed)
}

/// Asks the mirror and takes what it sends, until the file has its length.
async fn transfer(
    patience: &Patience<'_>,
    file: &PackageFile,
    uri: &str,
    partial: &mut Partial,
    progress: &FileProgress,
) -> Result<(), Trouble> {
    let session = patience.session;
    let limits = &session.limits;
    let disk = |error| session.disk_trouble(file, &error);
    let offset = partial.length_bytes();
    let if_range = if offset > 0 { partial.validator().map(ToOwned::to_owned) } else { None };
    let request = FetchRequest { uri: uri.to_owned(), offset, if_range };
    let answer = patience.wait(limits.response_timeout, session.http.open(&request)).await?;
    let Some(answer) = answer else {
        return Err(passing(format!("no answer for {} s", limits.response_timeout.as_secs())));
    };
    let response = answer.map_err(|error| refused(&error, offset))?;
    if let Some(total) = response.total_bytes
        && total != file.size_bytes
    {
        let expected = file.size_bytes;
        return Err(Trouble::Mismatch(format!("its size is {total} bytes, not {expected}")));
    }
    if response.offset == 0 && offset > 0 {
        partial.restart().await.map_err(disk)?;
        progress.set(0);
    } else if response.offset != offset {
        return Err(passing(format!("it sent bytes from {} on, not {offset}", response.offset)));
    }
    partial.set_validator(response.validator.clone());
    receive(patience, file, response, partial, progress).await
}

/// Takes an answer's body.
async fn receive(
    patience: &Patience<'_>,
    file: &PackageFile,
    response: FetchResponse,
    partial: &mut Partial,
    progress: &FileProgress,
) -> Result<(), Trouble> {
    let session = patience.session;
    let limits = &session.limits;
    let mut body = response.body;
    let mut window = Window::default();
    while partial.length_bytes() < file.size_bytes {
        let asked = Instant::now();
        let Some(next) = patience.wait(limits.stall_timeout, body.next()).await? else {
            return Err(passing(format!("no data for {} s", limits.stall_timeout.as_secs())));
        };
        let chunk = match next {
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) => return Err(passing(with_causes(&error))),
            None => {
                let (got, all) = (partial.length_bytes(), file.size_bytes);
                return Err(passing(format!("the connection ended after {got} of {all} bytes")));
            }
        };
        let slow = window.add(chunk.len(), asked.elapsed(), limits.slow_window);
        let length = partial.length_bytes() + chunk.len() as u64;
        if length > file.size_bytes {
            return Err(Trouble::Mismatch(too_long(file)));
        }
        partial.push(chunk).await.map_err(|error| session.disk_trouble(file, &error))?;
        progress.set(length);
        if slow.is_some_and(|speed| speed < limits.slow_bytes_per_second) {
            return Err(passing(format!("slower than {} B/s", limits.slow_bytes_per_second)));
        }
    }
    // Bytes after the end: a server that does not tell the size in advance may send another file.
    match patience.wait(limits.stall_timeout, body.next()).await? {
        Some(Some(Ok(more))) if !more.is_empty() => Err(Trouble::Mismatch(too_long(file))),
        _ => Ok(()),
    }
}

/// Measures a transfer's speed over the time in which the network was waited for.
#[derive(Debug, Default)]
struct Window {
    bytes: u64,
    waited: Duration,
}

impl Window {
    /// Counts a chunk; at the end of a window its speed in bytes a second.
    fn add(&mut self, bytes: usize, waited: Duration, window: Duration) -> Option<u64> {
        self.bytes += bytes as u64;
        self.waited += waited;
        if self.waited < window {
            return None;
        }
        let speed = self.bytes / self.waited.as_secs().max(1);
        *self = Self::default();
        Some(speed)
    }
}

fn refused(error: &FetchError, offset: u64) -> Trouble {
    match error {
        // "Range not satisfiable": the server's file is shorter than what we have of it.
        FetchError::Refused { status: 416 } if offset > 0 => {
            Trouble::StalePrefix("the server's file is shorter than what was there".to_owned())
        }
        FetchError::Refused { .. } | FetchError::Unacceptable { .. } => {
            Trouble::Missing(error.to_string())
        }
        FetchError::Unavailable { status: 429 | 503, retry_after_seconds } => {
            let asked = Duration::from_secs(retry_after_seconds.unwrap_or(0));
            Trouble::Passing { reason: error.to_string(), retry_after: Some(asked), gained: false }
        }
        FetchError::Unavailable { .. } => passing(error.to_string()),
        FetchError::Connection(_) => passing(with_causes(error)),
        FetchError::ForeignScheme { .. } => Trouble::ForeignScheme,
    }
}

fn passing(reason: String) -> Trouble {
    Trouble::Passing { reason, retry_after: None, gained: false }
}

fn too_long(file: &PackageFile) -> String {
    format!("it is longer than {} bytes", file.size_bytes)
}

/// An error with its causes, each once: the lower layers like to repeat one another.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    Failure::caused(ErrorCode::DownloadFailed, "", error)
        .message
        .trim_start_matches(": ")
        .to_owned()
}
