//! Fetching a package file through apt's own methods.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use apt_ostree::host::worker::tasks::FetchRequest;
use apt_ostree_proto::{ErrorCode, Failure};
use rust_apt::config::Config;
use rust_apt::progress::AcquireProgress;

use super::refresh::Watcher;
use super::{cache, install};
use crate::output::Output;

/// Fetches the new version of one package into apt's archive cache. libapt checks its digest.
/// Idempotent: a file that is there in its right size is left alone.
pub(crate) fn fetch(request: FetchRequest, output: &Output) -> Result<(), Failure> {
    let config = Config::new();
    let cache = cache::open(&config)?;
    let change = request.change;
    let Some(file) = &change.file else {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("\"{}\" has no file to fetch", change.name),
        ));
    };
    install::mark(&cache, std::slice::from_ref(&change))?;
    let complaints = Rc::new(RefCell::new(Vec::new()));
    let watcher = Watcher { output, complaints: Rc::clone(&complaints) };
    let result = cache.get_archives(&mut AcquireProgress::new(watcher));
    let target = Path::new(&config.dir("Dir::Cache::archives", "/var/cache/apt/archives/"))
        .join(&file.cache_name);
    let size = target.metadata().map(|metadata| metadata.len()).ok();
    if result.is_ok() && size == Some(file.size_bytes) {
        return Ok(());
    }
    let mut reasons = complaints.take();
    if let Err(error) = result {
        reasons.extend(cache::messages(&error.into()));
    }
    if reasons.is_empty() {
        reasons.push(format!("{} is not there in its right size", target.display()));
    }
    Err(Failure::new(
        ErrorCode::DownloadFailed,
        format!("\"{}\" could not be fetched: {}", change.name, reasons.join("; ")),
    ))
}
