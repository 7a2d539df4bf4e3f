//! What the worker's `sandbox` task is asked.

use std::path::PathBuf;

use apt_ostree_proto::TransactionId;
use serde::{Deserialize, Serialize};

use crate::host::worker::tasks::InstallRequest;

/// Becomes a sandbox that runs the `install` task: [`SandboxRequest`], answers what that answers.
pub const SANDBOX: &str = "sandbox";
/// The path on which dpkg and the scripts look for programs: the shims first.
pub const SCRIPT_PATH: &str = "/run/shim:/usr/sbin:/usr/bin:/sbin:/bin";

/// What [`SANDBOX`] is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxRequest {
    /// Whose staging area.
    pub transaction: TransactionId,
    /// The running `/usr`, as a directory below `/sysroot`.
    pub lower_usr: PathBuf,
    /// The state of every unit, for scripts that ask.
    pub units: Vec<KnownUnit>,
    /// Whether a kernel changes: else nobody needs a new initramfs.
    pub kernel_changes: bool,
    /// What the `install` task in the sandbox is asked.
    pub install: InstallRequest,
}

/// A unit as scripts see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownUnit {
    /// Its full name.
    pub name: String,
    /// `LoadState`
    pub load: String,
    /// `ActiveState`
    pub active: String,
    /// `SubState`
    pub sub: String,
}
