//! One package's way through its mirrors.

use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use apt_ostree_proto::package::{PackageChange, PackageFile};
use apt_ostree_proto::{ErrorCode, Failure};
use tokio::time::Instant;
use tracing::warn;

use super::attempt::{Trouble, attempt};
use super::cache::Cache;
use super::hosts::{HostGates, show_uri};
use super::limits::Limits;
use super::progress::{FileProgress, Progress};
use super::{FinishedFile, cancelled};
use crate::StepContext;
use crate::port::{Http, Packages, PortResult};

/// How many mirrors a failure names; more tell nobody more.
const MIRRORS_NAMED: usize = 8;

/// What all transfers of one request share.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) http: Rc<dyn Http>,
    pub(super) packages: Rc<dyn Packages>,
    pub(super) cache: Cache,
    /// The files in whose place one of the right size was.
    pub(super) present: BTreeSet<String>,
    pub(super) gates: HostGates,
    pub(super) progress: Rc<Progress>,
    pub(super) context: StepContext,
    pub(super) limits: Limits,
}

impl Session {
    /// A failure of the disk, unless it is only the cancel's echo.
    pub(super) fn disk_trouble(&self, file: &PackageFile, error: &io::Error) -> Trouble {
        if self.context.cancel.is_cancelled() {
            return Trouble::Fatal(cancelled());
        }
        let what = format!("{:?} cannot be written", file.cache_name);
        Trouble::Fatal(self.cache.failure(&what, file.size_bytes, error))
    }
}

/// A mirror, and how it went there.
#[derive(Debug)]
struct Mirror<'a> {
    uri: &'a str,
    last: Option<String>,
    given_up: bool,
    sent_another_file: bool,
}

/// Brings one package's file into the cache.
pub(super) async fn fetch_package(
    session: &Session,
    change: PackageChange,
) -> PortResult<FinishedFile> {
    let Some(file) = change.file.clone() else {
        return Err(Failure::new(ErrorCode::Internal, format!("{} has no file", change.name)));
    };
    if session.context.cancel.is_cancelled() {
        return Err(cancelled());
    }
    let name = change.name.as_str();
    let progress = session.progress.begin(&file.cache_name, name, file.size_bytes);
    let is_present = session.present.contains(&file.cache_name);
    let cached_bytes = if is_present && holds(session, &file).await? {
        file.size_bytes
    } else {
        fetch_from_mirrors(session, &change, &file, &progress).await?
    };
    progress.finish();
    Ok(FinishedFile {
        change,
        path: session.cache.path(&file),
        sha256: file.sha256,
        size_bytes: file.size_bytes,
        cached_bytes,
    })
}

async fn holds(session: &Session, file: &PackageFile) -> PortResult<bool> {
    let cancel = &session.context.cancel;
    session
        .cache
        .holds(file, cancel)
        .await
        .map_err(|error| if cancel.is_cancelled() { cancelled() } else { error })
}

/// Asks the mirrors in turn, in rounds, until one has sent the file. Answers how many bytes were
/// there before.
async fn fetch_from_mirrors(
    session: &Session,
    change: &PackageChange,
    file: &PackageFile,
    progress: &FileProgress,
) -> PortResult<u64> {
    let deadline = Instant::now() + session.limits.bound(file.size_bytes);
    let mut mirrors: Vec<_> = file
        .uris
        .iter()
        .map(|uri| Mirror { uri, last: None, given_up: false, sent_another_file: false })
        .collect();
    let mut fruitless = 0;
    loop {
        let mut wish: Option<Duration> = None;
        let mut gained_bytes = false;
        for mirror in mirrors.iter_mut().filter(|mirror| !mirror.given_up) {
            let mut outcome = attempt(session, file, mirror.uri, progress, deadline).await;
            if let Err(Trouble::StalePrefix(reason)) = &outcome {
                warn!(package = %change.name, reason, "what was there is of no use: from the beginning");
                outcome = attempt(session, file, mirror.uri, progress, deadline).await;
            }
            match outcome {
                Ok(resumed_bytes) => return Ok(resumed_bytes),
                Err(Trouble::Fatal(failure)) => return Err(failure),
                Err(Trouble::ForeignScheme) => {
                    return fetch_through_apt(session, change, file).await;
                }
                Err(Trouble::Overdue) => {
                    mirror.last.get_or_insert_with(|| "it took too long".to_owned());
                    return Err(give_up(change, &mirrors));
                }
                Err(Trouble::Missing(reason)) => mirror.give_up(reason),
                Err(Trouble::Mismatch(reason) | Trouble::StalePrefix(reason)) => {
                    mirror.sent_another_file = true;
                    mirror.give_up(reason);
                }
                Err(Trouble::Passing { reason, retry_after, gained }) => {
                    if let Some(asked) = retry_after {
                        session.gates.narrow(mirror.uri);
                        wish = Some(wish.map_or(asked, |other| other.min(asked)));
                    }
                    gained_bytes |= gained;
                    mirror.last = Some(reason);
                }
            }
            let reason = mirror.last.as_deref();
            warn!(package = %change.name, uri = show_uri(mirror.uri), reason, "a mirror failed");
        }
        fruitless = if gained_bytes { 0 } else { fruitless + 1 };
        if fruitless >= session.limits.fruitless_rounds || mirrors.iter().all(|m| m.given_up) {
            return Err(give_up(change, &mirrors));
        }
        tokio::select! {
            () = session.context.cancel.cancelled() => return Err(cancelled()),
            () = tokio::time::sleep(session.limits.pause(fruitless.max(1), wish)) => {}
        }
    }
}

impl Mirror<'_> {
    fn give_up(&mut self, reason: String) {
        self.given_up = true;
        self.last = Some(reason);
    }
}

/// Has apt fetch the file, and looks at what came.
async fn fetch_through_apt(
    session: &Session,
    change: &PackageChange,
    file: &PackageFile,
) -> PortResult<u64> {
    session.packages.fetch_through_apt(change, &session.context).await?;
    if holds(session, file).await? {
        return Ok(0);
    }
    let text = format!(
        "apt fetched {} {}, but the archive cache has no file of {} bytes with the SHA-256 {}",
        change.name,
        change.new_version.as_ref().map_or("", |version| version.as_str()),
        file.size_bytes,
        file.sha256,
    );
    Err(Failure::new(ErrorCode::VerificationFailed, text))
}

/// The failure of a package that no mirror had, with each mirror's own.
fn give_up(change: &PackageChange, mirrors: &[Mirror<'_>]) -> Failure {
    let reasons: Vec<_> = mirrors
        .iter()
        .take(MIRRORS_NAMED)
        .map(|mirror| {
            let reason = mirror.last.as_deref().unwrap_or("it was not asked");
            format!("{}: {}", show_uri(mirror.uri), reason)
        })
        .collect();
    let mismatch = mirrors.iter().any(|mirror| mirror.sent_another_file);
    let (code, what) = if mismatch {
        (ErrorCode::VerificationFailed, "is not what the signed index says")
    } else {
        (ErrorCode::DownloadFailed, "could not be fetched")
    };
    let named =
        if reasons.is_empty() { "there is no URI for it".to_owned() } else { reasons.join("; ") };
    let rest = mirrors.len().saturating_sub(MIRRORS_NAMED);
    let more = if rest > 0 { format!("; and {rest} more") } else { String::new() };
    Failure::new(code, format!("the file of {} {what}: {named}{more}", change.name))
}
