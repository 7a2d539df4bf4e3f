//! The ways that a transaction can go.

use std::cell::RefCell;
use std::rc::Rc;

use apt_ostree_actors::coordinator::{
    BeginTransaction, CancelTransaction, DescribeState, NewestUpdate, Quiesce, ReadHistory,
    ReadPlan, ReadRecord, RepairHost,
};
use apt_ostree_actors::port::Placement;
use apt_ostree_actors::sim::{Faults, SimFault, SimHost, sim_file};
use apt_ostree_proto::ErrorCode;
use apt_ostree_proto::event::Event;
use apt_ostree_proto::request::{Caller, Target, UpdateRequest};
use apt_ostree_proto::status::{Outcome, Phase};
use apt_ostree_proto::step::Step;

use crate::daemon::{Daemon, Golden, begin_upgrade, directory, golden, in_system, upgrade};

#[test]
fn an_update_ends_in_the_new_state_and_is_kept() {
    in_system(async {
        let Golden { before, after, calls } = golden().await;
        assert_ne!(before, after);
        assert_eq!(after.disk.mounted.len(), 1);
        assert_eq!(after.disk.deployed.first(), after.disk.staged.as_ref());
        assert!(after.disk.stages.is_empty() && after.disk.guards.is_empty() && !after.locked);
        assert!(calls.len() > 20, "{calls:?}");
    });
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
        // Looked at from within each call: events are read when time allows.
        let calls = Rc::new(RefCell::new(Vec::new()));
        let (noted, systemd) = (Rc::clone(&calls), Rc::clone(&host.systemd));
        host.set_faults(&Faults::from_hook(move |call| {
            noted.borrow_mut().push((call.to_owned(), systemd.holds_shutdown()));
            None
        }));
        assert_eq!(daemon.update().await.outcome, Outcome::Committed);
        let place = |wanted: &str| {
            let found = calls.borrow().iter().position(|(call, _)| call == wanted);
            found.unwrap_or_else(|| panic!("{wanted} is not in {calls:?}"))
        };
        let (hold, deploy) = (place("systemd.hold_shutdown"), place("tree.deploy"));
        assert!(place("tree.commit") < hold && hold < place("mounts.switch"));
        assert!(deploy < place("tree.stage_deployment"));
        for (at, (call, is_held)) in calls.borrow().iter().enumerate() {
            assert_eq!(*is_held, (hold + 1..=deploy).contains(&at), "{call}");
        }
        let failing = |call: &str| (call == "tree.deploy").then_some(SimFault::ErrorBefore);
        host.set_faults(&Faults::from_hook(failing));
        assert_eq!(daemon.update().await.outcome, Outcome::RolledBack);
        assert!(!host.systemd.holds_shutdown());
    });
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
        // All in the mailbox before the first has done anything.
        let (dry_run, second, update, third) = tokio::join!(
            daemon.coordinator.send(look()),
            daemon.coordinator.send(look()),
            daemon.coordinator.send(begin_upgrade()),
            daemon.coordinator.send(begin_upgrade()),
        );
        let (dry_run, update) = (dry_run.unwrap().unwrap(), update.unwrap().unwrap());
        assert_eq!(second.unwrap().unwrap_err().code, ErrorCode::Busy);
        let refused = third.unwrap().unwrap_err();
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
fn live_data_is_a_risk_that_force_goes_past_and_names_even_after_a_crash() {
    let (host, state) = (SimHost::booted(), directory());
    host.disk.change_live_data("/var/lib/app/data");
    let before = host.state();
    in_system(async {
        let record = Daemon::start(&host, state.path()).await.update().await;
        assert_eq!(record.failure.map(|failure| failure.code), Some(ErrorCode::NextBootOnly));
        assert_eq!(host.state(), before);
    });
    let forced = in_system(async {
        let mut daemon = Daemon::start(&host, state.path()).await;
        let mut request = begin_upgrade();
        request.request.force = true;
        let id = daemon.coordinator.send(request).await.unwrap().unwrap();
        while let Some(event) = daemon.events.recv().await {
            if matches!(event, Event::PhaseChanged { phase: Phase::Running(Step::Finalize), .. }) {
                break;
            }
        }
        id
    });
    in_system(async {
        let daemon = Daemon::start(&host, state.path()).await;
        let (record, _) = daemon.coordinator.send(ReadRecord(forced)).await.unwrap().unwrap();
        assert_eq!(record.outcome, Outcome::Forced);
        assert!(record.warnings.iter().any(|w| w.contains("/var/lib/app/data")), "{record:?}");
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
        let refused = daemon.coordinator.send(begin_upgrade()).await.unwrap().unwrap_err();
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

#[test]
fn an_update_can_be_undone_after_any_number_of_checks_whose_plans_are_forgotten() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let before = host.state();
        let mut daemon = Daemon::start(&host, state.path()).await;
        let update = daemon.update().await;
        let mut checks = Vec::new();
        for _ in 0..60 {
            let check = BeginTransaction {
                title: "check".to_owned(),
                request: UpdateRequest::new(upgrade()),
                dry_run: true,
                caller: Caller::default(),
            };
            let id = daemon.coordinator.send(check).await.unwrap().unwrap();
            assert_eq!(daemon.end(id).await.outcome, Outcome::Planned);
            checks.push(id);
        }
        let plan = async |id| daemon.coordinator.send(ReadPlan(id)).await.unwrap().unwrap();
        assert!(plan(update.id).await.is_some());
        assert!(plan(checks[0]).await.is_none());
        assert!(plan(checks[59]).await.is_some());
        let logs = std::fs::read_dir(state.path().join("log")).unwrap().count();
        assert!((50..55).contains(&logs), "{logs}");
        let all = daemon.coordinator.send(ReadHistory { limit: u32::MAX }).await.unwrap().unwrap();
        assert_eq!(all.len(), 61);

        let id = daemon.begin(Target::Before(update.id)).await;
        assert_eq!(daemon.end(id).await.outcome, Outcome::Committed);
        assert_eq!(host.state().disk.mounted.last(), Some(&before.disk.booted));
    });
}

#[test]
fn a_host_that_booted_an_older_entry_says_which_updates_it_lacks() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        let lacks = async |daemon: &Daemon| {
            daemon.coordinator.send(DescribeState).await.unwrap().unwrap().left_out
        };
        let (first, second) = (daemon.update().await, daemon.update().await);
        assert_eq!(lacks(&daemon).await, []);
        host.disk.reboot();
        assert_eq!(lacks(&daemon).await, []);
        for (base, expected) in
            [(&second.base, vec![second.id]), (&first.base, vec![second.id, first.id])]
        {
            let base = base.clone().unwrap();
            host.disk.spoil(|disk| disk.booted = base);
            assert_eq!(lacks(&daemon).await, expected);
        }
        // From the oldest one on, they are nobody's loss.
        assert_eq!(daemon.update().await.outcome, Outcome::Committed);
        assert_eq!(lacks(&daemon).await, []);
    });
}
