//! Ours: the download actor with the real http port.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::Actor;
use anyhow::{Result, ensure};
use apt_ostree::host::http::HttpClient;
use apt_ostree::host::worker::transport::Transport;
use apt_ostree_actors::download::{DownloadActor, DownloadPackages, Limits};
use apt_ostree_actors::port::{Impact, Packages, PortResult, Resolution};
use apt_ostree_actors::{Reporter, StepContext};
use apt_ostree_proto::id::Architecture;
use apt_ostree_proto::package::{Action, Origin, PackageChange, PackageFile, UpdateClass};
use apt_ostree_proto::request::Selection;
use apt_ostree_proto::{
    CommitId, ErrorCode, Failure, PackageName, Sha256, TransactionId, UnitName, Version,
};
use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::packages::File;

/// Fetches all packages into an empty cache.
pub(super) fn fetch(archives: &Path, mirror: &str, files: &[File]) -> Result<Duration> {
    if archives.exists() {
        std::fs::remove_dir_all(archives)?;
    }
    let changes = files.iter().map(|file| change(file, mirror)).collect::<Result<_>>()?;
    let bytes: u64 = files.iter().map(|file| file.size_bytes).sum();
    let context = StepContext {
        transaction: TransactionId(1),
        cancel: CancellationToken::new(),
        report: Reporter::silent(),
    };
    let (finished, _files) = mpsc::unbounded_channel();
    let archives = archives.to_owned();
    let request =
        DownloadPackages { changes, archives, limits: Limits::default(), context, finished };
    let begun = Instant::now();
    let summary = actix::System::new().block_on(async {
        let http = Rc::new(HttpClient::with(Transport::default()));
        DownloadActor::new(http, Rc::new(NoApt)).start().send(request).await
    })??;
    let took = begun.elapsed();
    ensure!(summary.total_bytes == bytes && summary.cached_bytes == 0, "{summary:?}");
    Ok(took)
}

fn change(file: &File, mirror: &str) -> Result<PackageChange> {
    Ok(PackageChange {
        name: PackageName::parse(file.name.as_str())?,
        architecture: Architecture::parse("all")?,
        action: Action::Install,
        old_version: None,
        new_version: Some(Version::parse("1")?),
        source: file.name.clone(),
        automatic: false,
        origin: Origin::default(),
        installed_growth_bytes: 0,
        class: UpdateClass::Live,
        class_reason: None,
        file: Some(PackageFile {
            uris: vec![format!("{mirror}{}", file.file_name)],
            cache_name: file.file_name.clone(),
            sha256: Sha256::parse(file.sha256.as_str())?,
            size_bytes: file.size_bytes,
        }),
    })
}

/// There is nothing here that only apt could fetch.
#[derive(Debug)]
struct NoApt;

fn no_apt<T>() -> PortResult<T> {
    Err(Failure::new(ErrorCode::Internal, "the benchmark fetches nothing through apt"))
}

#[async_trait(?Send)]
impl Packages for NoApt {
    async fn refresh(&self, _: &StepContext) -> PortResult<()> {
        no_apt()
    }
    async fn resolve(
        &self,
        _: &Selection,
        _: &[PackageName],
        _: &StepContext,
    ) -> PortResult<Resolution> {
        no_apt()
    }
    async fn difference(
        &self,
        _: &CommitId,
        _: &CommitId,
        _: &StepContext,
    ) -> PortResult<Vec<PackageChange>> {
        no_apt()
    }
    async fn impact(&self, _: &[PackageChange]) -> PortResult<Impact> {
        no_apt()
    }
    async fn lock_archives(&self) -> PortResult<()> {
        no_apt()
    }
    async fn unlock_archives(&self) -> PortResult<()> {
        no_apt()
    }
    async fn installed(&self) -> PortResult<BTreeMap<(String, String), String>> {
        no_apt()
    }
    async fn services_with(&self, _: &[PathBuf]) -> PortResult<BTreeMap<PathBuf, Vec<UnitName>>> {
        no_apt()
    }
    async fn fetch_through_apt(&self, _: &PackageChange, _: &StepContext) -> PortResult<()> {
        no_apt()
    }
}
