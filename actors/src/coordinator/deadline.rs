//! How long a step or an undo may take before it counts as hung.
//!
//! What a step waits for has limits of its own: jobs, scripts, mirrors that say nothing. These stand
//! behind them all, and are longer than any work that still gets somewhere.

use std::time::Duration;

use apt_ostree_proto::request::LONGEST_CONFIRM_TIMEOUT_SECONDS;
use apt_ostree_proto::step::Step;

/// How long a step that was told to stop may take to return.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// How often an undo, or a step behind the pivot, is begun before it is given up: by one daemon or by
/// several, each of which died or hung in it.
pub(super) const MOST_ATTEMPTS: usize = 3;

const MINUTE: Duration = Duration::from_secs(60);

/// Of a step. `dwell` is how long health is watched.
pub(super) fn of_step(step: Step, dwell: Duration) -> Duration {
    match step {
        // A whole release over a slow line.
        Step::Download => 24 * 60 * MINUTE,
        Step::Plan | Step::Verify | Step::Stage | Step::Commit | Step::Finalize => 30 * MINUTE,
        // The sandbox's own limit is shorter.
        Step::Install => 4 * 60 * MINUTE,
        // With the rescue guard's time in view: it takes off what takes longer in all.
        Step::StopUnits | Step::Switch | Step::StartUnits | Step::Deploy => 15 * MINUTE,
        Step::CheckHealth => dwell + 15 * MINUTE,
        // It ends by itself when the time is up.
        Step::Confirm => Duration::from_secs(LONGEST_CONFIRM_TIMEOUT_SECONDS.into()) + 15 * MINUTE,
    }
}

/// Of any undo.
pub(super) const OF_UNDO: Duration = Duration::from_secs(15 * 60);
