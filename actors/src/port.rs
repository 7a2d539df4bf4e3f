//! The edges: what the actors need of a host. The real implementations stand in the `host` module
//! of the daemon, the simulated ones in [`crate::sim`]; one contract suite runs on both.
//!
//! Rules for every method, unless it says otherwise:
//! - It may be called again after a crash at any point: effects are idempotent, undos tolerate an
//!   effect that never happened.
//! - An error means that the effect may or may not have happened.
//! - It hears `context.cancel` where it takes a context.

mod archive;
mod checks;
mod files;
mod http;
mod mounts;
mod packages;
mod processes;
mod retention;
mod sandbox;
mod systemd;
mod tree;

pub use archive::{Archive, ArchiveContents};
pub use checks::{
    CheckAnswer, CheckLevel, Checks, Hook, HookCall, HookKind, HookPhase, Probe, Probes, Question,
};
pub use files::{Delta, DeltaEntry, DeltaSource, FileIdentity, Files, Placement, RebootAdvice};
pub use http::{FetchError, FetchRequest, FetchResponse, Http};
pub use mounts::{LayerOwner, Mounts, TreeIdentity, UsrLayer, UsrLook, UsrMount};
pub use packages::{Impact, Packages, Resolution};
pub use processes::{Manner, ProcessUse, Processes, ReplacedFile, Sighting, TreeChange};
pub use retention::{Retention, Undoable};
pub use sandbox::{InstallReport, InstallTest, Sandbox};
pub use systemd::{JobOutcome, Systemd, UnitDependencies};
pub use tree::{
    CommitCondition, CommittedTree, DeploymentLook, FileDifference, FileDifferenceKind, HostTree,
    LiveLook, Tree, TreeComparison, TreeLook, TreeMetadata,
};

use std::rc::Rc;

use apt_ostree_proto::Failure;

/// What a port answers.
pub type PortResult<T> = Result<T, Failure>;

/// All ports of one host.
#[derive(Clone, Debug)]
pub struct Host {
    /// The package manager.
    pub packages: Rc<dyn Packages>,
    /// Package files.
    pub archive: Rc<dyn Archive>,
    /// Downloads.
    pub http: Rc<dyn Http>,
    /// Trees, commits and deployments.
    pub tree: Rc<dyn Tree>,
    /// Where packages are installed before they are committed.
    pub sandbox: Rc<dyn Sandbox>,
    /// What is mounted on `/usr`.
    pub mounts: Rc<dyn Mounts>,
    /// `/etc` and `/var`.
    pub files: Rc<dyn Files>,
    /// The service manager.
    pub systemd: Rc<dyn Systemd>,
    /// Running processes.
    pub processes: Rc<dyn Processes>,
    /// Probes of services, and hooks.
    pub checks: Rc<dyn Checks>,
}
