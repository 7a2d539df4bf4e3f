use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use apt_ostree_proto::UnitName;
use apt_ostree_proto::service::{UnitAction, UnitState, UnitUsage};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::PortResult;

/// The service manager.
#[async_trait(?Send)]
pub trait Systemd: std::fmt::Debug {
    /// The state of each unit, loading those that are not loaded. A unit that does not exist has
    /// `load` = `not-found`.
    async fn states(&self, units: &[UnitName]) -> PortResult<BTreeMap<UnitName, UnitState>>;

    /// Every unit that is loaded, with its state's cheap part (load, active, sub).
    async fn list(&self) -> PortResult<BTreeMap<UnitName, UnitState>>;

    /// What each of these services uses; units that do not run are left out.
    async fn usage(&self, units: &[UnitName]) -> PortResult<BTreeMap<UnitName, UnitUsage>>;

    /// How the units hang together.
    async fn dependencies(
        &self,
        units: &[UnitName],
    ) -> PortResult<BTreeMap<UnitName, UnitDependencies>>;

    /// The files below `/etc` that services name as what they read (`EnvironmentFile=`, paths in the
    /// commands that start them), what they were generated from, and the generator. Units of other
    /// types, and those that do not exist, are left out.
    async fn reads(&self, units: &[UnitName]) -> PortResult<BTreeMap<UnitName, Vec<PathBuf>>>;

    /// Starts a unit and waits for its job.
    async fn start(&self, unit: &UnitName, timeout: Duration) -> PortResult<JobOutcome>;

    /// Stops a unit and waits for its job.
    async fn stop(&self, unit: &UnitName, timeout: Duration) -> PortResult<JobOutcome>;

    /// Restarts a unit and waits for its job.
    async fn restart(&self, unit: &UnitName, timeout: Duration) -> PortResult<JobOutcome>;

    /// Reloads a unit if it can, else restarts it, and waits for its job.
    async fn reload_or_restart(&self, unit: &UnitName, timeout: Duration)
    -> PortResult<JobOutcome>;

    /// Whether the host shuts down: every unit is being stopped, and none can be started any more.
    async fn is_stopping(&self) -> PortResult<bool>;

    /// Those of `units` that the host's policy does not let be started, stopped or restarted:
    /// `policy-rc.d` of invoke-rc.d(8), where the admin has one, with what it answered. Only asks.
    async fn forbidden_by_policy(
        &self,
        units: &[(UnitName, UnitAction)],
    ) -> PortResult<BTreeMap<UnitName, String>>;

    /// Clears a unit's failed state, so that start limits do not stand in the way.
    async fn reset_failed(&self, unit: &UnitName) -> PortResult<()>;

    /// Has the manager read its unit files again, and the bus its policies.
    async fn reload_managers(&self) -> PortResult<()>;

    /// Has the host refuse to shut down until [`Systemd::allow_shutdown`], or until this process ends:
    /// logind's inhibitor lock (systemd-inhibit(1)), with `why` for whoever asks. Idempotent.
    async fn hold_shutdown(&self, why: &str) -> PortResult<()>;

    /// Ends [`Systemd::hold_shutdown`]. Idempotent.
    fn allow_shutdown(&self);

    /// Creates what the given tmpfiles fragments describe, and reapplies those about `/run`.
    async fn create_tmpfiles(&self, fragments: &[std::path::PathBuf]) -> PortResult<()>;

    /// Has the kernel confine programs as the profiles among `changed` now say, and no longer as those
    /// that are gone: `apparmor_parser(8)`. Nothing is done where `AppArmor` is not enabled. Answers what
    /// could not be done, for people. Idempotent.
    async fn load_profiles(&self, changed: &[std::path::PathBuf]) -> PortResult<Vec<String>>;

    /// Returns when the state of any unit may have changed, or after `timeout`, whichever is first. A
    /// hint only: a change between two calls can be missed, so callers keep `timeout` short.
    async fn wait_for_change(&self, timeout: Duration) -> PortResult<()>;

    /// The last lines that a unit logged, for a failure's message.
    async fn last_log_lines(&self, unit: &UnitName) -> PortResult<Vec<String>>;
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobOutcome {
    /// As asked.
    Done,
    /// The manager says otherwise: `failed`, `timeout`, `dependency`, `canceled`, `skipped`, …
    Failed(String),
    /// It did not end within the time given; it was cancelled.
    TimedOut,
}

/// A unit's place in the dependency graph.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitDependencies {
    /// The unit's own name where it was asked for by an alias (`sshd.service` is `ssh.service`);
    /// none for a unit that does not exist.
    pub id: Option<UnitName>,
    /// Every name that it has, aliases included: what an alias stands for tells display managers.
    pub names: Vec<UnitName>,
    /// `Requires=`, `BindsTo=`, `Requisite=`: what this unit needs.
    pub requires: Vec<UnitName>,
    /// The reverse of the above, and `PartOf=`: what needs this unit.
    pub required_by: Vec<UnitName>,
    /// `After=`: what must be up before this unit starts.
    pub after: Vec<UnitName>,
    /// Sockets, timers and paths that start this unit: `TriggeredBy=`.
    pub triggered_by: Vec<UnitName>,
    /// The reverse: what this socket, timer or path starts.
    pub triggers: Vec<UnitName>,
    /// Whether `RefuseManualStart=` or `RefuseManualStop=` forbids a restart.
    pub refuses_restart: bool,
    /// Whether the unit can reload.
    pub can_reload: bool,
    /// The unit file and its drop-ins.
    pub files: Vec<std::path::PathBuf>,
}
