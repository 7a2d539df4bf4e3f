//! How the units of a plan are stopped and started, beyond what is done with each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use apt_ostree_proto::UnitName;
use apt_ostree_proto::strategy::Strategy;

use super::ServicePlan;

/// The longest that a job may take. Above systemd's own default limits for a restart (90 s to stop
/// and 90 s to start), so that systemd, which knows the unit's own limits, is the first to give up.
const JOB_TIMEOUT: Duration = Duration::from_secs(200);

/// The same for units that may take their time: within what a step may take, and before the rescue
/// guard takes the new tree off.
const GRACEFUL_JOB_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// How long jobs may take, and which units go one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manner {
    graceful: BTreeSet<UnitName>,
    groups: BTreeMap<UnitName, String>,
}

impl Manner {
    pub(super) fn of(plan: &ServicePlan) -> Self {
        let is_graceful = |unit: &UnitName| {
            let effect = plan.effects.iter().find(|effect| effect.unit == *unit);
            effect.is_some_and(|effect| effect.strategy == Strategy::Graceful)
        };
        let grouped = |unit: UnitName| {
            let effect = plan.effects.iter().find(|effect| effect.unit == unit)?;
            effect.group.clone().map(|group| (unit, group))
        };
        let touched = plan.touched();
        Self {
            graceful: touched.iter().filter(|unit| is_graceful(unit)).cloned().collect(),
            groups: touched.into_iter().filter_map(grouped).collect(),
        }
    }

    /// The longest that one job of `unit` may take.
    pub(super) fn job_timeout(&self, unit: &UnitName) -> Duration {
        if self.graceful.contains(unit) { GRACEFUL_JOB_TIMEOUT } else { JOB_TIMEOUT }
    }

    /// How many units the largest group has, and one where there is none.
    pub(super) fn most_in_a_group(&self) -> u32 {
        let mut counts = BTreeMap::<&str, u32>::new();
        for group in self.groups.values() {
            *counts.entry(group).or_default() += 1;
        }
        counts.into_values().max().unwrap_or(1)
    }

    /// The group whose units go one by one.
    pub(super) fn group(&self, unit: &UnitName) -> Option<&str> {
        self.groups.get(unit).map(String::as_str)
    }
}
