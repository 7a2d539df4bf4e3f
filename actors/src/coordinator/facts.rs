//! What a transaction knows so far: a fold over its log, so that a daemon that was killed knows as
//! much as the one before it.

use std::collections::BTreeMap;

use apt_ostree_proto::plan::Plan;
use apt_ostree_proto::service::UnitState;
use apt_ostree_proto::step::Step;
use apt_ostree_proto::{CommitId, Failure, UnitName};

use crate::clock::Deadline;
use crate::journal::{Committed, Entry, Payload};
use crate::port::{Delta, InstallReport};
use crate::saga::Mark;

/// What the log's entries carried.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) plan: Option<Plan>,
    pub(super) installed: InstallReport,
    pub(super) committed: Option<Committed>,
    /// None until a unit may have been touched.
    pub(super) unit_states: Option<BTreeMap<UnitName, UnitState>>,
    pub(super) confirm_by: Option<Deadline>,
    pub(super) deploying: Option<CommitId>,
    pub(super) failure: Option<Failure>,
    pub(super) warnings: Vec<String>,
}

impl Facts {
    /// The facts of a whole log.
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut facts = Self::default();
        for entry in entries {
            facts.take(entry);
        }
        facts
    }

    /// Adds one entry's.
    pub(super) fn take(&mut self, entry: &Entry) {
        if let (Mark::Reopened, Some(reason)) = (entry.mark, &mut self.failure) {
            reason.undo = None;
        }
        match entry.payload.clone() {
            Some(Payload::Plan(plan)) => self.plan = Some(plan),
            Some(Payload::Installed(report)) => self.installed = report,
            Some(Payload::Committed(committed)) => {
                self.warnings.extend(left_alone(&committed.delta));
                self.committed = Some(*committed);
            }
            Some(Payload::UnitStates(states)) => self.unit_states = Some(states),
            Some(Payload::ConfirmBy(deadline)) => self.confirm_by = Some(deadline),
            Some(Payload::Deploying(commit)) => self.deploying = Some(commit),
            Some(Payload::Warnings(warnings)) => self.warnings.extend(warnings),
            Some(Payload::Failure(failure)) => self.take_failure(entry.mark, failure),
            None => {}
        }
    }

    /// The first failure is the reason; that of an undo is told beside it.
    fn take_failure(&mut self, mark: Mark, failure: Failure) {
        match (&mut self.failure, mark) {
            (Some(reason), Mark::UndoFailed(_)) => reason.undo = Some(Box::new(failure)),
            (Some(_), _) => {}
            (none, _) => *none = Some(failure),
        }
    }
}

/// What of `/etc` and `/var` the new tree's packages would have otherwise.
fn left_alone(delta: &Delta) -> impl Iterator<Item = String> + '_ {
    let data = delta.live_data.iter().map(|path| {
        format!("{path} was left as it is: a package script changes it, and services use it")
    });
    delta.kept.iter().cloned().chain(data)
}

/// How long each step took, in milliseconds, in their order; undos are named `undo-…`.
pub(super) fn durations(entries: &[Entry]) -> Vec<(String, u64)> {
    let mut durations = Vec::new();
    let mut begun: Option<(String, i64)> = None;
    let name = |step: Step, undo: bool| format!("{}{step}", if undo { "undo-" } else { "" });
    for entry in entries {
        match entry.mark {
            Mark::Started(step) => begun = Some((name(step, false), entry.at_milliseconds)),
            Mark::UndoStarted(step) => begun = Some((name(step, true), entry.at_milliseconds)),
            Mark::Succeeded(_) | Mark::Failed(_) | Mark::Undone(_) | Mark::UndoFailed(_) => {
                if let Some((name, at)) = begun.take() {
                    let took = u64::try_from(entry.at_milliseconds - at).unwrap_or(0);
                    durations.push((name, took));
                }
            }
            Mark::Aborted(_) | Mark::Satisfied | Mark::Finished(_) | Mark::Reopened => {}
        }
    }
    durations
}
