//! The real packages port: libapt in worker processes, dpkg's database as text.

pub mod class;
pub mod difference;
pub mod status;
pub mod version;

mod configured;
mod impact;
mod space;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use apt_ostree_actors::context::StepContext;
use apt_ostree_actors::port::{Impact, Packages, PortResult, Processes, Resolution};
use apt_ostree_proto::package::PackageChange;
use apt_ostree_proto::request::Selection;
use apt_ostree_proto::{CommitId, ErrorCode, Failure, PackageName, UnitName, Version};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use self::class::classify;
use self::space::Places;
use self::status::Status;
use super::lock::{self, FileLock};
use super::paths;
use super::worker::{self, tasks};

/// dpkg's directory; a link into `/usr` on hosts whose database is part of the tree.
const DATABASE: &str = "/var/lib/dpkg";
/// Locks that another apt or dpkg has while it changes packages, below dpkg's directory.
const DPKG_LOCKS: &[&str] = &["lock-frontend", "lock"];
/// What another `apt update` has.
const LISTS_LOCK: &str = "/var/lib/apt/lists/lock";

/// The package manager of this host.
#[derive(Debug)]
pub struct Apt {
    processes: Rc<dyn Processes>,
    archives: RefCell<Option<FileLock>>,
}

impl Apt {
    /// The package manager, with the port that knows which processes use a file.
    pub fn new(processes: Rc<dyn Processes>) -> Self {
        Self { processes, archives: RefCell::new(None) }
    }

    /// Fails with `Locked` while another apt or dpkg is at work.
    fn check_locks() -> PortResult<()> {
        lock::check(Path::new(LISTS_LOCK))?;
        for name in DPKG_LOCKS {
            lock::check(&Path::new(DATABASE).join(name))?;
        }
        Ok(())
    }
}

#[async_trait(?Send)]
impl Packages for Apt {
    async fn refresh(&self, context: &StepContext) -> PortResult<()> {
        Self::check_locks()?;
        worker::run(tasks::REFRESH, &(), context).await
    }

    async fn resolve(
        &self,
        selection: &Selection,
        kept: &[PackageName],
        context: &StepContext,
    ) -> PortResult<Resolution> {
        Self::check_locks()?;
        let request = tasks::ResolveRequest { selection: selection.clone(), kept: kept.to_vec() };
        let mut resolution: Resolution = worker::run(tasks::RESOLVE, &request, context).await?;
        for change in &mut resolution.changes {
            let versions = [&change.old_version, &change.new_version];
            let [old, new] = versions.map(|version| version.as_ref().map(Version::as_str));
            (change.class, change.class_reason) = classify(change.name.as_str(), old, new);
        }
        Ok(resolution)
    }

    async fn difference(
        &self,
        old: &CommitId,
        new: &CommitId,
        context: &StepContext,
    ) -> PortResult<Vec<PackageChange>> {
        let path = database_in_tree()?;
        let old = read_status(old, &path, context).await?;
        let new = read_status(new, &path, context).await?;
        difference::difference(&old, &new)
    }

    async fn impact(&self, changes: &[PackageChange]) -> PortResult<Impact> {
        let changes = changes.to_vec();
        let (touched, space) = blocking(move || {
            let database = Path::new(DATABASE);
            let text = live_status()?;
            let status = Status::parse(&text);
            let touched = impact::touched(&changes, &status, database, Path::new("/"))?;
            let space = Places::default().needs(&changes, &status, text.len() as u64)?;
            Ok((touched, space))
        })
        .await?;
        let uses = self.processes.users_of(&touched.files).await?;
        Ok(Impact {
            units: impact::units(touched.services, uses),
            etc_conflicts: touched.conflicts,
            space,
        })
    }

    async fn lock_archives(&self) -> PortResult<()> {
        if self.archives.borrow().is_some() {
            return Ok(());
        }
        let lock = FileLock::take(&Path::new(paths::ARCHIVES).join("lock"))?;
        self.archives.replace(Some(lock));
        Ok(())
    }

    async fn unlock_archives(&self) -> PortResult<()> {
        self.archives.take();
        Ok(())
    }

    async fn installed(&self) -> PortResult<BTreeMap<(String, String), String>> {
        blocking(|| {
            let status = Status::parse(&live_status()?);
            let installed = status.packages().filter(|package| package.is_installed());
            Ok(installed
                .map(|one| ((one.name.clone(), one.architecture.clone()), one.version.clone()))
                .collect())
        })
        .await
    }

    async fn services_with(
        &self,
        conffiles: &[PathBuf],
    ) -> PortResult<BTreeMap<PathBuf, Vec<UnitName>>> {
        if conffiles.is_empty() {
            return Ok(BTreeMap::new());
        }
        let conffiles = conffiles.to_vec();
        blocking(move || {
            let status = Status::parse(&live_status()?);
            configured::services(&conffiles, &status, Path::new(DATABASE))
        })
        .await
    }

    async fn fetch_through_apt(
        &self,
        change: &PackageChange,
        context: &StepContext,
    ) -> PortResult<()> {
        let request = tasks::FetchRequest { change: change.clone() };
        worker::run(tasks::FETCH, &request, context).await
    }
}

/// The running tree's dpkg status.
fn live_status() -> PortResult<String> {
    let path = Path::new(DATABASE).join("status");
    fs::read_to_string(&path).map_err(|error| {
        let what = format!("{} cannot be read", path.display());
        Failure::caused(ErrorCode::DatabaseOutsideTree, &what, &error)
    })
}

/// Where the running tree has dpkg's status, without the leading `/`; both trees of a difference
/// come from the same kind of image.
fn database_in_tree() -> PortResult<PathBuf> {
    let directory = fs::canonicalize(DATABASE).map_err(|error| {
        Failure::caused(ErrorCode::DatabaseOutsideTree, "there is no dpkg database", &error)
    })?;
    match directory.strip_prefix("/") {
        Ok(relative) if relative.starts_with("usr") => Ok(relative.join("status")),
        _ => Err(Failure::new(
            ErrorCode::DatabaseOutsideTree,
            format!("the dpkg database is at {}, outside of /usr", directory.display()),
        )),
    }
}

/// dpkg's status in a commit, through the worker's `read-file` task.
async fn read_status(commit: &CommitId, path: &Path, context: &StepContext) -> PortResult<String> {
    let request = ReadFileRequest { commit: commit.clone(), path: path.to_owned() };
    let answer: ReadFileAnswer = worker::run("read-file", &request, context).await?;
    let Some(encoded) = answer.base64 else {
        return Err(Failure::new(
            ErrorCode::DatabaseOutsideTree,
            format!("commit {} has no dpkg database at /{}", commit.short(), path.display()),
        ));
    };
    let bytes = STANDARD.decode(encoded).map_err(|error| {
        Failure::caused(ErrorCode::Internal, "the worker's answer makes no sense", &error)
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What `read-file` is asked.
#[derive(Serialize)]
struct ReadFileRequest {
    commit: CommitId,
    path: PathBuf,
}

/// What `read-file` answers: the file, if the commit has it.
#[derive(Deserialize)]
struct ReadFileAnswer {
    base64: Option<String>,
}

async fn blocking<Answer: Send + 'static>(
    work: impl FnOnce() -> PortResult<Answer> + Send + 'static,
) -> PortResult<Answer> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Failure::caused(ErrorCode::Internal, "the installed packages could not be read", &error)
    })?
}

#[cfg(test)]
mod tests {
    use apt_ostree_proto::id::{Architecture, PackageName, Sha256, Version};
    use apt_ostree_proto::package::{Action, Origin, PackageFile, UpdateClass};

    use super::*;

    /// A change of a package with a file of 500 bytes.
    pub(super) fn change(
        name: &str,
        old: Option<&str>,
        new: Option<&str>,
        installed_growth_bytes: i64,
    ) -> PackageChange {
        let version = |text: Option<&str>| text.map(|text| Version::parse(text).unwrap());
        PackageChange {
            name: PackageName::parse(name.repeat(2)).unwrap(),
            architecture: Architecture::parse("amd64").unwrap(),
            action: Action::Upgrade,
            old_version: version(old),
            new_version: version(new),
            source: name.to_owned(),
            automatic: false,
            origin: Origin::default(),
            installed_growth_bytes,
            class: UpdateClass::Live,
            class_reason: None,
            file: Some(PackageFile {
                uris: vec!["http://m.example/p.deb".to_owned()],
                cache_name: "p_2_amd64.deb".to_owned(),
                sha256: Sha256::parse("0".repeat(64)).unwrap(),
                size_bytes: 500,
            }),
        }
    }
}
