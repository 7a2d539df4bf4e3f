//! The steps of a transaction, in their order.

use serde::{Deserialize, Serialize};

/// One step of a transaction. The order of the variants is the order in which steps run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Refresh the lists, resolve, classify, predict, check space.
    Plan,
    /// Fetch the packages, and verify each as soon as it is there.
    Download,
    /// All packages are there and verified.
    Verify,
    /// Build the private root that the packages are installed in.
    Stage,
    /// Run dpkg in it.
    Install,
    /// Commit the change and check the new tree out beside the deployments.
    Commit,
    /// Record the units' states; stop those that must stop before the switch.
    StopUnits,
    /// Mount the new `/usr`, change `/etc` and `/var`, reload the managers.
    Switch,
    /// Start, restart and reload units.
    StartUnits,
    /// Watch the touched units.
    CheckHealth,
    /// Wait for somebody to confirm that the host is well; only where that was asked for.
    Confirm,
    /// Deploy the commit for the next boot: the pivot.
    Deploy,
    /// Stage the deployment, write the history, drop what is no longer needed.
    Finalize,
}

impl Step {
    /// All steps, in their order.
    const ALL: &[Self] = &[
        Self::Plan,
        Self::Download,
        Self::Verify,
        Self::Stage,
        Self::Install,
        Self::Commit,
        Self::StopUnits,
        Self::Switch,
        Self::StartUnits,
        Self::CheckHealth,
        Self::Confirm,
        Self::Deploy,
        Self::Finalize,
    ];

    /// The steps of an update from packages.
    pub const FROM_PACKAGES: &[Self] = &[
        Self::Plan,
        Self::Download,
        Self::Verify,
        Self::Stage,
        Self::Install,
        Self::Commit,
        Self::StopUnits,
        Self::Switch,
        Self::StartUnits,
        Self::CheckHealth,
        Self::Deploy,
        Self::Finalize,
    ];

    /// The steps of a switch to a tree that is in the repository already.
    pub const FROM_COMMIT: &[Self] = &[
        Self::Plan,
        Self::Commit,
        Self::StopUnits,
        Self::Switch,
        Self::StartUnits,
        Self::CheckHealth,
        Self::Deploy,
        Self::Finalize,
    ];

    /// The steps of an update from packages that takes effect with the next boot.
    pub const FROM_PACKAGES_AT_BOOT: &[Self] = &[
        Self::Plan,
        Self::Download,
        Self::Verify,
        Self::Stage,
        Self::Install,
        Self::Commit,
        Self::Deploy,
        Self::Finalize,
    ];

    /// The steps that lead, with the next boot, to a tree that is in the repository already.
    pub const FROM_COMMIT_AT_BOOT: &[Self] =
        &[Self::Plan, Self::Commit, Self::Deploy, Self::Finalize];

    /// `steps` with the wait for a confirmation where it belongs: before the pivot. Nothing is
    /// confirmed where there is no pivot.
    pub fn with_confirmation(steps: &[Self]) -> Vec<Self> {
        let confirmed = |step: &Self| (*step == Self::Deploy).then_some(Self::Confirm);
        steps.iter().flat_map(|step| confirmed(step).into_iter().chain([*step])).collect()
    }

    /// Its name on the wire and in the journal.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Download => "download",
            Self::Verify => "verify",
            Self::Stage => "stage",
            Self::Install => "install",
            Self::Commit => "commit",
            Self::StopUnits => "stop-units",
            Self::Switch => "switch",
            Self::StartUnits => "start-units",
            Self::CheckHealth => "check-health",
            Self::Confirm => "confirm",
            Self::Deploy => "deploy",
            Self::Finalize => "finalize",
        }
    }

    /// Reads a name that [`Step::name`] gave.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|step| step.name() == name)
    }

    /// What the step does, for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Plan => "Planning",
            Self::Download => "Downloading",
            Self::Verify => "Verifying",
            Self::Stage => "Staging",
            Self::Install => "Installing",
            Self::Commit => "Committing",
            Self::StopUnits => "Stopping units",
            Self::Switch => "Switching /usr",
            Self::StartUnits => "Starting units",
            Self::CheckHealth => "Checking health",
            Self::Confirm => "Waiting for confirmation",
            Self::Deploy => "Deploying for the next boot",
            Self::Finalize => "Finishing",
        }
    }

    /// Whether there is something to put back once this step has started: a staging area, a commit,
    /// or the host itself. Before that, a failure leaves only caches behind.
    pub fn leaves_work_to_undo(self) -> bool {
        self >= Self::Stage
    }

    /// The step's share of the whole transaction's time, in percent, as measured on a typical update
    /// of ten packages. The shares of all steps add up to 100: the percentage stands still while
    /// somebody is waited for.
    pub fn weight(self) -> u32 {
        match self {
            Self::Plan | Self::Commit | Self::StartUnits => 8,
            Self::Download => 20,
            Self::Verify | Self::Stage | Self::StopUnits => 2,
            Self::Install => 26,
            Self::Switch => 4,
            Self::CheckHealth => 10,
            Self::Confirm => 0,
            Self::Deploy | Self::Finalize => 5,
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_of_a_whole_update_add_up_to_a_hundred() {
        for steps in [Step::FROM_PACKAGES, Step::ALL] {
            assert_eq!(steps.iter().map(|step| step.weight()).sum::<u32>(), 100);
        }
    }

    #[test]
    fn steps_run_in_the_order_of_their_variants_and_keep_their_names() {
        let at_boot = [Step::FROM_PACKAGES_AT_BOOT, Step::FROM_COMMIT_AT_BOOT];
        for steps in [Step::FROM_PACKAGES, Step::FROM_COMMIT, Step::ALL].into_iter().chain(at_boot)
        {
            assert!(steps.is_sorted());
            for step in steps {
                assert_eq!(Step::parse(step.name()), Some(*step));
            }
        }
    }
    #[test]
    fn a_confirmation_comes_right_before_the_pivot_and_only_where_there_is_one() {
        assert_eq!(Step::with_confirmation(Step::FROM_PACKAGES), Step::ALL);
        let from_commit = Step::with_confirmation(Step::FROM_COMMIT);
        assert!(from_commit.is_sorted() && from_commit.contains(&Step::Confirm));
        assert_eq!(Step::with_confirmation(&[Step::Plan]), [Step::Plan]);
    }
}
