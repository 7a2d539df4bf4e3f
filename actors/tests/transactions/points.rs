//! Rollback points: what is kept, under which names, and what it is gone back to.

use apt_ostree_actors::coordinator::{
    BeginTransaction, CompareStates, DescribeState, MOST_POINTS, NamePoint, ReadHistory,
    RemovePoint, Settings, TargetOfPoint,
};
use apt_ostree_actors::port::Placement;
use apt_ostree_actors::sim::{Faults, SIM_TREE_BYTES, SimFault, SimHost, sim_commit, sim_file};
use apt_ostree_proto::difference::Difference;
use apt_ostree_proto::point::Point;
use apt_ostree_proto::record::{HistoryRecord, RollbackState};
use apt_ostree_proto::request::{Caller, Target};
use apt_ostree_proto::status::Outcome;
use apt_ostree_proto::{ErrorCode, Failure, PointName, TransactionId};

use crate::daemon::{Daemon, begin_upgrade, directory, golden, in_system, live_through, settings};
use crate::faults::{EACH, nth, of_the_first};

fn name(text: &str) -> PointName {
    PointName::parse(text).unwrap()
}

impl Daemon {
    async fn name(&self, text: &str, after: Option<u64>) -> Result<Point, Failure> {
        let caller = Caller { uid: 7, ..Caller::default() };
        let request = NamePoint { name: name(text), after: after.map(TransactionId), caller };
        self.coordinator.send(request).await.unwrap()
    }

    async fn forget(&self, text: &str) -> Result<(), Failure> {
        self.coordinator.send(RemovePoint(name(text))).await.unwrap()
    }

    async fn roll_back_to(&mut self, text: &str) -> HistoryRecord {
        let target = self.coordinator.send(TargetOfPoint(name(text))).await.unwrap().unwrap();
        let id = self.begin(target).await;
        self.end(id).await
    }

    async fn compare(&self, old: &str, new: &str) -> Result<Difference, Failure> {
        let request = CompareStates { old: old.parse().unwrap(), new: new.parse().unwrap() };
        self.coordinator.send(request).await.unwrap()
    }

    /// What can be undone, newest first, as the history says.
    async fn undoable(&self) -> Vec<u64> {
        let request = ReadHistory { limit: u32::MAX };
        let entries = self.coordinator.send(request).await.unwrap().unwrap();
        let possible = |state: &Option<RollbackState>| *state == Some(RollbackState::Possible);
        entries.into_iter().filter(|e| possible(&e.rollback)).map(|e| e.record.id.0).collect()
    }
}

#[test]
fn a_named_point_outlives_all_retention_and_is_gone_back_to_in_one_switch() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let before = host.state();
        let mut daemon = Daemon::start(&host, state.path()).await;
        let point = daemon.name("fresh", None).await.unwrap();
        assert_eq!((point.after.0, &point.commit, point.uid), (0, &sim_commit(1), 7));
        let checks = BeginTransaction { dry_run: true, ..begin_upgrade() };
        for _ in 0..30 {
            assert_eq!(daemon.update().await.outcome, Outcome::Committed);
            let id = daemon.coordinator.send(checks.clone()).await.unwrap().unwrap();
            daemon.end(id).await;
        }
        // Three that retention keeps, and the first after the point.
        let undoable = daemon.undoable().await;
        assert_eq!((undoable.len(), undoable.last()), (4, Some(&1)));
        let gone = daemon.begin(Target::Before(TransactionId(3))).await;
        let record = daemon.end(gone).await;
        assert_eq!(record.failure.map(|failure| failure.code), Some(ErrorCode::NotFound));

        // Of a host that booted anew since, with an edit of its own.
        host.disk.reboot();
        host.disk.edit(Placement::Etc, "mine", sim_file(9));
        let record = daemon.roll_back_to("fresh").await;
        assert_eq!(record.outcome, Outcome::Committed, "{record:?}");
        let after = host.state().disk;
        assert_eq!(after.mounted, [sim_commit(1)]);
        assert_eq!(
            (after.deployed.first(), &after.staged),
            (Some(&sim_commit(1)), &Some(sim_commit(1)))
        );
        for (key, file) in &before.disk.files {
            assert_eq!(after.files.get(key), Some(file));
        }
        assert_eq!(after.files.get(&(Placement::Etc, "mine".into())), Some(&sim_file(9)));
        assert!(!after.files.contains_key(&(Placement::Var, "lib/app".into())));

        // There is nothing that came after it any more.
        assert_eq!(daemon.roll_back_to("fresh").await.outcome, Outcome::NothingToDo);
    });
}

#[test]
fn what_came_long_ago_cannot_be_undone_and_is_said_to_be_gone() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        for _ in 0..6 {
            daemon.update().await;
        }
        assert_eq!(daemon.undoable().await, [6, 5, 4]);
        let before = host.state();
        let id = daemon.begin(Target::Before(TransactionId(3))).await;
        let record = daemon.end(id).await;
        assert!(!record.outcome.is_success(), "{record:?}");
        assert_eq!(record.failure.map(|failure| failure.code), Some(ErrorCode::NotFound));
        assert_eq!(host.state(), before);
        let id = daemon.begin(Target::Before(TransactionId(4))).await;
        assert_eq!(daemon.end(id).await.outcome, Outcome::Committed);
        let status = daemon.coordinator.send(DescribeState).await.unwrap().unwrap();
        assert_eq!(status.kept.iter().map(|kept| kept.id.0).max(), Some(id.0));
    });
}

#[test]
fn the_first_update_can_be_undone_when_nothing_but_that_needs_the_tree_before_it() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        daemon.update().await;
        daemon.update().await;
        host.disk.reboot();
        // OSTree keeps the deployment that was booted before, and drops it with the next one.
        host.disk.forget_deployments();
        daemon.update().await;
        let id = daemon.begin(Target::Before(TransactionId(1))).await;
        let record = daemon.end(id).await;
        assert_eq!(record.outcome, Outcome::Committed, "{record:?}");
        assert_eq!(host.state().disk.mounted, [sim_commit(1)]);
    });
}

#[test]
fn bytes_bound_what_is_kept_but_for_the_newest_update_and_named_points() {
    in_system(async {
        for (bytes, expected) in
            [(2 * SIM_TREE_BYTES, vec![5, 4]), (0, vec![5]), (u64::MAX, vec![5, 4, 3])]
        {
            let (host, state) = (SimHost::booted(), directory());
            let settings = Settings { keep_bytes: Some(bytes), ..settings(state.path()) };
            let mut daemon = Daemon::start_with(&host, state.path(), settings).await;
            for _ in 0..5 {
                daemon.update().await;
            }
            assert_eq!(daemon.undoable().await, expected, "{bytes}");
            let kept = host.state().disk.bases.len();
            assert_eq!(kept, expected.len(), "{bytes}");
        }
    });
}

#[test]
fn a_name_is_given_once_bounded_in_number_and_taken_away_once() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        let first = daemon.name("p", None).await.unwrap();
        assert_eq!(daemon.name("p", None).await.unwrap(), first, "the same again is no error");
        let id = daemon.update().await.id;
        let taken = daemon.name("p", None).await.unwrap_err();
        assert_eq!(taken.code, ErrorCode::InvalidArgument);
        assert!(taken.hint.contains("point --remove p"), "{taken:?}");
        assert_eq!(daemon.name("q", Some(id.0)).await.unwrap().after, id);
        let unknown = daemon.name("r", Some(99)).await.unwrap_err();
        assert_eq!(unknown.code, ErrorCode::NotFound);

        for number in 2..MOST_POINTS {
            daemon.name(&format!("p{number}"), None).await.unwrap();
        }
        let refused = daemon.name("one-more", None).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::LimitReached);
        daemon.forget("p").await.unwrap();
        assert!(!host.state().disk.points.contains_key(&name("p")));
        assert_eq!(daemon.forget("p").await.unwrap_err().code, ErrorCode::NotFound);
        daemon.name("one-more", None).await.unwrap();
    });
}

#[test]
fn a_point_is_not_named_while_a_transaction_runs() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        let id = daemon.begin(crate::daemon::upgrade()).await;
        assert_eq!(daemon.name("p", None).await.unwrap_err().code, ErrorCode::Busy);
        assert_eq!(daemon.forget("p").await.unwrap_err().code, ErrorCode::Busy);
        assert_eq!(daemon.end(id).await.outcome, Outcome::Committed);
        daemon.name("p", None).await.unwrap();
    });
}

#[test]
fn whatever_goes_wrong_while_a_point_is_named_it_is_there_whole_or_not_at_all() {
    let calls = in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let daemon = Daemon::start(&host, state.path()).await;
        let calls = host.fail_call(usize::MAX - 1, SimFault::ErrorBefore);
        daemon.name("p", None).await.unwrap();
        calls.borrow().len()
    });
    assert!(calls >= 3, "{calls}");
    for index in 0..calls {
        for fault in EACH {
            in_system(async {
                let (host, state) = (SimHost::booted(), directory());
                let mut daemon = Daemon::start(&host, state.path()).await;
                host.fail_call(index, fault);
                daemon.name("p", None).await.unwrap_err();
                host.set_faults(&Faults::default());
                let status = daemon.coordinator.send(DescribeState).await.unwrap().unwrap();
                assert_eq!(status.points, [], "{fault:?} at {index}");
                // What may be held all the same goes with the next clean-up, and nothing is in the way.
                assert_eq!(daemon.update().await.outcome, Outcome::Committed);
                assert!(host.state().disk.points.is_empty(), "{fault:?} at {index}");
                daemon.name("p", None).await.unwrap();
            });
        }
    }
}

#[test]
fn whatever_one_call_of_an_update_does_a_named_point_stays_and_is_gone_back_to() {
    let calls = in_system(golden()).calls;
    for (index, call) in calls.iter().enumerate() {
        for fault in EACH {
            let (host, state) = (SimHost::booted(), directory());
            let before = host.state();
            in_system(async {
                Daemon::start(&host, state.path()).await.name("p", None).await.unwrap();
            });
            let (ports, _) = nth(index, fault);
            live_through(&host, state.path(), of_the_first(ports, Faults::default()));
            host.set_faults(&Faults::default());
            host.packages.drop_lock();
            let held = host.state().disk.points;
            let what = format!("{fault:?} at call {index}, {call}");
            assert_eq!(held, [(name("p"), sim_commit(1))].into(), "{what}");
            in_system(async {
                let mut daemon = Daemon::start(&host, state.path()).await;
                let outcome = daemon.roll_back_to("p").await.outcome;
                assert!(outcome.is_success(), "{what}: {outcome:?}");
            });
            let after = host.state();
            assert_eq!(after.disk.files, before.disk.files, "{what}");
            assert_eq!(after.disk.mounted.last().unwrap_or(&before.disk.booted), &sim_commit(1));
        }
    }
}

#[test]
fn a_point_that_cannot_be_let_go_of_has_no_name_and_is_dropped_by_the_next_clean_up() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        daemon.name("p", None).await.unwrap();
        let failing = |call: &str| (call == "tree.release").then_some(SimFault::ErrorBefore);
        host.set_faults(&Faults::from_hook(failing));
        daemon.forget("p").await.unwrap();
        assert!(host.state().disk.points.contains_key(&name("p")));
        daemon.update().await;
        assert!(host.state().disk.points.is_empty());
    });
}

#[test]
fn states_are_told_apart_by_every_name_that_they_have() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        daemon.name("fresh", None).await.unwrap();
        let commit = daemon.update().await.commit.unwrap();
        for (old, new) in [
            ("fresh", "running"),
            ("booted", "next"),
            ("fresh", "1"),
            ("booted", commit.short()),
            ("booted", commit.as_str()),
        ] {
            // Numbers that only their first digits tell apart begin alike in this simulation.
            if new == commit.short() {
                let several = daemon.compare(old, new).await.unwrap_err();
                assert_eq!(several.code, ErrorCode::NotFound);
                continue;
            }
            let told = daemon.compare(old, new).await.unwrap();
            assert_eq!((&told.old.commit, &told.new.commit), (&sim_commit(1), &commit));
            assert_eq!((told.old.name.as_str(), told.new.name.as_str()), (old, new));
            assert_eq!((told.packages.len(), told.tree.counts.changed), (1, 1), "{old} {new}");
        }
        for same in ["fresh", "1", "running", "booted"] {
            let told = daemon.compare(same, same).await.unwrap();
            assert!(told.packages.is_empty() && told.tree.files.is_empty(), "{same}");
        }
        let absent = sim_commit(0xabc);
        for unknown in ["other", "99", "abcdef012345", absent.as_str()] {
            let failure = daemon.compare("running", unknown).await.unwrap_err();
            assert_eq!(failure.code, ErrorCode::NotFound, "{unknown}: {failure}");
        }
    });
}

#[test]
fn a_rollback_that_is_undone_itself_brings_its_update_back() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        let update = daemon.update().await;
        let id = daemon.begin(Target::Before(update.id)).await;
        daemon.end(id).await;
        let again = daemon.begin(Target::Before(id)).await;
        assert_eq!(daemon.end(again).await.outcome, Outcome::Committed);
        assert_eq!(host.state().disk.mounted.last(), update.commit.as_ref());
        let newest = daemon.coordinator.send(apt_ostree_actors::coordinator::NewestUpdate).await;
        assert_eq!(newest.unwrap().unwrap(), Some(update.id));
    });
}
