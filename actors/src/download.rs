//! Fetching package files into apt's archive cache: side by side, hashed while they stream, resumed
//! where they were cut off.
//!
//! Modules in reading order: [`limits`], one package's way through its mirrors in `fetch`, one
//! answer of one mirror in `attempt`, the file that it is written to in `partial`, apt's cache in
//! `cache`.

mod attempt;
mod cache;
mod fetch;
mod hosts;
mod limits;
mod partial;
mod progress;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use apt_ostree_proto::package::PackageChange;
use apt_ostree_proto::{ErrorCode, Failure, Sha256};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tracing::{debug, info};

use crate::StepContext;
use crate::port::{Http, Packages, PortResult};
use cache::Cache;
use fetch::Session;
use hosts::HostGates;
pub use limits::Limits;
use progress::Progress;

/// How often progress is reported: more often than people can see only costs wake-ups.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Fetches package files.
#[derive(Debug)]
pub struct DownloadActor {
    http: Rc<dyn Http>,
    packages: Rc<dyn Packages>,
}

impl DownloadActor {
    /// An actor that fetches through `http`, and through apt (`packages`) what `http` does not speak.
    pub fn new(http: Rc<dyn Http>, packages: Rc<dyn Packages>) -> Self {
        Self { http, packages }
    }
}

impl Actor for DownloadActor {
    type Context = Context<Self>;
}

/// Request: fetch the files of `changes` into apt's archive cache. The caller holds the cache's lock.
/// Answers when all are there, or with the first failure after everything else has been ended; what
/// was fetched by then is kept, and used by the next request.
#[derive(Debug, Message)]
#[rtype(result = "PortResult<DownloadSummary>")]
pub struct DownloadPackages {
    /// The packages. Those without a file (removals) are passed over.
    pub changes: Vec<PackageChange>,
    /// apt's archive cache.
    pub archives: PathBuf,
    /// Bounds of time and parallelism.
    pub limits: Limits,
    /// Whose download it is.
    pub context: StepContext,
    /// Gets each file as soon as it is there, at most one for each package.
    pub finished: mpsc::UnboundedSender<FinishedFile>,
}

impl Handler<DownloadPackages> for DownloadActor {
    type Result = ResponseFuture<PortResult<DownloadSummary>>;

    fn handle(&mut self, request: DownloadPackages, _: &mut Self::Context) -> Self::Result {
        Box::pin(download_packages(Rc::clone(&self.http), Rc::clone(&self.packages), request))
    }
}

/// A package file that is in the cache, and has the digest and size of the signed index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedFile {
    /// The package.
    pub change: PackageChange,
    /// Where its file is.
    pub path: PathBuf,
    /// The file's digest.
    pub sha256: Sha256,
    /// The file's size.
    pub size_bytes: u64,
    /// How much of it was there already: all of a cached file, the prefix of a resumed one.
    pub cached_bytes: u64,
}

/// What a request came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DownloadSummary {
    /// Files that are there now.
    pub files: usize,
    /// Their size in all.
    pub total_bytes: u64,
    /// How much of that was there before.
    pub cached_bytes: u64,
}

/// What [`DownloadPackages`] does.
async fn download_packages(
    http: Rc<dyn Http>,
    packages: Rc<dyn Packages>,
    request: DownloadPackages,
) -> PortResult<DownloadSummary> {
    let DownloadPackages { changes, archives, limits, context, finished } = request;
    let mut changes: Vec<_> = changes.into_iter().filter(|c| c.file.is_some()).collect();
    // The largest first: a large file that starts last would be waited for alone.
    changes.sort_by_key(|change| std::cmp::Reverse(size_of_file(change)));
    let cache = Cache::new(archives);
    let present = cache.prepare(&changes).await?;
    let uris: Vec<_> =
        changes.iter().filter_map(|c| c.file.as_ref()).flat_map(|file| file.uris.clone()).collect();
    http.configure(&uris, &context).await?;

    // A failure ends the other transfers through this token, so that they close their files.
    let cancel = context.cancel.child_token();
    let progress =
        Rc::new(Progress::new(context.report.clone(), changes.iter().map(size_of_file).sum()));
    let session = Session {
        http,
        packages,
        cache,
        present,
        gates: HostGates::new(limits.connections_per_host),
        progress: Rc::clone(&progress),
        context: StepContext { cancel: cancel.clone(), ..context },
        limits,
    };
    let transfers = stream::iter(changes)
        .map(|change| fetch::fetch_package(&session, change))
        .buffer_unordered(limits.connections.max(1));
    tokio::pin!(transfers);
    let mut ticks = tokio::time::interval(REPORT_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut summary = DownloadSummary::default();
    let mut failure: Option<Failure> = None;
    loop {
        let outcome = tokio::select! {
            outcome = transfers.next() => outcome,
            _ = ticks.tick() => { progress.report(); continue }
        };
        match outcome {
            None => break,
            Some(Ok(file)) => {
                summary.files += 1;
                summary.total_bytes += file.size_bytes;
                summary.cached_bytes += file.cached_bytes;
                if finished.send(file).is_err() {
                    debug!("nobody waits for finished files any more");
                }
            }
            Some(Err(error)) => {
                cancel.cancel();
                // What the others fail with from now on is this cancel.
                failure.get_or_insert(error);
            }
        }
    }
    progress.report();
    if let Some(failure) = failure {
        return Err(failure);
    }
    info!(
        files = summary.files,
        bytes = summary.total_bytes,
        cached = summary.cached_bytes,
        "downloaded"
    );
    Ok(summary)
}

fn size_of_file(change: &PackageChange) -> u64 {
    change.file.as_ref().map_or(0, |file| file.size_bytes)
}

/// The failure of everything that was cancelled.
fn cancelled() -> Failure {
    Failure::new(ErrorCode::Cancelled, "the download was cancelled; what was fetched is kept")
}
