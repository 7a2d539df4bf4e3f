//! The ports' contract, on the simulated host. `tests/host/port_contract.rs` holds a booted one to it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use apt_ostree_actors::contract::{Contract, Promise, Subjects, at_rest, there_and_back};
use apt_ostree_actors::port::{Manner, Placement, ProcessUse, ReplacedFile};
use apt_ostree_actors::sim::{
    DiskState, Faults, SimFault, SimHost, SimProcess, sim_commit, sim_file,
};
use apt_ostree_proto::event::Event;
use apt_ostree_proto::outdated::Place;
use apt_ostree_proto::request::Target;
use apt_ostree_proto::status::{Outcome, Phase};
use apt_ostree_proto::step::Step;
use apt_ostree_proto::{CommitId, PointName, TransactionId, UnitName};

use crate::daemon::{
    Daemon, FIRST, begin_upgrade, begin_upgrade_to_confirm, directory, golden, in_system,
    live_through_on, upgrade,
};
use crate::faults::{EACH, is_before_or_after, of_the_first};

/// A number that no transaction of these tests has.
const NOBODYS: TransactionId = TransactionId(900_000);

fn subjects() -> Subjects {
    Subjects {
        unit: UnitName::parse("app.service").unwrap(),
        file: "app.conf".into(),
        fragment: "/usr/lib/tmpfiles.d/app.conf".into(),
        mapped: ReplacedFile { path: "/usr/lib/libapp.so".into(), device: 1, inode: 7 },
        point: PointName::parse("contract").unwrap(),
        nowhere: sim_commit(999_999),
    }
}

/// Has a process use what every update replaces, another what is replaced already, and a unit have a
/// mount of its own.
fn run_old_code(host: &SimHost) {
    let unit = subjects().unit;
    let (library, old) = (subjects().mapped.path, "/usr/lib/libold.so".into());
    let process = SimProcess {
        pid: 7,
        unit: Some(unit.clone()),
        maps: vec![library],
        ..SimProcess::default()
    };
    host.processes.add(process);
    let (place, manner) = (Place::Host, Manner::Maps);
    host.processes.add_outdated(ProcessUse {
        pid: 8,
        unit: Some(unit.clone()),
        place,
        path: old,
        manner,
    });
    host.processes.add_own_mount(unit, "/usr/lib/modules".into());
}

#[track_caller]
fn is_kept(contract: &Contract) {
    let report = contract.report();
    assert_eq!(report.broken, []);
    assert_eq!(report.unseen, 0);
}

#[test]
fn the_simulated_host_keeps_every_promise_of_its_ports() {
    let contract = Contract::default();
    let (host, state) = (SimHost::booted(), directory());
    let ports = contract.around(&host.ports());
    run_old_code(&host);
    let before = host.state();
    in_system(async {
        at_rest(&ports, &subjects()).await.unwrap();
        there_and_back(&ports, NOBODYS).await.unwrap();
        assert_eq!(host.state(), before);

        let mut daemon = Daemon::start_on(&ports, &host, state.path()).await;
        for (failing, fault) in [
            ("sandbox.install", SimFault::ErrorAfter),
            ("systemd.restart", SimFault::ErrorBefore),
            ("tree.deploy", SimFault::ErrorBefore),
        ] {
            host.set_faults(&Faults::from_hook(move |call| (call == failing).then_some(fault)));
            assert_eq!(daemon.update().await.outcome, Outcome::RolledBack, "{failing}");
            host.set_faults(&Faults::default());
            assert_eq!(host.state(), before, "{failing}");
        }
        let first = daemon.update().await;
        assert_eq!(first.outcome, Outcome::Committed);
        host.disk.edit(Placement::Etc, "app.conf", sim_file(9));
        let id = daemon.coordinator.send(begin_upgrade_to_confirm(60)).await.unwrap().unwrap();
        assert!(daemon.wait_or_end(id).await);
        daemon.confirm().await.unwrap();
        assert_eq!(daemon.end(id).await.outcome, Outcome::Committed);
        at_rest(&ports, &subjects()).await.unwrap();
        let id = daemon.begin(Target::Before(first.id)).await;
        assert_eq!(daemon.end(id).await.outcome, Outcome::Committed);
        is_kept(&contract);
    });
    // Daemons that die with the new tree on top, and those after them.
    for step in [Step::CheckHealth, Step::Finalize] {
        in_system(async {
            let mut daemon = Daemon::start_on(&ports, &host, state.path()).await;
            daemon.begin(upgrade()).await;
            while let Some(event) = daemon.events.recv().await {
                if matches!(event, Event::PhaseChanged { phase: Phase::Running(now), .. } if now == step)
                {
                    break;
                }
            }
        });
        host.packages.drop_lock();
    }
    in_system(async { drop(Daemon::start_on(&ports, &host, state.path()).await) });
    is_kept(&contract);
    let kept = contract.report().kept;
    for promise in Promise::ALL {
        assert!(kept.contains_key(promise.text()), "nothing was seen of it: {promise}");
    }
}

/// What somebody does to the disk behind a call's back, with a number that is another one each time.
type Mischief = fn(&mut DiskState, TransactionId);

/// A commit that no transaction makes.
fn other() -> CommitId {
    sim_commit(5_000)
}

/// Each with the call in which it is done, and the promise that is broken by it.
const MISCHIEFS: &[(&str, Mischief, Promise)] = &[
    ("mounts.prepare", |disk, _| disk.mounted.push(other()), Promise::MountsPrepareOnly),
    ("mounts.switch", |disk, _| disk.writable = true, Promise::SwitchOnTop),
    ("mounts.switch", |disk, _| disk.collapsed = true, Promise::SwitchCovers),
    ("mounts.unswitch", |disk, _| disk.mounted.push(other()), Promise::UnswitchUncovers),
    ("mounts.abandon", |disk, n| disk.pins.extend([n]), Promise::AbandonTwice),
    ("tree.stage", |disk, _| disk.staged = Some(other()), Promise::StageThere),
    ("tree.stage", |disk, _| disk.booted = other(), Promise::StageThere),
    ("tree.commit", |disk, _| disk.staged = Some(other()), Promise::CommitOnly),
    ("tree.undeploy", |disk, _| disk.deployed.push(other()), Promise::UndeployTwice),
    ("tree.drop_stage", |disk, n| disk.stages.extend([n]), Promise::DropStageTwice),
    ("tree.drop_commit", |disk, n| disk.prepared.extend([n]), Promise::DropCommitTwice),
];

#[test]
fn a_port_that_breaks_a_promise_is_found_out() {
    for (call, mischief, promise) in MISCHIEFS {
        let (contract, host) = (Contract::default(), SimHost::booted());
        let (disk, count) = (Rc::clone(&host.disk), Cell::new(1_000));
        host.set_faults(&Faults::from_hook(move |now| {
            if now == *call {
                count.set(count.get() + 1);
                disk.spoil(|disk| mischief(disk, TransactionId(count.get())));
            }
            None
        }));
        let ports = contract.around(&host.ports());
        // What is spoilt may well end it.
        let ended = in_system(there_and_back(&ports, NOBODYS));
        let report = contract.report();
        let is_told = report.broken.iter().any(|breach| breach.promise == promise.text());
        assert!(is_told, "{promise}: {ended:?}, {:?}", report.broken);
    }
}

/// Every undo runs twice here, once for the daemon and once for the contract, and a call goes wrong.
#[test]
fn whatever_one_call_does_the_promises_of_the_others_are_kept() {
    let golden = in_system(golden());
    for (index, call) in golden.calls.iter().enumerate() {
        for fault in EACH {
            let (contract, host, state) = (Contract::default(), SimHost::booted(), directory());
            let ports = contract.around(&host.ports());
            let faults = nth_of_the_daemon(&contract, index, fault);
            let faults = of_the_first(faults, Faults::default());
            let request = begin_upgrade();
            let record =
                live_through_on(&ports, &host, state.path(), FIRST, &request, false, faults);
            let what = format!("{fault:?} at call {index}, {call}");
            is_before_or_after(&golden, &host, state.path(), &record, &what);
            assert_eq!(contract.report().broken, [], "{what}");
        }
    }
}

/// Has the daemon's call with the number `index` go wrong; the contract's own are not counted.
fn nth_of_the_daemon(contract: &Contract, index: usize, fault: SimFault) -> Faults {
    let (contract, seen) = (contract.clone(), RefCell::new(0));
    Faults::from_hook(move |_| {
        if contract.is_looking() {
            return None;
        }
        (seen.replace_with(|seen| *seen + 1) == index).then_some(fault)
    })
}
