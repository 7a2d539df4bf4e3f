//! Whether the host is what its record says; what is mended where it is not; and what becomes of a host
//! whose journal was lost.

use std::path::Path;

use apt_ostree_actors::coordinator::{
    BeginTransaction, DescribeState, InspectHost, MendHost, RepairHost,
};
use apt_ostree_actors::port::Placement;
use apt_ostree_actors::sim::{DiskState, Faults, SimFault, SimHost, sim_commit, sim_file};
use apt_ostree_proto::event::Event;
use apt_ostree_proto::inspection::{FindingKind, Inspection, Mending};
use apt_ostree_proto::request::Target;
use apt_ostree_proto::status::{Outcome, Phase};
use apt_ostree_proto::step::Step;
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use tokio_util::sync::CancellationToken;

use crate::daemon::{Daemon, begin_upgrade, directory, in_system, upgrade};

async fn inspect(daemon: &Daemon) -> Inspection {
    let cancel = CancellationToken::new();
    daemon.coordinator.send(InspectHost { with_files: true, cancel }).await.unwrap().unwrap()
}

async fn mend(daemon: &Daemon, dry_run: bool) -> Result<Mending, Failure> {
    let cancel = CancellationToken::new();
    daemon.coordinator.send(MendHost { dry_run, cancel }).await.unwrap()
}

async fn assert_clean(daemon: &Daemon, when: &str) {
    let inspection = inspect(daemon).await;
    assert!(inspection.is_clean(), "{when}: {:?}", inspection.drifts);
    let nothing = mend(daemon, false).await.unwrap();
    assert_eq!(nothing, Mending::default(), "{when}");
}

fn kinds(inspection: &Inspection) -> Vec<FindingKind> {
    inspection.drifts.iter().map(|finding| finding.kind).collect()
}

async fn until(daemon: &mut Daemon, step: Step) {
    while let Some(event) = daemon.events.recv().await {
        if matches!(event, Event::PhaseChanged { phase: Phase::Running(now), .. } if now == step) {
            break;
        }
    }
}

#[test]
fn a_host_in_order_has_no_drift_whatever_ran_on_it() {
    let (host, state) = (SimHost::booted(), directory());
    in_system(async {
        let mut daemon = Daemon::start(&host, state.path()).await;
        assert_clean(&daemon, "new").await;
        let first = daemon.update().await.id;
        assert_clean(&daemon, "updated").await;
        host.disk.edit(Placement::Etc, "app.conf", sim_file(9));
        assert_clean(&daemon, "edited").await;
        host.disk.edit(Placement::Etc, "app.conf", sim_file(2));
        host.set_faults(&Faults::from_hook(|call| {
            (call == "tree.deploy").then_some(SimFault::ErrorBefore)
        }));
        assert_eq!(daemon.update().await.outcome, Outcome::RolledBack);
        host.set_faults(&Faults::default());
        assert_clean(&daemon, "rolled back by itself").await;
        let id = daemon.begin(Target::Before(first)).await;
        assert_eq!(daemon.end(id).await.outcome, Outcome::Committed);
        assert_clean(&daemon, "rolled back on demand").await;
        for _ in 0..6 {
            daemon.update().await;
        }
        assert_clean(&daemon, "updated again and again").await;
    });
    host.disk.reboot();
    in_system(async {
        let daemon = Daemon::start(&host, state.path()).await;
        assert_clean(&daemon, "rebooted").await;
    });
}

#[test]
fn an_edit_of_what_an_update_wrote_is_worth_knowing_and_no_drift() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        daemon.update().await;
        host.disk.edit(Placement::Etc, "app.conf", sim_file(9));
        let inspection = inspect(&daemon).await;
        assert!(inspection.is_clean(), "{inspection:?}");
        let notes: Vec<_> =
            inspection.notes.iter().map(|note| (note.kind, note.subject.as_str())).collect();
        assert_eq!(notes, [(FindingKind::EtcEdited, "/etc/app.conf")]);
    });
}

type Spoil = fn(&mut DiskState);

/// What can happen to a host after its first update, what is found then, and whether it is mended.
const SPOILT: &[(Spoil, &[FindingKind], bool)] = &[
    (|disk| disk.writable = true, &[FindingKind::UsrWritable], true),
    (
        |disk| {
            disk.lost_refs.insert(TransactionId(1));
        },
        &[FindingKind::RefMissing],
        true,
    ),
    (
        |disk| {
            disk.deployed.remove(0);
            disk.staged = None;
        },
        &[FindingKind::NextBoot],
        true,
    ),
    (|disk| drop(disk.deployed.remove(0)), &[FindingKind::DeploymentMissing], true),
    (|disk| disk.staged = None, &[FindingKind::DeploymentMissing], true),
    (
        |disk| {
            disk.stages.insert(TransactionId(77));
        },
        &[FindingKind::LeftoverTree],
        true,
    ),
    (
        |disk| {
            disk.checkouts.insert(TransactionId(77), sim_commit(77));
        },
        &[FindingKind::LeftoverTree, FindingKind::LeftoverRef],
        true,
    ),
    (
        |disk| {
            disk.guards.insert(TransactionId(1));
        },
        &[FindingKind::HelperLeft],
        true,
    ),
    (
        |disk| {
            disk.spoilt.insert("/usr/lib/libapp.so".into());
        },
        &[FindingKind::FileChanged],
        false,
    ),
    // The tree before runs although nothing was rolled back.
    (|disk| drop(disk.mounted.pop()), &[FindingKind::RunningTree], false),
];

#[test]
fn what_happens_to_a_host_is_found_and_mended_where_that_is_safe() {
    for (index, (spoil, expected, is_mended)) in SPOILT.iter().enumerate() {
        in_system(async {
            let (host, state) = (SimHost::booted(), directory());
            let mut daemon = Daemon::start(&host, state.path()).await;
            daemon.update().await;
            let good = host.state();
            host.disk.spoil(spoil);
            let spoilt = host.state();
            let found = inspect(&daemon).await;
            assert_eq!(kinds(&found), *expected, "{index}: {found:?}");

            let foreseen = mend(&daemon, true).await.unwrap();
            assert_eq!(host.state(), spoilt, "{index}: a dry run changes nothing");
            let mending = mend(&daemon, false).await.unwrap();
            let told = if *is_mended { &mending.mended } else { &mending.left };
            assert_eq!(told, &found.drifts, "{index}: {mending:?}");
            assert_eq!((&foreseen.mended, &foreseen.left), (&mending.mended, &mending.left));
            if *is_mended {
                assert_eq!(host.state(), good, "{index}");
                assert_clean(&daemon, "mended").await;
            } else {
                assert_eq!(host.state(), spoilt, "{index}: what is left is left alone");
            }
        });
    }
}

#[test]
fn a_repair_that_is_disturbed_anywhere_is_finished_by_the_next() {
    let spoil = |disk: &mut DiskState| {
        for (spoil, _, is_mended) in SPOILT {
            if *is_mended {
                spoil(disk);
            }
        }
        // One of them takes both deployments off the list.
        disk.deployed = vec![sim_commit(1)];
        disk.staged = None;
    };
    let calls = in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        daemon.update().await;
        host.disk.spoil(spoil);
        let calls = host.fail_call(usize::MAX - 1, SimFault::ErrorBefore);
        let mending = mend(&daemon, false).await.unwrap();
        assert!(mending.left.is_empty(), "{mending:?}");
        assert_clean(&daemon, "mended").await;
        calls.borrow().clone()
    });
    for (index, call) in calls.iter().enumerate() {
        for fault in [SimFault::ErrorBefore, SimFault::ErrorAfter, SimFault::Panic] {
            let what = format!("{fault:?} at call {index}, {call}");
            in_system(async {
                let (host, state) = (SimHost::booted(), directory());
                let mut daemon = Daemon::start(&host, state.path()).await;
                daemon.update().await;
                let good = host.state();
                host.disk.spoil(spoil);
                host.fail_call(index, fault);
                let disturbed = mend(&daemon, false).await;
                host.set_faults(&Faults::default());
                if let Ok(mending) = disturbed {
                    let is_told = !mending.left.is_empty() || !mending.remarks.is_empty();
                    assert!(is_told || host.state() == good, "{what}: {mending:?}");
                }
                mend(&daemon, false).await.unwrap();
                assert_eq!(host.state(), good, "{what}");
                assert_clean(&daemon, &what).await;
            });
        }
    }
}

#[test]
fn a_host_is_neither_judged_nor_mended_while_it_is_changed() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        let id = daemon.begin(upgrade()).await;
        let cancel = CancellationToken::new();
        let refused = daemon
            .coordinator
            .send(InspectHost { with_files: true, cancel: cancel.clone() })
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(refused.code, ErrorCode::Busy);
        assert_eq!(mend(&daemon, false).await.unwrap_err().code, ErrorCode::Busy);
        assert_eq!(daemon.end(id).await.outcome, Outcome::Committed);

        // All in the mailbox before the first has done anything.
        let inspect = || InspectHost { with_files: true, cancel: cancel.clone() };
        let (looked, second, begun) = tokio::join!(
            daemon.coordinator.send(inspect()),
            daemon.coordinator.send(inspect()),
            daemon.coordinator.send(begin_upgrade()),
        );
        let overtaken = looked.unwrap().unwrap_err();
        assert!(overtaken.message.contains("began"), "{overtaken}");
        assert_eq!(second.unwrap().unwrap_err().code, ErrorCode::Busy);
        daemon.end(begun.unwrap().unwrap()).await;

        host.disk.spoil(|disk| disk.writable = true);
        let mending = MendHost { dry_run: false, cancel };
        let (mended, begun, looked_for) = tokio::join!(
            daemon.coordinator.send(mending),
            daemon.coordinator.send(begin_upgrade()),
            daemon.coordinator.send(BeginTransaction { dry_run: true, ..begin_upgrade() }),
        );
        assert_eq!(mended.unwrap().unwrap().mended.len(), 1);
        for refused in [begun.unwrap().unwrap_err(), looked_for.unwrap().unwrap_err()] {
            assert!(refused.message.contains("repaired"), "{refused}");
        }
        assert_eq!(daemon.update().await.outcome, Outcome::Committed);
    });
}

#[test]
fn nothing_is_mended_on_a_stuck_host_before_its_undo() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        host.set_faults(&Faults::from_hook(|call| {
            ["tree.deploy", "files.revert"].contains(&call).then_some(SimFault::ErrorBefore)
        }));
        let mut daemon = Daemon::start(&host, state.path()).await;
        assert_eq!(daemon.update().await.outcome, Outcome::Stuck);
        host.set_faults(&Faults::default());
        let spoilt = host.state();
        let foreseen = mend(&daemon, true).await.unwrap();
        assert_eq!(foreseen.mended[0].kind, FindingKind::Stuck, "{foreseen:?}");
        let mending = mend(&daemon, false).await.unwrap();
        assert!(mending.left.iter().any(|left| left.kind == FindingKind::Stuck), "{mending:?}");
        assert_eq!(host.state(), spoilt);
        let id = daemon.coordinator.send(RepairHost).await.unwrap().unwrap();
        assert_eq!(daemon.end(id).await.outcome, Outcome::RolledBack);
        assert_clean(&daemon, "put back").await;
    });
}

/// Removes the journal, as a lost disk would.
fn lose_journal(state: &Path) {
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        match std::fs::remove_file(state.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }
}

#[test]
fn a_lost_journal_alone_is_told_and_hinders_nothing() {
    let (host, state) = (SimHost::booted(), directory());
    in_system(async {
        Daemon::start(&host, state.path()).await.update().await;
    });
    lose_journal(state.path());
    in_system(async {
        let mut daemon = Daemon::start(&host, state.path()).await;
        let status = daemon.coordinator.send(DescribeState).await.unwrap().unwrap();
        let lost = status.lost.unwrap();
        assert!(lost.reason.contains("was gone") && !status.stuck, "{lost:?}");
        assert_eq!(kinds(&inspect(&daemon).await), [FindingKind::JournalLost]);
        let mending = mend(&daemon, false).await.unwrap();
        assert!(mending.left.is_empty() && mending.remarks.is_empty(), "{mending:?}");
        assert_clean(&daemon, "accepted").await;
        let record = daemon.update().await;
        assert_eq!((record.id, record.outcome), (TransactionId(2), Outcome::Committed));
        assert_clean(&daemon, "updated").await;
    });
}

#[test]
fn a_host_that_lost_its_journal_in_mid_update_is_not_taken_for_one_in_order() {
    for step in [Step::Install, Step::StartUnits, Step::CheckHealth] {
        for reboots in [false, true] {
            let (host, state) = (SimHost::booted(), directory());
            in_system(async {
                let mut daemon = Daemon::start(&host, state.path()).await;
                daemon.begin(upgrade()).await;
                until(&mut daemon, step).await;
            });
            lose_journal(state.path());
            if reboots {
                host.disk.reboot();
            }
            in_system(async {
                let mut daemon = Daemon::start(&host, state.path()).await;
                let status = daemon.coordinator.send(DescribeState).await.unwrap().unwrap();
                assert!(status.stuck, "{step}: {status:?}");
                let refused = daemon.coordinator.send(begin_upgrade()).await.unwrap().unwrap_err();
                assert_eq!(refused.code, ErrorCode::Stuck, "{step}");
                assert!(kinds(&inspect(&daemon).await).contains(&FindingKind::JournalLost));

                let mending = mend(&daemon, false).await.unwrap();
                assert!(mending.left.is_empty(), "{step}: {mending:?}");
                let told = mending.remarks.iter().any(|remark| remark.contains("/usr/etc"));
                assert!(told, "{step}: {mending:?}");
                let disk = host.state().disk;
                let running = disk.mounted.last().unwrap_or(&disk.booted).clone();
                assert_eq!(disk.deployed.first(), Some(&running), "what runs boots next");
                assert!(disk.stages.is_empty() && disk.guards.is_empty(), "{disk:?}");
                assert_clean(&daemon, "repaired").await;
                assert_eq!(daemon.update().await.outcome, Outcome::Committed, "{step}");
            });
        }
    }
}
