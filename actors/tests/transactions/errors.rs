//! Failures that a booted host cannot be brought to at will, each with its code.

use std::cell::Cell;

use apt_ostree_actors::sim::{Faults, SimFault, SimHost};
use apt_ostree_proto::ErrorCode;
use apt_ostree_proto::status::Outcome;

use crate::daemon::{directory, golden, in_system, live_through};
use crate::faults::{nth, of_the_first};

/// An update in which one call goes wrong, and the code that it fails with.
fn failed_with(index: usize, fault: SimFault) -> Option<ErrorCode> {
    let (host, state) = (SimHost::booted(), directory());
    let before = host.state();
    let faults = of_the_first(nth(index, fault).0, Faults::default());
    let record = live_through(&host, state.path(), faults);
    assert_eq!(record.outcome, Outcome::RolledBack, "{record:?}");
    assert_eq!(host.state(), before);
    record.failure.map(|failure| failure.code)
}

#[test]
fn a_worker_that_panics_is_an_internal_failure_of_its_step() {
    let calls = in_system(golden()).calls;
    let commit = calls.iter().position(|call| call == "tree.commit").unwrap();
    assert_eq!(failed_with(commit, SimFault::Panic), Some(ErrorCode::Internal));
}

#[test]
fn a_question_that_is_never_answered_times_out() {
    let calls = in_system(golden()).calls;
    let ready = calls.iter().position(|call| call == "mounts.prepare").unwrap();
    // What the units' states are, before anything is done to them.
    let asked = calls[ready..].iter().position(|call| call == "systemd.states").unwrap() + ready;
    assert_eq!(failed_with(asked, SimFault::Hang), Some(ErrorCode::TimedOut));
}

#[test]
fn a_daemon_that_loses_the_bus_ends_and_the_next_one_puts_the_host_back() {
    let golden = in_system(golden());
    for call in ["systemd.restart", "systemd.states"] {
        let (host, state) = (SimHost::booted(), directory());
        let lives = Cell::new(0);
        let record = live_through(&host, state.path(), |life| {
            lives.set(life + 1);
            let lost = move |now: &str| (now == call).then_some(SimFault::BusLost);
            let faults = if life == 0 { Faults::from_hook(lost) } else { Faults::default() };
            (faults, Faults::default())
        });
        // The failure itself is in the log of the daemon that ended for it.
        assert_eq!(lives.get(), 2, "{call}: {:?}", ErrorCode::BusLost);
        assert_eq!(record.outcome, Outcome::RolledBack, "{record:?}");
        assert_eq!(record.failure.map(|failure| failure.code), Some(ErrorCode::Interrupted));
        assert_eq!(host.state(), golden.before, "{call}");
    }
}
