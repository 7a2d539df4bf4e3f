//! Whole transactions on the simulated host: whatever fails, the host ends in the state before or in
//! the state after, and says which.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test that calls it")]

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use actix::Addr;
use apt_ostree_actors::coordinator::{
    BeginTransaction, CancelTransaction, Coordinator, NewestUpdate, Publisher, Quiesce, ReadRecord,
    Recover, RepairHost, Settings,
};
use apt_ostree_actors::download::Limits;
use apt_ostree_actors::port::Placement;
use apt_ostree_actors::sim::{Faults, SimFault, SimHost, WorldState, sim_file};
use apt_ostree_proto::event::Event;
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::request::{Caller, Selection, Target, UpdateRequest};
use apt_ostree_proto::status::{Outcome, Phase};
use apt_ostree_proto::step::Step;
use apt_ostree_proto::{ErrorCode, TransactionId};
use tokio::sync::mpsc::UnboundedReceiver;

/// Runs a test in an actix system whose clock stands still but for waits.
fn in_system<T>(test: impl Future<Output = T>) -> T {
    let system = actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
    });
    system.block_on(test)
}

/// A daemon on a simulated host.
struct Daemon {
    coordinator: Addr<Coordinator>,
    events: UnboundedReceiver<Event>,
}

impl Daemon {
    async fn start(host: &SimHost, state: &Path) -> Self {
        let (publish, events) = Publisher::channel();
        let settings = Settings {
            state_directory: state.to_owned(),
            archives: state.join("archives"),
            download: Limits::default(),
            dwell: Duration::from_secs(5),
            never_restart: Vec::new(),
        };
        let coordinator = Coordinator::start_on(host.ports(), settings, None, publish).unwrap();
        coordinator.send(Recover).await.unwrap().unwrap();
        Self { coordinator, events }
    }

    async fn begin(&self, target: Target) -> TransactionId {
        let request = BeginTransaction {
            title: "test".to_owned(),
            request: UpdateRequest::new(target),
            dry_run: false,
            caller: Caller::default(),
        };
        self.coordinator.send(request).await.unwrap().unwrap()
    }

    async fn end(&mut self, id: TransactionId) -> HistoryRecord {
        while let Some(event) = self.events.recv().await {
            if matches!(event, Event::Finished { id: ended, .. } if ended == id) {
                break;
            }
        }
        self.coordinator.send(ReadRecord(id)).await.unwrap().unwrap().0
    }

    async fn update(&mut self) -> HistoryRecord {
        let id = self.begin(upgrade()).await;
        self.end(id).await
    }
}

fn upgrade() -> Target {
    Target::Packages(Selection::default())
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("archives/partial")).unwrap();
    directory
}

/// The state after an update that nothing disturbed, and the calls that it made.
async fn golden() -> (WorldState, WorldState, Vec<String>) {
    let (host, state) = (SimHost::booted(), directory());
    let before = host.state();
    let calls = host.fail_call(usize::MAX - 1, SimFault::ErrorBefore);
    let record = Daemon::start(&host, state.path()).await.update().await;
    assert_eq!(record.outcome, Outcome::Committed, "{record:?}");
    let calls = calls.borrow().clone();
    (before, host.state(), calls)
}

#[test]
fn an_update_ends_in_the_new_state_and_is_kept() {
    in_system(async {
        let (before, after, calls) = golden().await;
        assert_ne!(before, after);
        assert_eq!(after.disk.mounted.len(), 1);
        assert_eq!(after.disk.deployed.first(), after.disk.staged.as_ref());
        assert!(after.disk.stages.is_empty() && after.disk.guards.is_empty() && !after.locked);
        assert!(calls.len() > 20, "{calls:?}");
    });
}

#[test]
fn an_error_or_a_panic_in_any_call_ends_in_the_state_before_or_after() {
    in_system(async {
        let (before, after, calls) = golden().await;
        let mut cases = 0;
        for (index, call) in calls.iter().enumerate() {
            for fault in [SimFault::ErrorBefore, SimFault::ErrorAfter, SimFault::Panic] {
                let (host, state) = (SimHost::booted(), directory());
                host.fail_call(index, fault);
                let record = Daemon::start(&host, state.path()).await.update().await;
                let world = host.state();
                let context = format!("{fault:?} at call {index}, {call}: {record:?}");
                if record.outcome.is_success() {
                    assert_eq!(world, after, "{context}");
                } else {
                    assert_eq!(world, before, "{context}");
                    assert!(record.failure.is_some(), "{context}");
                    assert_ne!(record.outcome, Outcome::Stuck, "{context}");
                }
                cases += 1;
            }
        }
        assert_eq!(cases, calls.len() * 3);
    });
}

#[test]
fn a_daemon_that_dies_in_any_call_is_followed_by_one_that_ends_before_or_after() {
    let (before, after, calls) = in_system(golden());
    for (index, call) in calls.iter().enumerate() {
        let (host, state) = (SimHost::booted(), directory());
        // The first daemon hangs in the call and is dropped with its system.
        in_system(async {
            host.fail_call(index, SimFault::Hang);
            let daemon = Daemon::start(&host, state.path()).await;
            daemon.begin(upgrade()).await;
            tokio::time::sleep(Duration::from_secs(3600)).await;
        });
        host.set_faults(&Faults::default());
        let record = in_system(async {
            let daemon = Daemon::start(&host, state.path()).await;
            daemon.coordinator.send(ReadRecord(TransactionId(1))).await.unwrap().unwrap().0
        });
        let mut world = host.state();
        // The lock was the dead process's own, and went with it.
        world.locked = false;
        let context = format!("dead in call {index}, {call}: {record:?}");
        let expected = if record.outcome.is_success() { &after } else { &before };
        assert_eq!(&world, expected, "{context}");
    }
}

#[test]
fn a_reboot_in_mid_update_ends_in_the_deployment_that_is_booted() {
    let (before, after, calls) = in_system(golden());
    for (index, call) in calls.iter().enumerate() {
        let (host, state) = (SimHost::booted(), directory());
        in_system(async {
            host.fail_call(index, SimFault::Hang);
            let daemon = Daemon::start(&host, state.path()).await;
            daemon.begin(upgrade()).await;
            tokio::time::sleep(Duration::from_secs(3600)).await;
        });
        host.set_faults(&Faults::default());
        host.disk.reboot();
        let record = in_system(async {
            let daemon = Daemon::start(&host, state.path()).await;
            daemon.coordinator.send(ReadRecord(TransactionId(1))).await.unwrap().unwrap().0
        });
        let world = host.state().disk;
        let expected = if record.outcome.is_success() { &after.disk } else { &before.disk };
        assert_eq!(world.files, expected.files, "call {index}, {call}: {record:?}");
        assert_eq!(
            world.deployed.first(),
            expected.deployed.first(),
            "call {index}, {call}: {record:?}"
        );
    }
}

#[test]
fn a_rollback_on_demand_brings_the_state_before_and_keeps_late_edits() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let before = host.state();
        let mut daemon = Daemon::start(&host, state.path()).await;
        let update = daemon.update().await;
        host.disk.edit(Placement::Var, "lib/app", sim_file(77));
        let id = daemon.begin(Target::Before(update.id)).await;
        let record = daemon.end(id).await;
        assert_eq!(record.outcome, Outcome::Committed, "{record:?}");
        let world = host.state();
        assert_eq!(world.disk.mounted.last(), Some(&before.disk.booted));
        assert_eq!(world.disk.deployed.first(), before.disk.deployed.first());
        let conf = (Placement::Etc, "app.conf".into());
        assert_eq!(world.disk.files.get(&conf), before.disk.files.get(&conf));
        let edited = (Placement::Var, "lib/app".into());
        assert_eq!(world.disk.files.get(&edited), Some(&sim_file(77)));
        assert!(record.warnings.iter().any(|w| w.contains("lib/app")), "{:?}", record.warnings);
    });
}

#[test]
fn a_cancel_before_the_pivot_puts_everything_back() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let before = host.state();
        let mut daemon = Daemon::start(&host, state.path()).await;
        let id = daemon.begin(upgrade()).await;
        while let Some(event) = daemon.events.recv().await {
            if matches!(event, Event::PhaseChanged { phase: Phase::Running(Step::CheckHealth), .. })
            {
                break;
            }
        }
        daemon.coordinator.send(CancelTransaction(id)).await.unwrap().unwrap();
        let record = daemon.end(id).await;
        assert_eq!(record.outcome, Outcome::Cancelled);
        assert_eq!(host.state(), before);
    });
}

#[test]
fn a_daemon_that_is_asked_to_stop_puts_everything_back_and_begins_nothing_more() {
    in_system(async {
        for step in [Step::Download, Step::StopUnits, Step::CheckHealth] {
            let (host, state) = (SimHost::booted(), directory());
            let before = host.state();
            let mut daemon = Daemon::start(&host, state.path()).await;
            let id = daemon.begin(upgrade()).await;
            while let Some(event) = daemon.events.recv().await {
                if matches!(event, Event::PhaseChanged { phase: Phase::Running(now), .. } if now == step)
                {
                    break;
                }
            }
            daemon.coordinator.send(Quiesce).await.unwrap();
            let record = daemon.end(id).await;
            assert_eq!(record.failure.map(|failure| failure.code), Some(ErrorCode::Interrupted));
            assert!(matches!(record.outcome, Outcome::RolledBack | Outcome::Failed), "{step}");
            assert_eq!(host.state(), before);
            let refused = daemon.coordinator.send(begin_upgrade()).await.unwrap().unwrap_err();
            assert_eq!(refused.code, ErrorCode::Busy);
        }
    });
}

#[test]
fn the_host_does_not_shut_down_between_the_units_stop_and_the_pivot() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        let id = daemon.begin(upgrade()).await;
        while let Some(event) = daemon.events.recv().await {
            match event {
                Event::PhaseChanged { phase: Phase::Running(step), .. } => {
                    let is_held = host.systemd.holds_shutdown();
                    if step < Step::StopUnits || step == Step::Finalize {
                        assert!(!is_held, "{step}");
                    } else if step > Step::StopUnits {
                        assert!(is_held, "{step}");
                    }
                }
                Event::Finished { id: ended, .. } if ended == id => break,
                _ => {}
            }
        }
        let failing = |call: &str| (call == "tree.deploy").then_some(SimFault::ErrorBefore);
        host.set_faults(&Faults::from_hook(failing));
        assert_eq!(daemon.update().await.outcome, Outcome::RolledBack);
        assert!(!host.systemd.holds_shutdown());
    });
}

fn begin_upgrade() -> BeginTransaction {
    BeginTransaction {
        title: "second".to_owned(),
        request: UpdateRequest::new(upgrade()),
        dry_run: false,
        caller: Caller::default(),
    }
}

#[test]
fn an_update_whose_guard_took_the_tree_off_is_not_kept() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let before = host.state();
        let mut daemon = Daemon::start(&host, state.path()).await;
        let id = daemon.begin(upgrade()).await;
        while let Some(event) = daemon.events.recv().await {
            if matches!(event, Event::PhaseChanged { phase: Phase::Running(Step::CheckHealth), .. })
            {
                break;
            }
        }
        host.disk.fire_guard();
        let record = daemon.end(id).await;
        assert_eq!(record.outcome, Outcome::RolledBack, "{record:?}");
        assert_eq!(host.state(), before);
    });
}

#[test]
fn one_transaction_runs_at_a_time_and_a_second_is_told_which() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        let id = daemon.begin(upgrade()).await;
        let failure = daemon.coordinator.send(begin_upgrade()).await.unwrap().unwrap_err();
        assert_eq!(failure.code, ErrorCode::Busy);
        assert!(failure.message.contains(&format!("transaction {id}")), "{failure}");
        assert_eq!(daemon.end(id).await.outcome, Outcome::Committed);
    });
}

#[test]
fn a_dry_run_gives_way_to_an_update_and_to_nothing_else() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        let look = || BeginTransaction { dry_run: true, ..begin_upgrade() };
        let dry_run = daemon.coordinator.send(look()).await.unwrap().unwrap();
        let refused = daemon.coordinator.send(look()).await.unwrap().unwrap_err();
        assert_eq!(refused.code, ErrorCode::Busy);

        let update = daemon.begin(upgrade()).await;
        let refused = daemon.coordinator.send(begin_upgrade()).await.unwrap().unwrap_err();
        assert!(refused.message.contains(&format!("transaction {update}")), "{refused}");

        assert_eq!(daemon.end(dry_run).await.outcome, Outcome::Cancelled);
        assert_eq!(daemon.end(update).await.outcome, Outcome::Committed);
    });
}

#[test]
fn an_update_that_waits_for_a_dry_run_can_be_cancelled() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let before = host.state();
        let mut daemon = Daemon::start(&host, state.path()).await;
        let look = BeginTransaction { dry_run: true, ..begin_upgrade() };
        daemon.coordinator.send(look).await.unwrap().unwrap();
        let update = daemon.begin(upgrade()).await;
        daemon.coordinator.send(CancelTransaction(update)).await.unwrap().unwrap();
        assert_eq!(daemon.end(update).await.outcome, Outcome::Cancelled);
        assert_eq!(host.state(), before);
    });
}

#[test]
fn what_follows_the_pivot_is_done_as_far_as_it_can_be() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let failing =
            |call: &str| (call == "tree.stage_deployment").then_some(SimFault::ErrorBefore);
        host.set_faults(&Faults::from_hook(failing));
        let record = Daemon::start(&host, state.path()).await.update().await;
        assert_eq!(record.outcome, Outcome::Committed);
        let world = host.state();
        assert_eq!(world.disk.mounted.len(), 1, "the old tree is collapsed");
        assert!(world.disk.stages.is_empty());
        assert!(!record.warnings.is_empty(), "{record:?}");
    });
}

#[test]
fn nothing_to_upgrade_is_said_and_changes_nothing() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        host.packages.set_up_to_date(true);
        let before = host.state();
        let record = Daemon::start(&host, state.path()).await.update().await;
        assert_eq!(record.outcome, Outcome::NothingToDo);
        assert_eq!(host.state(), before);
    });
}

#[test]
fn the_percentage_never_falls_and_ends_at_a_hundred_on_success_only() {
    in_system(async {
        for fail in [false, true] {
            let (host, state) = (SimHost::booted(), directory());
            if fail {
                host.set_faults(&Faults::from_hook(|call| {
                    (call == "tree.deploy").then_some(SimFault::ErrorBefore)
                }));
            }
            let mut daemon = Daemon::start(&host, state.path()).await;
            let id = daemon.begin(upgrade()).await;
            let mut last = 0;
            while let Some(event) = daemon.events.recv().await {
                match event {
                    Event::Progress { percentage, .. } => {
                        assert!(percentage >= last);
                        last = percentage;
                    }
                    Event::Finished { id: ended, .. } if ended == id => break,
                    _ => {}
                }
            }
            assert_eq!(last == 100, !fail, "{last}");
        }
    });
}

#[test]
fn a_host_whose_undo_fails_is_stuck_until_it_is_repaired() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let before = host.state();
        host.set_faults(&Faults::from_hook(|call| {
            let broken = ["tree.deploy", "files.revert"].contains(&call);
            broken.then_some(SimFault::ErrorBefore)
        }));
        let mut daemon = Daemon::start(&host, state.path()).await;
        let record = daemon.update().await;
        assert_eq!(record.outcome, Outcome::Stuck);
        let failure = record.failure.unwrap();
        assert!(failure.message.contains("tree.deploy"), "{failure}");
        assert!(failure.undo.unwrap().message.contains("files.revert"));
        let second = BeginTransaction {
            title: "second".to_owned(),
            request: UpdateRequest::new(upgrade()),
            dry_run: false,
            caller: Caller::default(),
        };
        let refused = daemon.coordinator.send(second).await.unwrap().unwrap_err();
        assert_eq!(refused.code, ErrorCode::Stuck);

        host.set_faults(&Faults::default());
        let id = daemon.coordinator.send(RepairHost).await.unwrap().unwrap();
        assert_eq!(daemon.end(id).await.outcome, Outcome::RolledBack);
        assert_eq!(host.state(), before);
        assert_eq!(daemon.update().await.outcome, Outcome::Committed);
    });
}

#[test]
fn the_update_to_roll_back_is_the_newest_that_is_still_there() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        let newest = async |daemon: &Daemon| daemon.coordinator.send(NewestUpdate).await.unwrap();
        let (first, second) = (daemon.update().await.id, daemon.update().await.id);
        assert_eq!(newest(&daemon).await.unwrap(), Some(second));
        for (undone, left) in [(second, Some(first)), (first, None)] {
            let id = daemon.begin(Target::Before(undone)).await;
            assert_eq!(daemon.end(id).await.outcome, Outcome::Committed);
            assert_eq!(newest(&daemon).await.unwrap(), left);
        }
    });
}
