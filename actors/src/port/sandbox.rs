use apt_ostree_proto::TransactionId;
use apt_ostree_proto::package::PackageChange;
use apt_ostree_proto::service::ScriptRequest;
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

    /// Ends whatever still runs in the transaction's sandbox. Undo.
    async fn kill(&self, transaction: TransactionId) -> PortResult<()>;
}

/// What came of an installation, besides files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallReport {
    /// What the maintainer scripts asked of which units, in their order.
    pub requests: Vec<ScriptRequest>,
}
