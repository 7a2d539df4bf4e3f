use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use apt_ostree_proto::plan::Plan;
use apt_ostree_proto::service::UnitState;
use apt_ostree_proto::{CommitId, Failure, UnitName};
use serde::{Deserialize, Serialize};

use crate::clock::Deadline;
use crate::port::{CommittedTree, Delta, InstallReport};
use crate::saga::Mark;
use crate::service::ServicePlan;

/// The time since 1970 when this process first asked for it, and when that was.
static BEGUN: OnceLock<(Duration, Instant)> = OnceLock::new();

/// One entry of a transaction's log: what happened, and what a later step or an undo needs of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What happened.
    pub mark: Mark,
    /// What came of it.
    pub payload: Option<Payload>,
    /// When, in milliseconds since 1970, by the clock as this process first found it: so that setting the
    /// clock makes no step longer or shorter.
    pub at_milliseconds: i64,
}

impl Entry {
    /// An entry of this moment that carries nothing.
    pub fn new(mark: Mark) -> Self {
        let (begun, begun_at) = *BEGUN.get_or_init(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (since, Instant::now())
        });
        let at_milliseconds = (begun + begun_at.elapsed()).as_millis();
        let at_milliseconds = i64::try_from(at_milliseconds).unwrap_or(i64::MAX);
        Self { mark, payload: None, at_milliseconds }
    }

    /// The same with something to carry.
    pub fn with(mut self, payload: Payload) -> Self {
        self.payload = Some(payload);
        self
    }
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Payload {
    /// Of Plan, succeeded.
    Plan(Plan),
    /// Of Install, succeeded.
    Installed(InstallReport),
    /// Of Commit, succeeded: everything that the switch and its undo need.
    Committed(Box<Committed>),
    /// Of `StopUnits`, started: what its undo needs.
    UnitStates(BTreeMap<UnitName, UnitState>),
    /// Of Confirm, started: until when it is waited for.
    ConfirmBy(Deadline),
    /// Of Deploy, started: what its undo and the recovery need.
    Deploying(CommitId),
    /// Of anything that failed.
    Failure(Failure),
    /// Warnings that a step left.
    Warnings(Vec<String>),
}

/// A tree that is ready to be switched to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    /// The tree.
    pub tree: CommittedTree,
    /// What `/etc` and `/var` get.
    pub delta: Delta,
    /// What happens to which units.
    pub services: ServicePlan,
}
