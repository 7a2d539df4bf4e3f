//! What a caller asks for.

use serde::{Deserialize, Serialize};

use crate::id::{CommitId, PlanId, TransactionId};
use crate::package::PackageSpec;

/// Which units a transaction restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// What the packages' own maintainer scripts ask for; for a ready tree, units whose files changed.
    #[default]
    AsPackagesAsk,
    /// Also every other service that still runs replaced code.
    Affected,
    /// None.
    Never,
}

/// The tree that a transaction leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Packages on top of what runs now.
    Packages(Selection),
    /// A commit that is in the repository already.
    Commit(CommitId),
    /// The staged or pending deployment that somebody else made.
    Pending,
    /// The state before an earlier transaction.
    Before(TransactionId),
}

/// Which packages to change. All empty means: upgrade what is upgradable, install what that newly
/// depends on, remove nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Upgrade only these (and what they then need).
    #[serde(default)]
    pub upgrade: Vec<PackageSpec>,
    /// Install these.
    #[serde(default)]
    pub install: Vec<PackageSpec>,
    /// Remove these.
    #[serde(default)]
    pub remove: Vec<PackageSpec>,
}

impl Selection {
    /// Whether this is the whole upgrade.
    pub fn is_whole_upgrade(&self) -> bool {
        self.upgrade.is_empty() && self.install.is_empty() && self.remove.is_empty()
    }
}

/// One request to change the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateRequest {
    /// Where to go.
    pub target: Target,
    /// Which units to restart.
    pub restart: RestartPolicy,
    /// Whether to fetch the package lists first.
    pub refresh: bool,
    /// Go on past a named risk; never past a failed signature, hash or health check.
    pub force: bool,
    /// Apply exactly this plan, or refuse it as stale.
    pub plan: Option<PlanId>,
    /// For how long the applied update waits for somebody to confirm it before it is put back; 0:
    /// it is not to be confirmed; none: what the host's configuration says.
    #[serde(default)]
    pub confirm_timeout_seconds: Option<u32>,
}

/// The shortest time in which an update can be asked to be confirmed: anybody needs as long to type it.
pub const SHORTEST_CONFIRM_TIMEOUT_SECONDS: u32 = 5;

/// The longest: a working day and the night after it. Until it is over nothing else can be updated.
pub const LONGEST_CONFIRM_TIMEOUT_SECONDS: u32 = 24 * 60 * 60;

/// Whether an update can wait so long for its confirmation; 0 stands for no confirmation.
pub fn is_confirm_timeout(seconds: u32) -> bool {
    seconds == 0
        || (SHORTEST_CONFIRM_TIMEOUT_SECONDS..=LONGEST_CONFIRM_TIMEOUT_SECONDS).contains(&seconds)
}

impl UpdateRequest {
    /// A request with the defaults of `apt-ostree apply-live`.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            restart: RestartPolicy::default(),
            refresh: true,
            force: false,
            plan: None,
            confirm_timeout_seconds: None,
        }
    }
}

/// Who asked, as the bus and logind tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The user id.
    pub uid: u32,
    /// The bus's unique name; empty for the daemon itself.
    pub bus_name: String,
}
