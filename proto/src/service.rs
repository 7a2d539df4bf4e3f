//! Units: what an update does to them, and why.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{PackageName, UnitName, UnitPattern};
use crate::strategy::Strategy;

/// What a maintainer script wanted of a unit, as the shims recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptRequest {
    /// The package whose script asked.
    pub package: String,
    /// Which script: `postinst`, `prerm`, …
    pub script: String,
    /// The verb.
    pub verb: ScriptVerb,
    /// The unit; none for manager-wide verbs such as `daemon-reload`.
    pub unit: Option<UnitName>,
    /// In place of one unit: all of these that are loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<UnitPattern>,
}

/// The verbs of `systemctl`, `deb-systemd-invoke`, `invoke-rc.d` and `service` that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScriptVerb {
    /// Start it if it is not running.
    Start,
    /// Stop it.
    Stop,
    /// Stop and start it.
    Restart,
    /// Restart it only if it runs.
    TryRestart,
    /// Have it read its configuration again.
    Reload,
    /// Reload if it can, else restart.
    ReloadOrRestart,
    /// The same, only if it runs.
    TryReloadOrRestart,
    /// Have the manager read unit files again.
    DaemonReload,
    /// Have the manager execute itself anew.
    DaemonReexec,
}

/// Why a unit is affected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Reason {
    /// A maintainer script asked.
    Script {
        /// The package whose script it was.
        package: String,
        /// What it asked for.
        verb: ScriptVerb,
    },
    /// Its unit file, or a drop-in, changed.
    UnitFile {
        /// The file that changed.
        path: PathBuf,
    },
    /// A configuration file that goes by its name changed.
    Configuration {
        /// The file.
        path: PathBuf,
    },
    /// A process of its maps or executes a file that was replaced or removed.
    OldCode {
        /// The process.
        pid: u32,
        /// The file, as it was called when it was replaced.
        path: PathBuf,
    },
    /// A process of its is an interpreter whose program, or a module that the program names, changed
    /// since: what was read once is mapped nowhere.
    Interpreted {
        /// The process.
        pid: u32,
        /// The program or module.
        path: PathBuf,
    },
    /// It has a mount of its own below `/usr`, which a switch takes from it.
    OwnMount {
        /// Where that mount is.
        path: PathBuf,
    },
    /// A package that it belongs to changes: a prediction, made before anything was staged.
    Package {
        /// The package.
        package: PackageName,
    },
}

/// What is done with an affected unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitAction {
    /// Stopped before the switch, started after it.
    StopStart,
    /// Stopped before the switch, and left so: its package goes.
    Stop,
    /// Restarted after the switch.
    Restart,
    /// Told to reload after the switch.
    Reload,
    /// Started after the switch; it did not run before.
    Start,
    /// Left alone; the reason says why.
    Leave,
}

/// One affected unit in a plan or a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitEffect {
    /// The unit.
    pub unit: UnitName,
    /// What is done with it.
    pub action: UnitAction,
    /// Why it is affected.
    pub reasons: Vec<Reason>,
    /// Why it is left alone, where it is.
    pub left_because: Option<String>,
    /// How it gets its new code, where the configuration says so.
    #[serde(default)]
    pub strategy: Strategy,
    /// The group whose units are restarted one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

impl UnitEffect {
    /// What is done with a unit that nothing is configured for.
    pub fn new(unit: UnitName, action: UnitAction, reasons: Vec<Reason>) -> Self {
        let (left_because, group) = (None, None);
        Self { unit, action, reasons, left_because, strategy: Strategy::Automatic, group }
    }
}

/// A unit's state as the manager reports it. Texts, because systemd adds states over time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitState {
    /// `LoadState`: `loaded`, `not-found`, `masked`, …
    pub load: String,
    /// `ActiveState`: `active`, `inactive`, `failed`, `activating`, …
    pub active: String,
    /// `SubState`: `running`, `exited`, `dead`, …
    pub sub: String,
    /// `Result` of a service: `success`, `exit-code`, `timeout`, …; empty for other types.
    pub result: String,
    /// `NRestarts` of a service.
    pub restarts: u32,
    /// `MainPID` of a service; 0 when it has none.
    pub main_pid: u32,
    /// `UnitFileState`: `enabled`, `disabled`, `static`, …
    pub unit_file: String,
}

impl UnitState {
    /// Whether the unit does its work now.
    pub fn is_up(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading" | "refreshing")
    }

    /// Whether the unit failed.
    pub fn is_failed(&self) -> bool {
        self.active == "failed"
    }
}

/// What a service uses, as the kernel accounts for its control group. None where it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitUsage {
    /// `MemoryCurrent`
    pub memory_bytes: Option<u64>,
    /// `CPUUsageNSec`
    pub processor_time: Option<Duration>,
    /// How long it has been up.
    pub up_for: Option<Duration>,
}
