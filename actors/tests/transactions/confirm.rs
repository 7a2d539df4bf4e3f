//! Updates that wait for somebody to confirm them.

use std::time::Duration;

use apt_ostree_actors::coordinator::{
    BeginTransaction, CancelTransaction, ConfirmTransaction, DescribeState, EndWaiting, Quiesce,
    ReadRecord, Settings,
};
use apt_ostree_actors::sim::{Faults, SimFault, SimHost};
use apt_ostree_proto::event::Event;
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::request::{Caller, Target, UpdateRequest};
use apt_ostree_proto::status::{Outcome, Phase, TransactionStatus};
use apt_ostree_proto::step::Step;
use apt_ostree_proto::{ErrorCode, TransactionId};

use crate::daemon::{
    Daemon, FIRST, Golden, begin_upgrade, begin_upgrade_to_confirm, directory, golden, golden_of,
    in_system, live_through_with, settings, upgrade,
};
use crate::faults::{EACH, OF_WRITES, is_before_or_after, nth, of_the_first};

const TIMEOUT: Duration = Duration::from_secs(60);

fn request() -> BeginTransaction {
    begin_upgrade_to_confirm(60)
}

/// A daemon in which an update waits for its confirmation.
async fn waiting(host: &SimHost, state: &tempfile::TempDir) -> Daemon {
    let mut daemon = Daemon::start(host, state.path()).await;
    let id = daemon.coordinator.send(request()).await.unwrap().unwrap();
    assert!(daemon.wait_or_end(id).await);
    daemon
}

async fn now(daemon: &Daemon) -> Option<TransactionStatus> {
    daemon.coordinator.send(DescribeState).await.unwrap().unwrap().transaction
}

#[track_caller]
fn is_put_back(record: &HistoryRecord, code: ErrorCode) {
    let failure = record.failure.clone().unwrap();
    assert_eq!((record.outcome, failure.code), (Outcome::RolledBack, code), "{record:?}");
    assert!(failure.kept.unwrap().contains("as it was"));
}

#[test]
fn an_update_that_is_confirmed_is_kept_as_any_other() {
    in_system(async {
        let Golden { after, .. } = golden().await;
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = waiting(&host, &state).await;
        assert_eq!(host.state().disk.mounted, after.disk.mounted, "it runs already");
        assert!(host.state().disk.staged.is_none(), "and would not boot");
        assert!(host.state().disk.guards.contains(&FIRST));
        assert!(!host.systemd.holds_shutdown(), "a reboot is a way back, too");
        tokio::time::sleep(Duration::from_secs(59)).await;

        assert_eq!(daemon.confirm().await, Ok(FIRST));
        let late = daemon.confirm().await.unwrap_err();
        assert_eq!(late.code, ErrorCode::NotFound);
        assert_eq!(daemon.end(FIRST).await.outcome, Outcome::Committed);
        assert_eq!(host.state(), after);
        assert!(!host.systemd.holds_shutdown());
    });
}

#[test]
fn an_update_that_nobody_confirms_is_put_back_when_its_time_is_up() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let before = host.state();
        let mut daemon = waiting(&host, &state).await;
        let begun = host.clock().now();
        tokio::time::sleep(Duration::from_millis(59_990)).await;
        assert_ne!(host.state(), before);
        let record = daemon.end(FIRST).await;
        is_put_back(&record, ErrorCode::NotConfirmed);
        assert!(record.failure.unwrap().message.contains("60 s"));
        assert!(host.clock().now() < begun + TIMEOUT + Duration::from_secs(10));
        assert_eq!(host.state(), before);
    });
}

#[test]
fn the_wait_is_counted_down_and_the_percentage_stands_still() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        daemon.coordinator.send(request()).await.unwrap().unwrap();
        let (mut waits, mut told) = (false, Vec::new());
        while let Some(event) = daemon.events.recv().await {
            match event {
                Event::PhaseChanged { phase, .. } => {
                    waits = phase == Phase::Running(Step::Confirm);
                }
                Event::Progress { percentage, remaining_seconds, .. } if waits => {
                    told.push((percentage, remaining_seconds));
                }
                Event::Finished { .. } => break,
                _ => {}
            }
        }
        let (percentage, _) = told.remove(0);
        let expected: Vec<_> = (1..=60).rev().map(|left| (percentage, left)).collect();
        assert_eq!(told, expected);
    });
}

#[test]
fn a_cancel_in_the_wait_puts_everything_back_at_once() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let before = host.state();
        let mut daemon = waiting(&host, &state).await;
        daemon.coordinator.send(CancelTransaction(FIRST)).await.unwrap().unwrap();
        assert_eq!(daemon.confirm().await.unwrap_err().code, ErrorCode::TooLate);
        assert_eq!(daemon.end(FIRST).await.outcome, Outcome::Cancelled);
        assert_eq!(host.state(), before);
    });
}

#[test]
fn a_confirmation_that_nothing_waits_for_is_refused() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        assert_eq!(daemon.confirm().await.unwrap_err().code, ErrorCode::NotFound);
        let id = daemon.coordinator.send(request()).await.unwrap().unwrap();
        // It runs, and is not applied yet.
        assert_eq!(daemon.confirm().await.unwrap_err().code, ErrorCode::NotFound);
        assert!(daemon.wait_or_end(id).await);
        let another = Some(TransactionId(9));
        let request = ConfirmTransaction { id: another, caller: Caller::default() };
        let refused = daemon.coordinator.send(request).await.unwrap().unwrap_err();
        assert_eq!(refused.code, ErrorCode::NotFound);
        assert!(refused.message.contains("transaction 9"), "{refused}");
        assert!(now(&daemon).await.unwrap().confirmation.is_some());
    });
}

#[test]
fn meanwhile_nothing_else_is_changed_but_plans_are_made_and_questions_answered() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = waiting(&host, &state).await;
        let refused = daemon.coordinator.send(begin_upgrade()).await.unwrap().unwrap_err();
        assert_eq!(refused.code, ErrorCode::Busy);
        for word in ["transaction 1", "60 s", "confirmation"] {
            assert!(refused.message.contains(word), "{refused}");
        }
        assert!(refused.hint.contains("apt-ostree confirm"), "{}", refused.hint);

        let look = BeginTransaction { dry_run: true, ..begin_upgrade() };
        // Both in the mailbox before the first has done anything.
        let (plan, second) =
            tokio::join!(daemon.coordinator.send(look.clone()), daemon.coordinator.send(look),);
        assert_eq!(second.unwrap().unwrap_err().code, ErrorCode::Busy);
        let plan = plan.unwrap().unwrap();
        assert_eq!(daemon.end(plan).await.outcome, Outcome::Planned);

        let waits = now(&daemon).await.unwrap();
        assert_eq!((waits.id, waits.phase), (FIRST, Phase::Running(Step::Confirm)));
        assert!(waits.cancellable && waits.confirmation.unwrap().remaining_seconds <= 60);
        daemon.confirm().await.unwrap();
        assert_eq!(daemon.end(FIRST).await.outcome, Outcome::Committed);
        assert_eq!(daemon.update().await.outcome, Outcome::Committed);
    });
}

#[test]
fn a_dry_run_that_outlasts_the_wait_is_what_runs_then() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = waiting(&host, &state).await;
        let look = BeginTransaction { dry_run: true, ..begin_upgrade() };
        host.set_faults(&Faults::from_hook(|call| {
            (call == "packages.resolve").then_some(SimFault::Hang)
        }));
        let plan = daemon.coordinator.send(look).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(now(&daemon).await.unwrap().id, FIRST);
        daemon.confirm().await.unwrap();
        assert_eq!(daemon.end(FIRST).await.outcome, Outcome::Committed);
        let running = now(&daemon).await.unwrap();
        assert_eq!((running.id, running.confirmation), (plan, None));
    });
}

#[test]
fn a_daemon_that_dies_in_the_wait_is_followed_by_one_that_waits_for_the_same_moment() {
    for confirms in [true, false] {
        let (host, state) = (SimHost::booted(), directory());
        let before = host.state();
        let begun = in_system(async {
            waiting(&host, &state).await;
            let begun = host.clock().now();
            tokio::time::sleep(Duration::from_secs(20)).await;
            // The clock goes on from where it was last looked at.
            assert!(host.clock().now() >= begun + Duration::from_secs(20));
            begun
        });
        in_system(async {
            host.packages.drop_lock();
            host.pass(Duration::from_secs(20));
            let mut daemon = Daemon::start(&host, state.path()).await;
            assert!(daemon.wait_or_end(FIRST).await);
            let left = now(&daemon).await.unwrap().confirmation.unwrap().remaining_seconds;
            assert!((19..=20).contains(&left), "{left}");
            if confirms {
                daemon.confirm().await.unwrap();
                assert_eq!(daemon.end(FIRST).await.outcome, Outcome::Committed);
                return;
            }
            is_put_back(&daemon.end(FIRST).await, ErrorCode::NotConfirmed);
            let took = host.clock().now().saturating_sub(begun);
            assert!((TIMEOUT..TIMEOUT + Duration::from_secs(10)).contains(&took), "{took:?}");
            assert_eq!(host.state(), before);
        });
    }
}

#[test]
fn many_daemons_that_die_in_the_wait_confirm_nothing() {
    let (host, state) = (SimHost::booted(), directory());
    in_system(async { drop(waiting(&host, &state).await) });
    for _ in 0..6 {
        in_system(async {
            let mut daemon = Daemon::start(&host, state.path()).await;
            assert!(daemon.wait_or_end(FIRST).await);
            tokio::time::sleep(Duration::from_secs(5)).await;
        });
    }
    in_system(async {
        let mut daemon = Daemon::start(&host, state.path()).await;
        is_put_back(&daemon.end(FIRST).await, ErrorCode::NotConfirmed);
    });
}

#[test]
fn a_wait_that_ended_while_no_daemon_ran_is_not_begun_again() {
    let (host, state) = (SimHost::booted(), directory());
    let before = host.state();
    in_system(async { drop(waiting(&host, &state).await) });
    host.pass(TIMEOUT);
    in_system(async {
        let mut daemon = Daemon::start(&host, state.path()).await;
        let refused = daemon.confirm().await.unwrap_err();
        assert!(matches!(refused.code, ErrorCode::NotFound | ErrorCode::TooLate), "{refused}");
        is_put_back(&daemon.end(FIRST).await, ErrorCode::NotConfirmed);
        assert_eq!(host.state(), before);
    });
}

#[test]
fn a_host_that_is_suspended_in_the_wait_has_waited_all_the_same() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let before = host.state();
        let mut daemon = waiting(&host, &state).await;
        host.pass(TIMEOUT);
        let woken = tokio::time::Instant::now();
        is_put_back(&daemon.end(FIRST).await, ErrorCode::NotConfirmed);
        assert!(woken.elapsed() < Duration::from_secs(10), "{:?}", woken.elapsed());
        assert_eq!(host.state(), before);
    });
}

#[test]
fn a_host_that_reboots_in_the_wait_boots_the_tree_before_and_says_why() {
    let (host, state) = (SimHost::booted(), directory());
    let before = host.state();
    in_system(async { drop(waiting(&host, &state).await) });
    host.packages.drop_lock();
    host.disk.reboot();
    in_system(async {
        let daemon = Daemon::start(&host, state.path()).await;
        let (record, _) = daemon.coordinator.send(ReadRecord(FIRST)).await.unwrap().unwrap();
        is_put_back(&record, ErrorCode::NotConfirmed);
        assert!(record.failure.unwrap().message.contains("went down"));
        assert_eq!(host.state().disk, before.disk);
    });
}

#[test]
fn who_was_told_that_it_is_confirmed_was_told_the_truth_whatever_becomes_of_the_daemon() {
    let Golden { after, .. } = in_system(golden());
    // The daemon dies with the answer, or in the pivot, before or after its effect.
    for fault in [None, Some(SimFault::Hang), Some(SimFault::HangAfter)] {
        let (host, state) = (SimHost::booted(), directory());
        in_system(async {
            let daemon = waiting(&host, &state).await;
            host.set_faults(&Faults::from_hook(move |call| {
                fault.filter(|_| call == "tree.deploy")
            }));
            daemon.confirm().await.unwrap();
            if fault.is_some() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        host.set_faults(&Faults::default());
        host.packages.drop_lock();
        in_system(async {
            let daemon = Daemon::start(&host, state.path()).await;
            let (record, _) = daemon.coordinator.send(ReadRecord(FIRST)).await.unwrap().unwrap();
            assert_eq!(record.outcome, Outcome::Committed, "{fault:?}: {record:?}");
            assert_eq!(host.state(), after, "{fault:?}");
        });
    }
}

#[test]
fn a_daemon_that_is_asked_to_stop_leaves_the_wait_to_the_next_one() {
    let (host, state) = (SimHost::booted(), directory());
    in_system(async {
        let mut daemon = waiting(&host, &state).await;
        let asked = tokio::time::Instant::now();
        daemon.coordinator.send(Quiesce).await.unwrap();
        assert!(asked.elapsed() < Duration::from_secs(1));
        let applied = host.state();
        for refused in [
            daemon.confirm().await.map(drop).unwrap_err(),
            daemon.coordinator.send(CancelTransaction(FIRST)).await.unwrap().unwrap_err(),
            daemon.coordinator.send(begin_upgrade()).await.unwrap().map(drop).unwrap_err(),
        ] {
            assert_eq!(refused.code, ErrorCode::Busy, "{refused}");
        }
        // However long it takes to end, it does nothing about it any more.
        let end = daemon.end(FIRST);
        assert!(tokio::time::timeout(TIMEOUT * 2, end).await.is_err());
        assert_eq!(host.state(), applied);
    });
}

#[test]
fn a_confirmation_outruns_a_daemon_that_is_asked_to_stop() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = waiting(&host, &state).await;
        let (confirmed, ()) = tokio::join!(daemon.confirm(), async {
            daemon.coordinator.send(Quiesce).await.unwrap();
        });
        assert_eq!(confirmed, Ok(FIRST));
        assert_eq!(daemon.end(FIRST).await.outcome, Outcome::Committed);
    });
}

#[test]
fn a_daemon_that_cannot_serve_puts_back_what_nobody_could_confirm() {
    let (host, state) = (SimHost::booted(), directory());
    let before = host.state();
    in_system(async { drop(waiting(&host, &state).await) });
    in_system(async {
        host.packages.drop_lock();
        let daemon = Daemon::start(&host, state.path()).await;
        daemon.coordinator.send(EndWaiting).await.unwrap();
        assert_eq!(host.state(), before);
        let (record, _) = daemon.coordinator.send(ReadRecord(FIRST)).await.unwrap().unwrap();
        is_put_back(&record, ErrorCode::Interrupted);
    });
}

#[test]
fn what_the_guard_has_taken_off_meanwhile_is_not_kept() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let before = host.state();
        let mut daemon = waiting(&host, &state).await;
        host.disk.fire_guard();
        daemon.confirm().await.unwrap();
        is_put_back(&daemon.end(FIRST).await, ErrorCode::SwitchFailed);
        assert_eq!(host.state(), before);
    });
}

#[test]
fn the_host_can_ask_for_a_confirmation_of_every_update_but_not_of_a_rollback() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let settings = Settings { confirm_timeout: Some(TIMEOUT), ..settings(state.path()) };
        let mut daemon = Daemon::start_with(&host, state.path(), settings).await;
        let id = daemon.begin(upgrade()).await;
        assert!(daemon.wait_or_end(id).await);
        daemon.confirm().await.unwrap();
        let record = daemon.end(id).await;
        assert_eq!(record.outcome, Outcome::Committed);
        assert_eq!(record.request.confirm_timeout_seconds, Some(60));

        let without = daemon.coordinator.send(begin_upgrade_to_confirm(0)).await.unwrap().unwrap();
        assert!(!daemon.wait_or_end(without).await);
        assert_eq!(daemon.end(without).await.outcome, Outcome::Committed);

        let back = daemon.begin(Target::Before(without)).await;
        assert!(!daemon.wait_or_end(back).await);
        assert_eq!(daemon.end(back).await.outcome, Outcome::Committed);
        let asked = UpdateRequest {
            confirm_timeout_seconds: Some(60),
            ..UpdateRequest::new(Target::Before(id))
        };
        let back = BeginTransaction { request: asked, ..begin_upgrade() };
        let back = daemon.coordinator.send(back).await.unwrap().unwrap();
        assert!(daemon.wait_or_end(back).await);
    });
}

#[test]
fn nothing_to_do_is_nothing_to_confirm() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        host.packages.set_up_to_date(true);
        let mut daemon = Daemon::start(&host, state.path()).await;
        let id = daemon.coordinator.send(request()).await.unwrap().unwrap();
        assert!(!daemon.wait_or_end(id).await);
        assert_eq!(daemon.end(id).await.outcome, Outcome::NothingToDo);
    });
}

/// Where the calls begin that an update makes of the ports because it is to be confirmed.
fn first_call(golden: &Golden) -> usize {
    golden.calls.iter().position(|call| call == "mounts.guard_until").unwrap()
}

#[test]
fn whatever_one_call_does_from_the_wait_on_the_host_ends_before_or_after() {
    let golden = in_system(golden_of(request()));
    assert_eq!(golden.after, in_system(super::daemon::golden()).after);
    for confirm in [true, false] {
        for index in first_call(&golden)..golden.calls.len() {
            for fault in EACH {
                let (host, state) = (SimHost::booted(), directory());
                let (ports, _) = nth(index, fault);
                let faults = of_the_first(ports, Faults::default());
                let record = live_through_with(&host, state.path(), &request(), confirm, faults);
                let what = format!("{fault:?} at call {index}, confirmed: {confirm}");
                // What nobody confirms is undone, and an undo that fails has to be repaired.
                let is_stuck = record.outcome == Outcome::Stuck;
                assert!(!confirm || !is_stuck, "{what}: {record:?}");
                assert!(confirm || !record.outcome.is_success(), "{what}: {record:?}");
                is_before_or_after(&golden, &host, state.path(), &record, &what);
            }
        }
    }
}

#[test]
fn whatever_one_write_of_the_journal_does_an_update_is_kept_only_when_it_was_confirmed() {
    let golden = in_system(golden_of(request()));
    for confirm in [true, false] {
        let (none, writes) = nth(usize::MAX - 1, SimFault::Hang);
        let (host, state) = (SimHost::booted(), directory());
        let faults = of_the_first(Faults::default(), none);
        live_through_with(&host, state.path(), &request(), confirm, faults);
        let writes = writes.borrow().len();
        assert!(writes > 20, "{writes}");
        for index in 0..writes {
            for fault in OF_WRITES {
                let (host, state) = (SimHost::booted(), directory());
                let (journal, _) = nth(index, fault);
                let faults = of_the_first(Faults::default(), journal);
                let record = live_through_with(&host, state.path(), &request(), confirm, faults);
                let what = format!("{fault:?} at write {index}, confirmed: {confirm}");
                assert_ne!(record.outcome, Outcome::Stuck, "{what}: {record:?}");
                assert!(confirm || !record.outcome.is_success(), "{what}: {record:?}");
                is_before_or_after(&golden, &host, state.path(), &record, &what);
            }
        }
    }
}

#[test]
fn a_reboot_in_any_call_from_the_wait_on_ends_in_the_deployment_that_is_booted() {
    let golden = in_system(golden_of(request()));
    for index in first_call(&golden)..golden.calls.len() {
        for fault in [SimFault::Hang, SimFault::HangAfter] {
            let (host, state) = (SimHost::booted(), directory());
            let (ports, _) = nth(index, fault);
            let faults = |life| {
                if life == 1 {
                    host.disk.reboot();
                }
                (if life == 0 { ports.clone() } else { Faults::default() }, Faults::default())
            };
            let record = live_through_with(&host, state.path(), &request(), true, faults);
            let (world, what) = (host.state().disk, format!("{fault:?} in call {index}"));
            let expected = if record.outcome.is_success() { &golden.after } else { &golden.before };
            assert_eq!(world.files, expected.disk.files, "{what}: {record:?}");
            let boots_next = world.deployed.first();
            assert_eq!(boots_next, expected.disk.deployed.first(), "{what}: {record:?}");
        }
    }
}
