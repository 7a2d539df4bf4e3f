use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use apt_ostree_proto::id::Architecture;
use apt_ostree_proto::package::{Action, Origin, PackageChange, PackageFile, UpdateClass};
use apt_ostree_proto::request::Selection;
use apt_ostree_proto::service::{ScriptRequest, ScriptVerb};
use apt_ostree_proto::{
    CommitId, ErrorCode, Failure, PackageName, Sha256, TransactionId, UnitName, Version,
};
use async_trait::async_trait;
use futures_util::stream;
use sha2::Digest as _;

use super::{Faults, SimDisk, sim_commit};
use crate::context::StepContext;
use crate::port::{
    Archive, ArchiveContents, FetchError, FetchRequest, FetchResponse, Http, Impact, InstallReport,
    InstallTest, Packages, PortResult, Resolution, Sandbox,
};

/// What every simulated package file holds.
const CONTENT: &[u8] = b"a simulated package";

/// A simulated package manager with its repository, downloads and sandbox: one package, `app`, that
/// can be upgraded, and whose postinst restarts `app.service`.
#[derive(Debug, Default)]
pub struct SimPackages {
    faults: RefCell<Faults>,
    up_to_date: Cell<bool>,
    locked: Cell<bool>,
    fails_tests: Cell<bool>,
    /// Whose running tree says what is installed.
    disk: RefCell<Option<Rc<SimDisk>>>,
}

impl SimPackages {
    /// A host whose package can be upgraded.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has the disk's running tree say what is installed.
    pub fn set_disk(&self, disk: Rc<SimDisk>) {
        *self.disk.borrow_mut() = Some(disk);
    }

    /// Sets which calls go wrong.
    pub fn set_faults(&self, faults: Faults) {
        *self.faults.borrow_mut() = faults;
    }

    /// Sets whether there is nothing to upgrade.
    pub fn set_up_to_date(&self, up_to_date: bool) {
        self.up_to_date.set(up_to_date);
    }

    /// Sets whether tests of what is installed fail.
    pub fn set_fails_tests(&self, fails: bool) {
        self.fails_tests.set(fails);
    }

    /// Whether the archive lock is held.
    pub fn is_locked(&self) -> bool {
        self.locked.get()
    }

    /// The process that held the archive lock is dead.
    pub fn drop_lock(&self) {
        self.locked.set(false);
    }

    async fn call<T>(&self, name: &str, effect: impl FnOnce() -> PortResult<T>) -> PortResult<T> {
        let faults = self.faults.borrow().clone();
        faults.around(name, async { effect() }).await
    }

    fn resolution(&self) -> PortResult<Resolution> {
        let changes = if self.up_to_date.get() { Vec::new() } else { vec![upgrade()?] };
        Ok(Resolution { changes, ..Resolution::default() })
    }
}

fn digest() -> PortResult<Sha256> {
    let digits: String =
        sha2::Sha256::digest(CONTENT).iter().map(|byte| format!("{byte:02x}")).collect();
    Sha256::parse(digits).map_err(odd)
}

fn odd(error: impl std::error::Error + 'static) -> Failure {
    Failure::caused(ErrorCode::Internal, "a simulated name is odd", &error)
}

fn upgrade() -> PortResult<PackageChange> {
    Ok(PackageChange {
        name: PackageName::parse("app").map_err(odd)?,
        architecture: Architecture::parse("amd64").map_err(odd)?,
        action: Action::Upgrade,
        old_version: Some(Version::parse("1").map_err(odd)?),
        new_version: Some(Version::parse("2").map_err(odd)?),
        source: "app".to_owned(),
        automatic: false,
        origin: Origin { trusted: true, ..Origin::default() },
        installed_growth_bytes: 0,
        class: UpdateClass::Live,
        class_reason: None,
        file: Some(PackageFile {
            uris: vec!["http://archive.invalid/app.deb".to_owned()],
            cache_name: "app_2_amd64.deb".to_owned(),
            sha256: digest()?,
            size_bytes: CONTENT.len() as u64,
        }),
    })
}

#[async_trait(?Send)]
impl Packages for SimPackages {
    async fn refresh(&self, _: &StepContext) -> PortResult<()> {
        self.call("packages.refresh", || Ok(())).await
    }

    async fn resolve(
        &self,
        _: &Selection,
        _: &[PackageName],
        _: &StepContext,
    ) -> PortResult<Resolution> {
        self.call("packages.resolve", || self.resolution()).await
    }

    async fn difference(
        &self,
        _: &CommitId,
        new: &CommitId,
        _: &StepContext,
    ) -> PortResult<Vec<PackageChange>> {
        self.call("packages.difference", || {
            let mut change = upgrade()?;
            if *new == sim_commit(1) {
                change.action = Action::Downgrade;
                std::mem::swap(&mut change.old_version, &mut change.new_version);
            }
            Ok(vec![change])
        })
        .await
    }

    async fn impact(&self, _: &[PackageChange]) -> PortResult<Impact> {
        self.call("packages.impact", || Ok(Impact::default())).await
    }

    async fn lock_archives(&self) -> PortResult<()> {
        self.call("packages.lock_archives", || {
            self.locked.set(true);
            Ok(())
        })
        .await
    }

    async fn unlock_archives(&self) -> PortResult<()> {
        self.call("packages.unlock_archives", || {
            self.locked.set(false);
            Ok(())
        })
        .await
    }

    async fn installed(&self) -> PortResult<BTreeMap<(String, String), String>> {
        self.call("packages.installed", || {
            let is_old = self.disk.borrow().as_ref().is_none_or(|disk| disk.shows_first_tree());
            let version = if is_old { "1" } else { "2" };
            let name = ("app".to_owned(), "amd64".to_owned());
            Ok(BTreeMap::from([(name, version.to_owned())]))
        })
        .await
    }

    async fn services_with(&self, _: &[PathBuf]) -> PortResult<BTreeMap<PathBuf, Vec<UnitName>>> {
        self.call("packages.services_with", || Ok(BTreeMap::new())).await
    }

    async fn fetch_through_apt(&self, _: &PackageChange, _: &StepContext) -> PortResult<()> {
        self.call("packages.fetch_through_apt", || Ok(())).await
    }
}

#[async_trait(?Send)]
impl Http for SimPackages {
    async fn open(&self, request: &FetchRequest) -> Result<FetchResponse, FetchError> {
        let start = usize::try_from(request.offset).unwrap_or(usize::MAX).min(CONTENT.len());
        let rest = CONTENT[start..].to_vec();
        self.call("http.open", || Ok(()))
            .await
            .map_err(|failure| FetchError::Connection(Box::new(failure)))?;
        Ok(FetchResponse {
            offset: start as u64,
            total_bytes: Some(CONTENT.len() as u64),
            validator: None,
            body: Box::pin(stream::iter([Ok(rest.into())])),
        })
    }

    async fn configure(&self, _: &[String], _: &StepContext) -> PortResult<()> {
        self.call("http.configure", || Ok(())).await
    }
}

#[async_trait(?Send)]
impl Archive for SimPackages {
    async fn inspect(&self, _: &Path, _: &StepContext) -> PortResult<ArchiveContents> {
        self.call("archive.inspect", || {
            Ok(ArchiveContents {
                sha256: digest()?,
                size_bytes: CONTENT.len() as u64,
                package: "app".to_owned(),
                version: "2".to_owned(),
                architecture: "amd64".to_owned(),
                forbidden: Vec::new(),
            })
        })
        .await
    }
}

#[async_trait(?Send)]
impl Sandbox for SimPackages {
    async fn install(
        &self,
        _: &[PackageChange],
        context: &StepContext,
    ) -> PortResult<InstallReport> {
        self.call("sandbox.install", || {
            context.report.log("Setting up app (2) ...");
            let unit = UnitName::parse("app.service").map_err(odd)?;
            Ok(InstallReport {
                requests: vec![ScriptRequest {
                    package: "app".to_owned(),
                    script: "postinst".to_owned(),
                    verb: ScriptVerb::Restart,
                    unit: Some(unit),
                    units: None,
                }],
            })
        })
        .await
    }

    async fn test(
        &self,
        tests: &[InstallTest],
        _: &[PackageChange],
        _: &StepContext,
    ) -> PortResult<()> {
        self.call("sandbox.test", || match tests.first().filter(|_| self.fails_tests.get()) {
            Some(test) => {
                let text = format!("the test {} failed", test.name);
                Err(Failure::new(ErrorCode::TestFailed, text))
            }
            None => Ok(()),
        })
        .await
    }

    async fn kill(&self, _: TransactionId) -> PortResult<()> {
        self.call("sandbox.kill", || Ok(())).await
    }
}
