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
/// can be upgraded, and whose postinst restarts `app.service`; and another, `kernel`, that takes effect
/// with the next boot, once there is a newer one.
#[derive(Debug, Default)]
pub struct SimPackages {
    faults: RefCell<Faults>,
    up_to_date: Cell<bool>,
    newer_kernel: Cell<bool>,
    app_needs_kernel: Cell<bool>,
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

    /// Sets whether there is a newer kernel; whether the newer application needs it.
    pub fn set_newer_kernel(&self, is_there: bool, is_needed: bool) {
        self.newer_kernel.set(is_there);
        self.app_needs_kernel.set(is_needed);
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

    fn resolution(&self, selection: &Selection, kept: &[PackageName]) -> PortResult<Resolution> {
        let is_wanted = |change: &PackageChange| {
            let is_named = selection.upgrade.iter().any(|spec| spec.name == change.name);
            selection.is_whole_upgrade() || is_named
        };
        let is_kept = |change: &PackageChange| kept.contains(&change.name);
        let app = Some(upgrade()?).filter(|app| !self.up_to_date.get() && is_wanted(app));
        let kernel = Some(kernel()?).filter(|_| self.newer_kernel.get());
        let is_needed = self.app_needs_kernel.get() && kernel.is_some();
        let kernel = kernel.filter(|kernel| is_wanted(kernel) || (is_needed && app.is_some()));
        if is_needed && app.is_some() && kernel.as_ref().is_some_and(is_kept) {
            let text = "app needs a newer kernel";
            return Err(Failure::new(ErrorCode::Unsatisfiable, text));
        }
        let changes = app.into_iter().chain(kernel.filter(|kernel| !is_kept(kernel)));
        Ok(Resolution { changes: changes.collect(), ..Resolution::default() })
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
    upgrade_of("app")
}

fn upgrade_of(name: &str) -> PortResult<PackageChange> {
    Ok(PackageChange {
        name: PackageName::parse(name).map_err(odd)?,
        architecture: Architecture::parse("amd64").map_err(odd)?,
        action: Action::Upgrade,
        old_version: Some(Version::parse("1").map_err(odd)?),
        new_version: Some(Version::parse("2").map_err(odd)?),
        source: name.to_owned(),
        automatic: false,
        origin: Origin { trusted: true, ..Origin::default() },
        installed_growth_bytes: 0,
        class: UpdateClass::Live,
        class_reason: None,
        file: Some(PackageFile {
            uris: vec![format!("http://archive.invalid/{name}.deb")],
            cache_name: format!("{name}_2_amd64.deb"),
            sha256: digest()?,
            size_bytes: CONTENT.len() as u64,
        }),
    })
}

fn kernel() -> PortResult<PackageChange> {
    Ok(PackageChange {
        class: UpdateClass::NextBoot,
        class_reason: Some("the running kernel cannot be exchanged".to_owned()),
        ..upgrade_of("kernel")?
    })
}

#[async_trait(?Send)]
impl Packages for SimPackages {
    async fn refresh(&self, _: &StepContext) -> PortResult<()> {
        self.call("packages.refresh", || Ok(())).await
    }

    async fn resolve(
        &self,
        selection: &Selection,
        kept: &[PackageName],
        _: &StepContext,
    ) -> PortResult<Resolution> {
        self.call("packages.resolve", || self.resolution(selection, kept)).await
    }

    async fn difference(
        &self,
        old: &CommitId,
        new: &CommitId,
        _: &StepContext,
    ) -> PortResult<Vec<PackageChange>> {
        self.call("packages.difference", || {
            if old == new {
                return Ok(Vec::new());
            }
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
    async fn inspect(&self, path: &Path, _: &StepContext) -> PortResult<ArchiveContents> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let package = name.split('_').next().unwrap_or_default().to_owned();
        self.call("archive.inspect", || {
            Ok(ArchiveContents {
                sha256: digest()?,
                size_bytes: CONTENT.len() as u64,
                package,
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
