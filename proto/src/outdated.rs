//! What runs old code now, whatever brought the new: an update whose restarts were left out, a
//! rollback, a package that was installed otherwise.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::UnitName;
use crate::service::{Reason, UnitEffect};

/// Everything that runs code other than what the present tree has in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outdated {
    /// Units of the system manager, by name: why each is here, and what restarting them would do, or
    /// why it is left alone.
    pub units: Vec<UnitEffect>,
    /// Running units that need one which would go down, and so would go down and up with it.
    pub followers: Vec<UnitName>,
    /// What belongs to no unit of the system manager. Nobody but its owner restarts it.
    pub others: Vec<Others>,
    /// How many units and others are found and not listed: an answer has a limit.
    pub left_out: u64,
    /// How many processes were looked at.
    pub processes: u64,
    /// The kernel; none where it is not the host's own business, as in a container.
    pub kernel: Option<Kernel>,
}

impl Outdated {
    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.others.is_empty() && self.left_out == 0
    }
}

/// What came of restarting what ran old code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarted {
    /// The units that were restarted, and stayed up.
    pub units: Vec<UnitName>,
    /// What the admin should know.
    pub warnings: Vec<String>,
    /// What still runs old code; nothing also where that is not known, of which a warning tells.
    pub left: Outdated,
}

/// Processes outside of the system manager's units that run old code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Others {
    /// Whose they are.
    pub place: Place,
    /// How many there are.
    pub processes: u64,
    /// Why, for the first of them.
    pub reasons: Vec<Reason>,
}

/// Where a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Place {
    /// On the host, as part of the system.
    #[default]
    Host,
    /// In a user's session.
    User {
        /// The user.
        uid: u32,
        /// The unit of that user's own manager, or the session's scope; none where that is not told.
        unit: Option<UnitName>,
    },
    /// In a container: among processes and files of its own. Its files are not the host's.
    Container {
        /// What its control group is called; the unit that holds it for one without a name.
        name: String,
    },
    /// Below another root directory.
    Chroot {
        /// That directory.
        root: PathBuf,
        /// The unit of the system manager that the process belongs to, if it does.
        unit: Option<UnitName>,
    },
}

/// The kernel that runs and the one that boots next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// The release that runs: uname(2).
    pub running: String,
    /// The release that boots next; none where that cannot be told.
    pub expected: Option<String>,
}
