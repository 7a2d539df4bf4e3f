use std::collections::BTreeMap;
use std::path::PathBuf;

use apt_ostree_proto::package::PackageChange;
use apt_ostree_proto::plan::{EtcConflict, Refusal, SpaceNeed};
use apt_ostree_proto::request::Selection;
use apt_ostree_proto::service::UnitEffect;
use apt_ostree_proto::{CommitId, PackageName, Sha256, UnitName};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::PortResult;
use crate::context::StepContext;

/// The package manager: libapt, through short-lived worker processes.
#[async_trait(?Send)]
pub trait Packages: std::fmt::Debug {
    /// Fetches the package lists, as `apt update` does. A list that fails its signature fails all:
    /// `Untrusted`; a list that cannot be fetched: `RefreshFailed`. The old lists are kept then.
    async fn refresh(&self, context: &StepContext) -> PortResult<()>;

    /// Decides which versions of which packages `selection` means, with the installed packages of
    /// `kept`, and what then cannot change either, left as they are. Errors: `NotFound` for unknown
    /// packages, `Unsatisfiable` with the packages and relations that clash, `Untrusted` for a
    /// candidate that no signature covers, `Locked` when another apt or dpkg runs.
    async fn resolve(
        &self,
        selection: &Selection,
        kept: &[PackageName],
        context: &StepContext,
    ) -> PortResult<Resolution>;

    /// The packages that differ between the trees of two commits, by their dpkg databases.
    async fn difference(
        &self,
        old: &CommitId,
        new: &CommitId,
        context: &StepContext,
    ) -> PortResult<Vec<PackageChange>>;

    /// What `changes` will touch, as far as it can be told from the installed packages' file lists,
    /// conffiles and the running processes.
    async fn impact(&self, changes: &[PackageChange]) -> PortResult<Impact>;

    /// Takes apt's archive lock until [`Packages::unlock_archives`]. `Locked` names the holder's pid.
    /// Idempotent.
    async fn lock_archives(&self) -> PortResult<()>;

    /// Gives the archive lock back. Idempotent.
    async fn unlock_archives(&self) -> PortResult<()>;

    /// The versions of the installed packages, by name and architecture, as the running tree's database
    /// has them. Only reads.
    async fn installed(&self) -> PortResult<BTreeMap<(String, String), String>>;

    /// The services, templates included, of the packages that ship these files of `/etc`, as the running
    /// tree's database has them. Files that no package ships are left out. Only reads.
    async fn services_with(
        &self,
        conffiles: &[PathBuf],
    ) -> PortResult<BTreeMap<PathBuf, Vec<UnitName>>>;

    /// Fetches one package file into apt's archive cache through apt itself: for schemes other than
    /// http, https, file and copy.
    async fn fetch_through_apt(
        &self,
        change: &PackageChange,
        context: &StepContext,
    ) -> PortResult<()>;
}

/// What the package manager decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// The packages that change, in the order of their names.
    pub changes: Vec<PackageChange>,
    /// What was asked for and is not done: held packages, packages kept back, …
    pub refused: Vec<Refusal>,
    /// The digest of the dpkg status, lists, pins and holds that this was decided from.
    pub inputs: Option<Sha256>,
    /// apt hooks (`DPkg::Pre-Invoke`, …) that the host has configured and the sandbox does not run.
    pub hooks_not_run: Vec<String>,
}

/// What a set of changes will touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impact {
    /// Units that belong to the packages, or whose processes use their files, before the restart
    /// policy and what is never restarted are looked at.
    pub units: Vec<UnitEffect>,
    /// Conffiles that were edited on the host and are shipped by the packages.
    pub etc_conflicts: Vec<EtcConflict>,
    /// The space that fetching, staging and committing take at the most, by file system.
    pub space: Vec<SpaceNeed>,
}
