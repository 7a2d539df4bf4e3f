//! Whether one unit is healthy: pure.

use std::collections::BTreeMap;

use apt_ostree_proto::UnitName;
use apt_ostree_proto::service::UnitState;

use crate::service::describe;

/// What is expected of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expectation {
    /// Its state before the update; none for a unit that was not looked at then.
    before: Option<UnitState>,
    /// Whether the update touched it, and found it up afterwards.
    touched: bool,
}

impl Expectation {
    /// The units that are judged: those that the update left running, and those that ran before and
    /// need them. What had failed before is not the update's failure.
    pub(super) fn all(
        baseline: &BTreeMap<UnitName, UnitState>,
        touched: &[UnitName],
    ) -> BTreeMap<UnitName, Self> {
        let ran = baseline.iter().filter(|(_, state)| state.is_up()).map(|(unit, _)| unit);
        ran.chain(touched)
            .map(|unit| {
                let expectation =
                    Self { before: baseline.get(unit).cloned(), touched: touched.contains(unit) };
                (unit.clone(), expectation)
            })
            .collect()
    }
}

/// What speaks against a unit, if anything does. `first` is its state at the first look after the
/// restarts, `now` the present one.
pub(super) fn verdict(
    expectation: &Expectation,
    first: &UnitState,
    now: &UnitState,
    is_triggered: bool,
) -> Option<String> {
    if now.is_failed() {
        return Some(format!("it is {}", describe(now)));
    }
    // The update took its file away, and it was stopped for that.
    if now.load == "not-found" && now.active == "inactive" && !expectation.touched {
        return None;
    }
    let before = expectation.before.as_ref();
    let restarted_by_itself = restarts(before, first, now);
    if restarted_by_itself > 0 {
        return Some(format!("it restarted by itself {restarted_by_itself} times"));
    }
    if now.is_up() {
        let is_other = first.is_up() && first.main_pid != 0 && now.main_pid != first.main_pid;
        return (is_other && now.main_pid != 0 && expectation.touched).then(|| {
            format!("its main process changed from {} to {}", first.main_pid, now.main_pid)
        });
    }
    // A unit that stops for want of work is as healthy as one that was never asked for.
    if now.active == "inactive" && is_triggered && matches!(now.result.as_str(), "" | "success") {
        return None;
    }
    Some(format!("it is {}, not active", describe(now)))
}

/// How often the unit was restarted by the manager on its own account. A restart that was asked for
/// sets the count back to 0, so a unit with another main process than before counts from there.
fn restarts(before: Option<&UnitState>, first: &UnitState, now: &UnitState) -> u32 {
    let undisturbed = before
        .filter(|before| before.is_up() && before.main_pid == first.main_pid)
        .map_or(0, |before| before.restarts);
    now.restarts.saturating_sub(undisturbed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(active: &str, result: &str, restarts: u32, main_pid: u32) -> UnitState {
        UnitState {
            load: "loaded".to_owned(),
            active: active.to_owned(),
            result: result.to_owned(),
            restarts,
            main_pid,
            ..UnitState::default()
        }
    }

    #[test]
    fn a_unit_is_judged_by_what_changed() {
        let up = |restarts, pid| state("active", "success", restarts, pid);
        for (before, first, now, is_triggered, healthy) in [
            // Restarted as asked, and up.
            (up(0, 10), up(0, 20), up(0, 20), false, true),
            // Untouched, with restarts from long ago.
            (up(3, 10), up(3, 10), up(3, 10), false, true),
            // Restarts from long ago, and one more.
            (up(3, 10), up(3, 10), up(4, 11), false, false),
            // Died between the restart and the first look.
            (up(0, 10), up(1, 21), up(1, 21), false, false),
            (up(0, 10), up(0, 20), state("failed", "exit-code", 0, 0), false, false),
            (up(0, 10), up(0, 20), state("activating", "exit-code", 0, 0), false, false),
            (up(0, 10), up(0, 20), up(0, 21), false, false),
            // Ended with success: only what is started on demand may.
            (up(0, 10), up(0, 20), state("inactive", "success", 0, 0), false, false),
            (up(0, 10), up(0, 20), state("inactive", "success", 0, 0), true, true),
            (up(0, 10), up(0, 20), state("inactive", "exit-code", 0, 0), true, false),
            // A reload, seen in passing.
            (up(0, 10), up(0, 10), state("reloading", "success", 0, 10), false, true),
            // A target has no process.
            (up(0, 0), up(0, 0), up(0, 0), false, true),
        ] {
            let expectation = Expectation { before: Some(before), touched: true };
            let found = verdict(&expectation, &first, &now, is_triggered);
            assert_eq!(found.is_none(), healthy, "{now:?}: {found:?}");
        }
    }

    #[test]
    fn a_unit_whose_file_went_is_judged_only_if_it_was_to_stay() {
        let gone = UnitState { load: "not-found".to_owned(), ..state("inactive", "", 0, 0) };
        let up = state("active", "success", 0, 10);
        for (touched, healthy) in [(false, true), (true, false)] {
            let expectation = Expectation { before: Some(up.clone()), touched };
            assert_eq!(verdict(&expectation, &gone, &gone, false).is_none(), healthy, "{touched}");
        }
        let failed = UnitState { active: "failed".to_owned(), ..gone };
        let expectation = Expectation { before: Some(up), touched: false };
        assert!(verdict(&expectation, &failed, &failed, false).is_some());
    }

    #[test]
    fn only_what_ran_before_or_was_started_is_judged() {
        let name = |name: &str| UnitName::parse(name).unwrap();
        let baseline = BTreeMap::from([
            (name("ran.service"), state("active", "success", 0, 1)),
            (name("failed.service"), state("failed", "exit-code", 0, 0)),
            (name("idle.service"), state("inactive", "success", 0, 0)),
        ]);
        let judged = Expectation::all(&baseline, &[name("new.service")]);
        let names: Vec<_> = judged.keys().map(UnitName::as_str).collect();
        assert_eq!(names, ["new.service", "ran.service"]);
    }
}
