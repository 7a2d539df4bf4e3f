use std::time::Duration;

use apt_ostree_proto::package::PackageChange;
use apt_ostree_proto::service::ScriptRequest;
use apt_ostree_proto::{PackageName, TransactionId};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::PortResult;
use crate::context::StepContext;

/// The private root that packages are installed in.
#[async_trait(?Send)]
pub trait Sandbox: std::fmt::Debug {
    /// Runs real dpkg in the staged root, in an order that libapt stands for. Every line of output
    /// is reported as it comes. When cancelled, every process in the sandbox is gone before this
    /// returns. `InstallFailed` names the package and script, with the last lines of output.
    async fn install(
        &self,
        changes: &[PackageChange],
        context: &StepContext,
    ) -> PortResult<InstallReport>;

    /// Runs those of `tests` whose packages change, or need one that does, in the staged root, one after
    /// the other; what they write there is thrown away. What they print is reported. When cancelled,
    /// every process in the sandbox is gone before this returns. `TestFailed` names the first test that
    /// fails, with the last lines of its output.
    async fn test(
        &self,
        tests: &[InstallTest],
        changes: &[PackageChange],
        context: &StepContext,
    ) -> PortResult<()>;

    /// Ends whatever still runs in the transaction's sandbox. Undo.
    async fn kill(&self, transaction: TransactionId) -> PortResult<()>;
}

/// What came of an installation, besides files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallReport {
    /// What the maintainer scripts asked of which units, in their order.
    pub requests: Vec<ScriptRequest>,
}

/// A command that tells whether what is installed works, before it reaches the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallTest {
    /// What it is called in the configuration.
    pub name: String,
    /// It is about these packages; any of them.
    pub packages: Vec<PackageName>,
    /// The program and its arguments.
    pub arguments: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}
