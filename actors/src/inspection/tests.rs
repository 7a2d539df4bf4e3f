//! One host in order, and what is found when one thing of it is another.

use std::collections::BTreeMap;

use apt_ostree_proto::CommitId;
use apt_ostree_proto::id::{Architecture, BootId};
use apt_ostree_proto::inspection::FindingKind::{self, *};
use apt_ostree_proto::package::{Action as PackageAction, Origin, PackageChange, UpdateClass};
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::request::{Caller, Target, UpdateRequest};
use apt_ostree_proto::status::{LostJournal, Outcome};
use apt_ostree_proto::{PackageName, Version};

use super::*;
use crate::journal::{Fate, RecordedUpdate};
use crate::port::{
    CommitCondition, DeploymentLook, FileDifference, FileDifferenceKind, FileIdentity, HostTree,
    LayerOwner, LiveLook, TreeComparison, TreeLook, UsrLayer, UsrLook,
};

fn commit(number: u64) -> CommitId {
    CommitId::parse(format!("{number:064x}")).unwrap()
}

fn boot() -> BootId {
    BootId::parse("01234567-89ab-cdef-0123-456789abcdef").unwrap()
}

fn change(name: &str, old: Option<&str>, new: Option<&str>) -> PackageChange {
    let version = |text: Option<&str>| text.map(|text| Version::parse(text).unwrap());
    PackageChange {
        name: PackageName::parse(name).unwrap(),
        architecture: Architecture::parse("amd64").unwrap(),
        action: PackageAction::Upgrade,
        old_version: version(old),
        new_version: version(new),
        source: name.to_owned(),
        automatic: false,
        origin: Origin::default(),
        installed_growth_bytes: 0,
        class: UpdateClass::Live,
        class_reason: None,
        file: None,
    }
}

fn update(id: u64, base: u64, made: u64, changes: Vec<PackageChange>) -> RecordedUpdate {
    let record = HistoryRecord {
        id: TransactionId(id),
        title: "upgrade".to_owned(),
        request: UpdateRequest::new(Target::Pending),
        caller: Caller::default(),
        started_seconds: 0,
        duration_milliseconds: 0,
        outcome: Outcome::Committed,
        failure: None,
        base: Some(commit(base)),
        commit: Some(commit(made)),
        changes,
        units: Vec::new(),
        steps: Vec::new(),
        warnings: Vec::new(),
        followed_by: None,
    };
    RecordedUpdate { record, boot: Some(boot()) }
}

fn file(number: u64) -> FileIdentity {
    let sha256 = apt_ostree_proto::Sha256::parse(format!("{number:064x}")).ok();
    FileIdentity { mode: 0o100_644, uid: 0, gid: 0, sha256 }
}

/// Two updates in one boot, 1 → 2 → 3; between them one that was put back.
fn in_order() -> (Record, Sight) {
    let updates = vec![
        update(3, 2, 3, vec![change("app", Some("2"), Some("3"))]),
        update(1, 1, 2, vec![change("app", Some("1"), Some("2")), change("gone", Some("1"), None)]),
    ];
    let fates = [(1, Fate::Kept), (2, Fate::Ended), (3, Fate::Kept)];
    let record = Record {
        boot: Some(boot()),
        updates,
        fates: fates.map(|(id, fate)| (TransactionId(id), fate)).into(),
        etc: [("app.conf".into(), Some(file(1))), ("old.conf".into(), None)].into(),
        ..Record::default()
    };
    let live = |made| LiveLook {
        reference: Some(commit(made)),
        checkout: Some(commit(made)),
        has_files: true,
        ..LiveLook::default()
    };
    let deployment = |made, staged| DeploymentLook {
        commit: commit(made),
        booted: made == 1,
        staged,
        ours: made != 1,
    };
    let layer =
        UsrLayer { owner: LayerOwner::Live(TransactionId(3)), read_only: true, peers: Vec::new() };
    let trees = TreeLook {
        deployments: vec![deployment(3, true), deployment(3, false), deployment(1, false)],
        live: [
            (TransactionId(1), live(2)),
            (TransactionId(3), LiveLook { is_mounted: true, ..live(3) }),
        ]
        .into(),
        commits: (1..=3).map(|made| (commit(made), CommitCondition::Whole)).collect(),
        trash: 0,
    };
    let sight = Sight {
        host: HostTree {
            os_name: "debian".to_owned(),
            booted: commit(1),
            running: commit(3),
            next: commit(3),
            foreign_pending: false,
        },
        usr: UsrLook { layers: vec![layer], ..UsrLook::default() },
        trees,
        comparison: Some(TreeComparison::default()),
        packages: BTreeMap::from([(("app".to_owned(), "amd64".to_owned()), "3".to_owned())]),
        etc: [("app.conf".into(), Some(file(1))), ("old.conf".into(), None)].into(),
    };
    (record, sight)
}

/// What is found, and what mends it.
fn found(change: impl FnOnce(&mut Record, &mut Sight)) -> Vec<(FindingKind, Option<Action>)> {
    let (mut record, mut sight) = in_order();
    change(&mut record, &mut sight);
    examine(&record, &sight).into_iter().map(|found| (found.finding.kind, found.action)).collect()
}

#[test]
fn nothing_is_found_on_a_host_in_order() {
    assert_eq!(found(|_, _| {}), []);
    // After a reboot into the newest update's deployment.
    let rebooted = found(|record, sight| {
        record.boot = BootId::parse("fedcba98-89ab-cdef-0123-456789abcdef").ok();
        sight.host.booted = commit(3);
        sight.usr.layers[0].owner = LayerOwner::Deployment;
        sight.trees.deployments.remove(0);
    });
    assert_eq!(rebooted, []);
    let new = found(|record, sight| {
        *record = Record::default();
        sight.host.running = commit(1);
        sight.host.next = commit(1);
        sight.usr.layers[0].owner = LayerOwner::Deployment;
        sight.trees = TreeLook::default();
    });
    assert_eq!(new, []);
}

#[test]
fn every_way_in_which_mounts_can_differ_is_found() {
    let protect = Some(Action::ProtectUsr);
    assert_eq!(found(|_, s| s.usr.layers[0].read_only = false), [(UsrWritable, protect)]);
    assert_eq!(found(|_, s| s.usr.layers[0].peers.push("/sysroot".into())), [(UsrShared, None)]);
    let foreign = found(|_, sight| {
        let owner = LayerOwner::Foreign("a merged system extension".to_owned());
        sight.usr.layers.push(UsrLayer { owner, read_only: false, peers: Vec::new() });
    });
    assert_eq!(foreign, [(UsrForeign, None)]);
    let covered = found(|_, sight| {
        let top = sight.usr.layers[0].clone();
        sight.usr.layers.insert(0, UsrLayer { owner: LayerOwner::Deployment, ..top });
    });
    assert_eq!(covered, [(UsrCovered, None)]);
    let helper = found(|_, sight| {
        sight.usr.helpers.insert(TransactionId(2));
    });
    assert_eq!(helper, [(HelperLeft, Some(Action::StandDown(TransactionId(2))))]);
    let its_own = found(|record, sight| {
        record.running = Some(TransactionId(4));
        record.fates.insert(TransactionId(4), Fate::Unfinished);
        sight.usr.helpers.insert(TransactionId(4));
    });
    assert_eq!(its_own, []);
}

type Change = fn(&mut Record, &mut Sight);
type Sighting = fn(&mut Sight);

#[test]
fn every_way_in_which_trees_can_differ_is_found() {
    let deploy = Some(Action::Deploy(commit(3)));
    let cases: &[(Change, FindingKind, Option<Action>)] = &[
        (|_, s| s.host.next = commit(1), NextBoot, deploy.clone()),
        (|_, s| drop(s.trees.deployments.remove(0)), DeploymentMissing, deploy.clone()),
        (|_, s| drop(s.trees.deployments.remove(1)), DeploymentMissing, deploy),
        (
            |_, s| {
                s.host.next = commit(9);
                s.host.foreign_pending = true;
            },
            PendingDeployment,
            None,
        ),
        (|_, s| s.host.running = commit(1), RunningTree, None),
        (
            |r, s| {
                r.boot = None;
                s.host.running = commit(1);
                s.host.next = commit(1);
            },
            BootedElsewhere,
            None,
        ),
        (
            |_, s| {
                s.trees.commits.insert(commit(2), CommitCondition::Missing);
            },
            CommitMissing,
            None,
        ),
        (
            |_, s| s.trees.live.get_mut(&TransactionId(3)).unwrap().reference = None,
            RefMissing,
            Some(Action::RestoreRef(TransactionId(3), commit(3))),
        ),
        (
            |_, s| s.trees.live.get_mut(&TransactionId(1)).unwrap().reference = Some(commit(9)),
            RefWrong,
            Some(Action::RestoreRef(TransactionId(1), commit(2))),
        ),
    ];
    for (change, kind, action) in cases {
        assert_eq!(found(change), [(*kind, action.clone())]);
    }
    // An update of long ago that was dropped is no drift.
    assert_eq!(found(|_, s| drop(s.trees.live.remove(&TransactionId(1)))), []);
    // A ref cannot be written to a commit that is not there.
    let gone = found(|_, sight| {
        sight.trees.live.get_mut(&TransactionId(3)).unwrap().reference = None;
        sight.trees.commits.insert(commit(3), CommitCondition::Partial);
    });
    assert_eq!(gone, [(RefMissing, None), (CommitMissing, None)]);
}

#[test]
fn what_no_transaction_needs_is_a_leftover_unless_a_process_holds_it() {
    let id = TransactionId(2);
    let stage = found(|_, sight| {
        sight.trees.live.insert(id, LiveLook { has_stage: true, ..LiveLook::default() });
    });
    assert_eq!(stage, [(LeftoverTree, Some(Action::CleanUp))]);
    let reference = found(|_, sight| {
        let reference = Some(commit(8));
        sight.trees.live.insert(id, LiveLook { reference, ..LiveLook::default() });
    });
    assert_eq!(reference, [(LeftoverRef, Some(Action::CleanUp))]);
    let held = found(|_, sight| {
        let look = LiveLook { is_mounted: true, has_files: true, ..LiveLook::default() };
        sight.trees.live.insert(id, look);
    });
    assert_eq!(held, [(HeldTree, None)]);
    let unknown = found(|_, sight| {
        sight.trees.live.insert(TransactionId(9), LiveLook::default());
    });
    assert_eq!(unknown, [], "nothing of it is there");
    assert_eq!(found(|_, sight| sight.trees.trash = 2), [(Trash, None)]);
}

#[test]
fn files_packages_and_edits_are_told_apart() {
    for (kind, expected) in [
        (FileDifferenceKind::Changed, FileChanged),
        (FileDifferenceKind::Missing, FileMissing),
        (FileDifferenceKind::Unknown, FileUnknown),
        (FileDifferenceKind::Object, ObjectDamaged),
    ] {
        let differing = found(|_, sight| {
            let (path, text) = ("/usr/bin/x".to_owned(), "x".to_owned());
            let difference = FileDifference { path, kind, expected: text.clone(), found: text };
            let differences = vec![difference];
            sight.comparison = Some(TreeComparison { differences, ..TreeComparison::default() });
        });
        assert_eq!(differing, [(expected, None)]);
    }
    assert_eq!(found(|_, sight| sight.packages.clear()), [(PackageVersion, None)]);
    let back = |_: &mut Record, sight: &mut Sight| {
        let name = ("gone".to_owned(), "amd64".to_owned());
        sight.packages.insert(name, "1".to_owned());
    };
    assert_eq!(found(back), [(PackageVersion, None)]);
    let edited = |_: &mut Record, sight: &mut Sight| {
        sight.etc.insert("app.conf".into(), Some(file(2)));
        sight.etc.insert("old.conf".into(), Some(file(2)));
    };
    assert_eq!(found(edited), [(EtcEdited, None), (EtcEdited, None)]);
    // A tree that somebody else made between two updates says nothing about the first one's packages.
    let between = |record: &mut Record, _: &mut Sight| {
        record.updates[0].record.base = Some(commit(7));
        record.updates[1].record.changes.push(change("other", None, Some("1")));
    };
    assert_eq!(found(between), []);
}

#[test]
fn what_the_journal_itself_lacks_is_found() {
    let damaged = found(|record, _| record.contradictions.push("row 3 missing".to_owned()));
    assert_eq!(damaged, [(JournalDamaged, None)]);
    let row = found(|record, _| {
        record.unreadable.insert(TransactionId(2), "odd".to_owned());
    });
    assert_eq!(row, [(JournalRow, Some(Action::ForgetRows))]);
    let open = |record: &mut Record, _: &mut Sight| {
        record.fates.insert(TransactionId(4), Fate::Unfinished);
    };
    assert_eq!(found(open), [(JournalUnfinished, None)]);
    let lost = |record: &mut Record, sight: &mut Sight| {
        let loss = LostJournal {
            reason: "it was gone".to_owned(),
            kept_as: None,
            at_seconds: 0,
            suspects: Some(Vec::new()),
        };
        *record = Record { loss: Some(loss), ..Record::default() };
        sight.trees.live.clear();
        sight.host.next = commit(1);
    };
    let deploy = Some(Action::Deploy(commit(3)));
    assert_eq!(
        found(lost),
        [(JournalLost, Some(Action::AcceptLoss)), (UnrecordedTree, None), (NextBoot, deploy)]
    );
}

#[test]
fn an_interrupted_update_is_suspected_by_what_only_such_a_one_leaves() {
    let judge = |change: fn(&mut Sight)| {
        let (_, mut sight) = in_order();
        change(&mut sight);
        suspects(&sight.host, &sight.usr, &sight.trees, |_| false)
    };
    assert_eq!(judge(|_| {}), Vec::<String>::new(), "all ended well");
    let cases: &[(Sighting, &str)] = &[
        (|s| s.host.next = commit(1), "runs and does not boot next"),
        (
            |s| {
                s.usr.helpers.insert(TransactionId(3));
            },
            "rescue guard",
        ),
        (
            |s| s.trees.live.get_mut(&TransactionId(1)).unwrap().has_stage = true,
            "transaction 1 left a staging area",
        ),
        (
            |s| {
                s.host.running = commit(1);
                s.usr.layers[0].owner = LayerOwner::Deployment;
                s.trees.deployments.retain(|one| one.booted);
            },
            "transaction 3 neither runs nor boots",
        ),
    ];
    for (change, expected) in cases {
        let told = judge(*change);
        assert!(told.len() == 1 && told[0].contains(expected), "{expected}: {told:?}");
    }
    let (_, sight) = in_order();
    let recorded = suspects(&sight.host, &sight.usr, &sight.trees, |_| true);
    assert!(recorded.is_empty());
}
