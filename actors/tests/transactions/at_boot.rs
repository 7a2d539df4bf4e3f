//! Updates that take effect with the next boot, alone and beside those that take effect at once.

use std::path::Path;

use apt_ostree_actors::coordinator::{
    BeginTransaction, DescribeState, NamePoint, NewestUpdate, ReadPlan,
};
use apt_ostree_actors::sim::{DiskState, Faults, SimHost, sim_commit};
use apt_ostree_proto::plan::Plan;
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::request::{Caller, Selection, Target, UpdateRequest, When};
use apt_ostree_proto::status::{HostState, Outcome};
use apt_ostree_proto::step::Step;
use apt_ostree_proto::{CommitId, ErrorCode, PackageName, PointName, TransactionId};

use crate::daemon::{
    Daemon, FIRST, Golden, begin_upgrade, directory, golden_of, in_system, live_through_with,
    upgrade,
};
use crate::faults::{EACH, OF_WRITES, is_before_or_after, nth, of_the_first};

const SECOND: TransactionId = TransactionId(2);

fn host_with_newer_kernel() -> (SimHost, tempfile::TempDir) {
    let (host, state) = (SimHost::booted(), directory());
    host.packages.set_newer_kernel(true, false);
    (host, state)
}

fn for_next_boot(target: Target) -> BeginTransaction {
    let request = UpdateRequest { when: When::NextBoot, ..UpdateRequest::new(target) };
    BeginTransaction { request, ..begin_upgrade() }
}

fn named(names: &[&str]) -> Target {
    let upgrade = names.iter().map(|name| name.to_string().try_into().unwrap()).collect();
    Target::Packages(Selection { upgrade, ..Selection::default() })
}

async fn run(daemon: &mut Daemon, begin: BeginTransaction) -> HistoryRecord {
    let id = daemon.coordinator.send(begin).await.unwrap().unwrap();
    daemon.end(id).await
}

async fn state_of(daemon: &Daemon) -> HostState {
    daemon.coordinator.send(DescribeState).await.unwrap().unwrap()
}

async fn plan_of(daemon: &Daemon, id: TransactionId) -> Plan {
    daemon.coordinator.send(ReadPlan(id)).await.unwrap().unwrap().unwrap()
}

fn packages(disk: &DiskState) -> Vec<&str> {
    disk.awaiting_boot.iter().map(PackageName::as_str).collect()
}

#[test]
fn what_cannot_change_live_follows_by_itself_and_waits_for_the_boot() {
    in_system(async {
        let (host, state) = host_with_newer_kernel();
        let mut daemon = Daemon::start(&host, state.path()).await;
        let live = daemon.update().await;
        assert_eq!((live.outcome, live.followed_by), (Outcome::Committed, Some(SECOND)));
        assert_eq!(live.changes.len(), 1);
        let before = host.state().units;
        let rest = daemon.end(SECOND).await;
        assert_eq!(rest.outcome, Outcome::Committed, "{rest:?}");
        assert_eq!(rest.changes[0].name.as_str(), "kernel");

        let disk = host.state().disk;
        assert_eq!(disk.mounted, live.commit.into_iter().collect::<Vec<_>>());
        assert_eq!(disk.staged, rest.commit);
        assert_eq!(disk.deployed.first(), rest.commit.as_ref());
        assert_eq!(packages(&disk), ["kernel"]);
        assert_eq!(host.state().units, before, "what runs is not touched");
        let told = state_of(&daemon).await;
        let waits = told.awaits_boot.unwrap();
        assert_eq!((waits.id, waits.packages), (SECOND, 1));
        assert!(waits.reasons[0].reason.contains("running kernel"), "{waits:?}");
        assert!(told.left_out.is_empty(), "nobody chose an older tree: {:?}", told.left_out);
    });
}

#[test]
fn an_update_after_it_does_not_lose_what_waits() {
    in_system(async {
        let (host, state) = host_with_newer_kernel();
        let mut daemon = Daemon::start(&host, state.path()).await;
        daemon.update().await;
        daemon.end(SECOND).await;

        // One that names what it is about.
        let live = daemon.begin(named(&["app"])).await;
        let live = daemon.end(live).await;
        let again = live.followed_by.unwrap_or_else(|| panic!("{live:?}"));
        let again = daemon.end(again).await;
        assert_eq!(again.changes[0].name.as_str(), "kernel", "{again:?}");
        let disk = host.state().disk;
        assert_eq!(
            (disk.staged, disk.mounted.last()),
            (again.commit.clone(), live.commit.as_ref())
        );
        assert_eq!(state_of(&daemon).await.awaits_boot.unwrap().id, again.id);

        // One for the next boot, too, has both.
        let joined = run(&mut daemon, for_next_boot(named(&["app"]))).await;
        let names: Vec<_> = joined.changes.iter().map(|change| change.name.as_str()).collect();
        assert_eq!(names, ["app", "kernel"]);
        assert_eq!(joined.warnings, [""; 0], "nothing is lost");
        assert_eq!(host.state().disk.staged, joined.commit);

        // The way back leads before all of them: what never took effect is not undone.
        let back = daemon.begin(Target::Before(live.id)).await;
        let back = daemon.end(back).await;
        assert_eq!(back.outcome, Outcome::Committed, "{back:?}");
        assert_eq!(back.commit, live.base);
        assert!(back.followed_by.is_none());
        assert!(state_of(&daemon).await.awaits_boot.is_none());
    });
}

#[test]
fn what_does_not_wait_any_more_is_named() {
    in_system(async {
        let (host, state) = host_with_newer_kernel();
        host.packages.set_up_to_date(true);
        let mut daemon = Daemon::start(&host, state.path()).await;
        daemon.update().await;
        daemon.end(SECOND).await;
        host.packages.set_up_to_date(false);
        host.packages.set_newer_kernel(false, false);
        let instead = run(&mut daemon, for_next_boot(upgrade())).await;
        assert_eq!(instead.outcome, Outcome::Committed, "{instead:?}");
        assert!(instead.warnings[0].starts_with("transaction 2 does not wait"), "{instead:?}");
    });
}

#[test]
fn a_point_is_named_after_what_has_taken_effect() {
    in_system(async {
        let (host, state) = host_with_newer_kernel();
        let mut daemon = Daemon::start(&host, state.path()).await;
        daemon.update().await;
        daemon.end(SECOND).await;
        let name = |name: &str, after| {
            let (name, caller) = (PointName::parse(name).unwrap(), Caller::default());
            daemon.coordinator.send(NamePoint { name, after, caller })
        };
        assert_eq!(name("now", None).await.unwrap().unwrap().after, FIRST);
        let refused = name("then", Some(SECOND)).await.unwrap().unwrap_err();
        assert!(refused.message.contains("not taken effect"), "{refused}");
    });
}

#[test]
fn a_rollback_of_what_only_waits_touches_nothing_that_runs() {
    in_system(async {
        let (host, state) = host_with_newer_kernel();
        host.packages.set_up_to_date(true);
        let before = host.state();
        let mut daemon = Daemon::start(&host, state.path()).await;
        let nothing = daemon.update().await;
        assert_eq!((nothing.outcome, nothing.followed_by), (Outcome::NothingToDo, Some(SECOND)));
        let rest = daemon.end(SECOND).await;
        assert_eq!(rest.outcome, Outcome::Committed, "{rest:?}");
        assert_eq!(daemon.coordinator.send(NewestUpdate).await.unwrap().unwrap(), Some(SECOND));

        let back = daemon.begin(Target::Before(SECOND)).await;
        let back = daemon.end(back).await;
        assert_eq!(back.outcome, Outcome::Committed, "{back:?}");
        let after = host.state();
        assert_eq!(after.disk.deployed.first(), before.disk.deployed.first());
        assert_eq!(
            (after.disk.files, after.disk.mounted),
            (before.disk.files, before.disk.mounted)
        );
        assert_eq!(after.units, before.units);
        assert!(after.disk.awaiting_boot.is_empty());
        assert!(state_of(&daemon).await.awaits_boot.is_none());
    });
}

#[test]
fn what_is_named_waits_with_what_it_needs_or_is_refused_where_only_live_will_do() {
    in_system(async {
        let (host, state) = host_with_newer_kernel();
        host.packages.set_newer_kernel(true, true);
        let mut daemon = Daemon::start(&host, state.path()).await;
        let only_live = |target| {
            let request = UpdateRequest { when: When::Live, ..UpdateRequest::new(target) };
            BeginTransaction { request, ..begin_upgrade() }
        };
        for names in [["app"], ["kernel"]] {
            let refused = run(&mut daemon, only_live(named(&names))).await;
            assert_eq!(refused.failure.unwrap().code, ErrorCode::NextBootOnly, "{names:?}");
        }
        let dry = BeginTransaction { dry_run: true, ..begin_upgrade() };
        let dry = run(&mut daemon, dry).await;
        assert_eq!((dry.outcome, dry.followed_by), (Outcome::Planned, None));
        let plan = plan_of(&daemon, dry.id).await;
        assert!(plan.is_empty() && plan.next_boot.len() == 2, "{plan:?}");

        let asked = daemon.begin(named(&["app"])).await;
        let asked = daemon.end(asked).await;
        assert_eq!(asked.outcome, Outcome::NothingToDo);
        let rest = daemon.end(asked.followed_by.unwrap()).await;
        assert_eq!((rest.outcome, rest.changes.len()), (Outcome::Committed, 2));
    });
}

#[test]
fn an_update_for_the_next_boot_is_not_one_that_was_left_out_and_is_applied_once() {
    in_system(async {
        let (host, state) = host_with_newer_kernel();
        let mut daemon = Daemon::start(&host, state.path()).await;
        let record = run(&mut daemon, for_next_boot(upgrade())).await;
        assert_eq!((record.outcome, record.changes.len()), (Outcome::Committed, 2));
        let files = host.state().disk.files;
        assert_eq!(files, SimHost::booted().state().disk.files, "/etc is not touched");
        drop(daemon);
        host.disk.reboot();
        let journal = apt_ostree_actors::journal::Journal::open(state.path()).unwrap();
        let commit = record.commit.unwrap();
        // Another one that the power was lost in.
        let (request, caller) = (for_next_boot(upgrade()).request, Caller::default());
        let steps = Step::FROM_PACKAGES_AT_BOOT;
        journal.begin("another", &request, &caller, steps, Some(&host.boot())).unwrap();
        let waits = |commit: &CommitId| {
            let waits = apt_ostree_actors::coordinator::waits_for(&journal, commit).unwrap();
            waits.map(|(id, delta)| (id, delta.entries.len()))
        };
        assert_eq!(waits(&commit), Some((FIRST, 2)));
        assert_eq!(waits(&sim_commit(1)), None, "of another tree");
        journal.set_applied_at_boot(FIRST).unwrap();
        assert_eq!(waits(&commit), None);
        drop(journal);
        let daemon = Daemon::start(&host, state.path()).await;
        assert!(state_of(&daemon).await.awaits_boot.is_none());
    });
}

#[test]
fn whatever_one_call_or_write_does_the_host_waits_for_the_boot_or_does_not() {
    let request = || for_next_boot(upgrade());
    let golden: Golden = in_system(golden_of(request()));
    assert_eq!(golden.after.units, golden.before.units);
    let live = |state: &Path, host: &SimHost, ports: Faults, journal: Faults| {
        live_through_with(host, state, &request(), false, of_the_first(ports, journal))
    };
    for (index, call) in golden.calls.iter().enumerate() {
        for fault in EACH {
            let (host, state) = (SimHost::booted(), directory());
            let record = live(state.path(), &host, nth(index, fault).0, Faults::default());
            let what = format!("{fault:?} at call {index}, {call}");
            is_before_or_after(&golden, &host, state.path(), &record, &what);
        }
    }
    let (host, state) = (SimHost::booted(), directory());
    let (none, writes) = nth(usize::MAX - 1, EACH[0]);
    live(state.path(), &host, Faults::default(), none);
    let writes = writes.borrow().len();
    assert!(writes > 12, "{writes}");
    for index in 0..writes {
        for fault in OF_WRITES {
            let (host, state) = (SimHost::booted(), directory());
            let record = live(state.path(), &host, Faults::default(), nth(index, fault).0);
            let what = format!("{fault:?} at write {index}");
            is_before_or_after(&golden, &host, state.path(), &record, &what);
        }
    }
}
