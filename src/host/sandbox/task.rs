//! What the worker's `sandbox` task is asked.

use std::path::PathBuf;

use apt_ostree_proto::TransactionId;
use serde::{Deserialize, Serialize};

use crate::host::worker::tasks::{self, InstallRequest, TestRequest};

/// Becomes a sandbox that runs another task: [`SandboxRequest`], answers what that answers.
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
    /// What runs in the sandbox.
    pub inner: Inner,
}

/// The task that runs in the sandbox, and what it is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inner {
    /// Changes the staged root.
    Install(InstallRequest),
    /// Tries what the staged root has become; what it writes there is thrown away.
    Test(TestRequest),
}

impl Inner {
    /// The task's name.
    pub fn task(&self) -> &'static str {
        match self {
            Self::Install(_) => tasks::INSTALL,
            Self::Test(_) => tasks::TEST,
        }
    }

    /// What the task is asked, as it reads it.
    pub fn request(&self) -> serde_json::Result<Vec<u8>> {
        match self {
            Self::Install(request) => serde_json::to_vec(request),
            Self::Test(request) => serde_json::to_vec(request),
        }
    }
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
