use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use apt_ostree_proto::{TransactionId, UnitPattern};

use crate::download::Limits;
use crate::port::{InstallTest, Probes};
use crate::service::Strategies;

/// What the admin can set about transactions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the journal and the transactions' logs are.
    pub state_directory: PathBuf,
    /// apt's archive cache.
    pub archives: PathBuf,
    /// How downloads are bounded.
    pub download: Limits,
    /// How long touched units must stay healthy.
    pub dwell: Duration,
    /// What tells whether packages work before they reach the host.
    pub tests: Vec<InstallTest>,
    /// How units are asked whether they are ready.
    pub probes: Probes,
    /// How long a hook may take.
    pub hook_timeout: Duration,
    /// For how long an update waits for its confirmation where nobody says otherwise; none: it waits
    /// for none.
    pub confirm_timeout: Option<Duration>,
    /// How many finished updates keep their trees, so that they can be rolled back.
    pub keep_updates: u32,
    /// How many bytes these trees may occupy beside what is deployed, if there is a limit; that of
    /// the newest update stays in any case.
    pub keep_bytes: Option<u64>,
    /// How units get their new code, where that is set.
    pub strategies: Strategies,
    /// What units read besides what is known of them: files, and directories of them.
    pub reads: BTreeMap<UnitPattern, Vec<PathBuf>>,
}

impl Settings {
    /// The file that holds every line that a transaction's tools printed.
    pub fn log_of(&self, id: TransactionId) -> PathBuf {
        self.log_directory().join(format!("{id}.log"))
    }

    /// Where these files are.
    pub(super) fn log_directory(&self) -> PathBuf {
        self.state_directory.join("log")
    }
}
