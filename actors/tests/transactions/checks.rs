//! Probes and hooks around an update.

use std::cell::Cell;

use apt_ostree_actors::coordinator::{CancelTransaction, ReadRecord};
use apt_ostree_actors::port::{HookKind, HookPhase};
use apt_ostree_actors::sim::{Faults, SimFault, SimHook, SimHost};
use apt_ostree_proto::ErrorCode;
use apt_ostree_proto::event::Event;
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::request::Target;
use apt_ostree_proto::status::{Outcome, Phase};
use apt_ostree_proto::step::Step;

use crate::daemon::{Daemon, FIRST, directory, in_system, live_through, probe, upgrade};

fn failing(kind: HookKind, fails: HookPhase) -> SimHook {
    SimHook { fails: vec![fails], ..SimHook::new(kind, "10-own") }
}

fn all_kinds() -> Vec<SimHook> {
    HookKind::ALL.iter().map(|kind| SimHook::new(*kind, "50-sim")).collect()
}

fn code_of(record: &HistoryRecord) -> Option<ErrorCode> {
    record.failure.as_ref().map(|failure| failure.code)
}

#[test]
fn hooks_run_before_and_after_and_at_the_end() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let record = Daemon::start(&host, state.path()).await.update().await;
        assert_eq!(record.outcome, Outcome::Committed, "{record:?}");
        let expected = [
            "check/required.d/50-sim before",
            "check/wanted.d/50-sim before",
            "check/required.d/50-sim after",
            "check/wanted.d/50-sim after",
            "green.d/50-sim end",
        ];
        assert_eq!(host.checks.ran(), expected);
        let log = std::fs::read_to_string(state.path().join("log/1.log")).unwrap();
        assert!(log.contains("check/required.d/50-sim: told"), "{log}");
        assert!(log.contains("green.d/50-sim: told"), "{log}");
        assert!(log.contains("APT_OSTREE_RESULT=committed"), "{log}");
    });
}

#[test]
fn a_required_check_that_fails_puts_the_update_back_and_says_why() {
    in_system(async {
        let fails = [failing(HookKind::Required, HookPhase::After)];
        let hooks: Vec<SimHook> = all_kinds().into_iter().chain(fails).collect();
        let cases = [
            (vec![true, true, false], all_kinds(), "tcp 127.0.0.1 port 80"),
            (vec![true], hooks, "check/required.d/10-own"),
        ];
        for (answers, hooks, told) in cases {
            let (host, state) = (SimHost::booted(), directory());
            let before = host.state();
            host.checks.set_answers(&probe(), &answers);
            host.checks.set_hooks(hooks);
            let record = Daemon::start(&host, state.path()).await.update().await;
            assert_eq!(record.outcome, Outcome::RolledBack, "{record:?}");
            let failure = record.failure.unwrap();
            assert_eq!(failure.code, ErrorCode::Unhealthy);
            assert!(failure.message.contains(told), "{failure}");
            assert_eq!(host.state(), before);
            assert_eq!(host.checks.ran().last().unwrap(), "red.d/50-sim end");
        }
    });
}

#[test]
fn wanted_checks_and_last_hooks_that_fail_are_warnings() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        host.checks.set_hooks(vec![
            failing(HookKind::Wanted, HookPhase::After),
            failing(HookKind::Green, HookPhase::End),
        ]);
        let record = Daemon::start(&host, state.path()).await.update().await;
        assert_eq!(record.outcome, Outcome::Committed, "{record:?}");
        for hook in ["check/wanted.d/10-own", "green.d/10-own"] {
            assert!(record.warnings.iter().any(|text| text.contains(hook)), "{record:?}");
        }
    });
}

#[test]
fn a_hook_that_must_not_be_run_is_refused_before_anything_is_changed_but_not_by_a_rollback() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        let update = daemon.update().await;
        let before = host.state();
        let refused = Some("is not executable".to_owned());
        host.checks.set_hooks(vec![SimHook { refused, ..SimHook::new(HookKind::Wanted, "x") }]);
        let record = daemon.update().await;
        assert_eq!(record.outcome, Outcome::Failed);
        assert_eq!(code_of(&record), Some(ErrorCode::InvalidConfiguration));
        assert!(record.failure.unwrap().message.contains("check/wanted.d/x\" is not executable"));
        assert_eq!(host.state(), before);
        let id = daemon.begin(Target::Before(update.id)).await;
        let record = daemon.end(id).await;
        assert_eq!(record.outcome, Outcome::Committed, "{record:?}");
        assert!(record.warnings.iter().any(|text| text.contains("wanted.d/x")), "{record:?}");
    });
}

/// Behind the time-out of the hook stands another one, for a port that does not even return.
#[test]
fn a_hook_of_which_nothing_is_heard_has_failed() {
    let (host, state) = (SimHost::booted(), directory());
    let before = host.state();
    let record = live_through(&host, state.path(), |_| {
        let count = Cell::new(0);
        let third = Faults::from_hook(move |call| {
            count.set(count.get() + usize::from(call == "checks.run_hook"));
            (call == "checks.run_hook" && count.get() == 3).then_some(SimFault::Hang)
        });
        (third, Faults::default())
    });
    assert_eq!(code_of(&record), Some(ErrorCode::Unhealthy), "{record:?}");
    assert_eq!(host.state(), before);
}

#[test]
fn a_daemon_that_dies_in_the_checks_is_followed_by_one_that_puts_back_and_runs_red_hooks() {
    let (host, state) = (SimHost::booted(), directory());
    in_system(async {
        let mut daemon = Daemon::start(&host, state.path()).await;
        daemon.begin(upgrade()).await;
        while let Some(event) = daemon.events.recv().await {
            if matches!(event, Event::PhaseChanged { phase: Phase::Running(Step::CheckHealth), .. })
            {
                break;
            }
        }
    });
    host.packages.drop_lock();
    in_system(async {
        let daemon = Daemon::start(&host, state.path()).await;
        let (record, _) = daemon.coordinator.send(ReadRecord(FIRST)).await.unwrap().unwrap();
        assert_eq!(code_of(&record), Some(ErrorCode::Interrupted));
    });
    assert_eq!(host.checks.ran().last().unwrap(), "red.d/50-sim end");
}

#[test]
fn a_cancel_in_a_hook_that_hangs_is_heard_and_nobody_is_alarmed() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let before = host.state();
        let hang = SimHook { hangs: true, ..SimHook::new(HookKind::Required, "10-hang") };
        host.checks.set_hooks(vec![hang, SimHook::new(HookKind::Red, "50-sim")]);
        let mut daemon = Daemon::start(&host, state.path()).await;
        let id = daemon.begin(upgrade()).await;
        while let Some(event) = daemon.events.recv().await {
            if matches!(event, Event::Item { item, .. } if item.contains("10-hang")) {
                break;
            }
        }
        daemon.coordinator.send(CancelTransaction(id)).await.unwrap().unwrap();
        let record = daemon.end(id).await;
        assert_eq!(record.outcome, Outcome::Cancelled, "{record:?}");
        assert_eq!(host.state(), before);
        assert!(!host.checks.ran().iter().any(|ran| ran.starts_with("red.d")));
    });
}

#[test]
fn a_test_that_fails_in_the_stage_leaves_the_host_untouched() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let before = host.state();
        host.packages.set_fails_tests(true);
        let record = Daemon::start(&host, state.path()).await.update().await;
        assert_eq!(code_of(&record), Some(ErrorCode::TestFailed), "{record:?}");
        assert_eq!(host.state(), before);
        assert_eq!(host.systemd.calls(), [""; 0]);
        assert_eq!(host.checks.ran(), ["red.d/50-sim end"]);
    });
}
