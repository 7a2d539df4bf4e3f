//! The interfaces over a socket pair, with the simulated host behind them.

use std::collections::HashMap;
use std::time::Duration;

use apt_ostree_actors::blocking::SharedJournal;
use apt_ostree_actors::clock::BootClock;
use apt_ostree_actors::coordinator::{
    Environment, LastResort, Publisher, Recover, Settings, SettingsChanges,
};
use apt_ostree_actors::download::Limits;
use apt_ostree_actors::journal::Journal;
use apt_ostree_actors::port::Probes;
use apt_ostree_actors::service::Strategies;
use apt_ostree_actors::sim::SimHost;
use apt_ostree_proto::dbus::{
    ACTION_CHECK, ACTION_POINTS, ACTION_ROLL_BACK, ACTION_UPDATE, ManagerProxy, TransactionProxy,
};
use apt_ostree_proto::difference::Difference;
use apt_ostree_proto::inspection::{Inspection, Mending};
use apt_ostree_proto::outdated::Outdated;
use apt_ostree_proto::point::Point;
use apt_ostree_proto::record::{FinishedTransaction, HistoryRecord, RollbackState};
use apt_ostree_proto::status::{HostState, Outcome};
use futures_util::StreamExt as _;
use tokio::net::UnixStream;
use zbus::connection::Builder;
use zbus::zvariant::Value;

use super::authority::Authority;
use super::*;
use crate::host::programs::Original;

/// A daemon whose one caller may do `allowed`, and that caller's connection.
struct Peers {
    daemon: Connection,
    client: Connection,
    _state: tempfile::TempDir,
}

impl Peers {
    async fn meet(allowed: &'static [&'static str]) -> Self {
        let (server, client) = UnixStream::pair().unwrap();
        let guid = zbus::Guid::generate();
        let server = Builder::unix_stream(server).server(guid).unwrap().p2p();
        let client = Builder::unix_stream(client).p2p();
        let (daemon, client) = tokio::try_join!(server.build(), client.build()).unwrap();
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(state.path().join("archives/partial")).unwrap();
        let settings = Settings {
            state_directory: state.path().to_owned(),
            archives: state.path().join("archives"),
            download: Limits::default(),
            dwell: Duration::from_millis(1),
            tests: Vec::new(),
            probes: Probes::new(),
            hook_timeout: Duration::from_secs(1),
            confirm_timeout: None,
            keep_updates: 3,
            keep_bytes: None,
            strategies: Strategies::default(),
            reads: [].into(),
        };
        let (events_to, events) = Publisher::channel();
        let ports = SimHost::booted().ports();
        let environment = Environment {
            host: ports,
            journal: SharedJournal::new(Journal::open(state.path()).unwrap()),
            boot: None,
            clock: BootClock::of_kernel(),
            publish: events_to,
            last_resort: LastResort::abort(),
            changes: SettingsChanges::none(),
        };
        let coordinator = Coordinator::start_in(environment, settings);
        coordinator.send(Recover).await.unwrap().unwrap();
        let authority = Authority::Peer(allowed);
        let activity = Activity::new(Duration::MAX, Original::at("/proc/self/exe"));
        let relay = put_manager(&daemon, coordinator, activity, authority).await.unwrap();
        tokio::task::spawn_local(relay.run(events));
        Self { daemon, client, _state: state }
    }

    async fn manager(&self) -> ManagerProxy<'static> {
        ManagerProxy::new(&self.client).await.unwrap()
    }
}

/// The name of the error that a call was answered with.
fn error_name<T: std::fmt::Debug>(answer: zbus::Result<T>) -> String {
    match answer.unwrap_err() {
        zbus::Error::MethodError(name, _, _) => name.to_string(),
        other => panic!("{other}"),
    }
}

#[actix::test]
async fn an_update_is_begun_followed_by_its_signals_and_found_in_the_history() {
    let peers = Peers::meet(&[ACTION_UPDATE]).await;
    let manager = peers.manager().await;
    let mut ends = manager.receive_transaction_removed().await.unwrap();
    let mut added = manager.receive_transaction_added().await.unwrap();

    let path = manager.apply_live(&HashMap::new()).await.unwrap();
    assert_eq!(path.as_str(), "/org/aptostree1/transaction/1");
    let added = added.next().await.unwrap();
    assert_eq!(added.args().unwrap().transaction, path);
    let transaction =
        TransactionProxy::builder(&peers.client).path(path.clone()).unwrap().build().await.unwrap();
    assert_eq!(transaction.title().await.unwrap(), "upgrade");

    let end = ends.next().await.unwrap();
    let end = end.args().unwrap();
    assert_eq!((end.transaction, end.outcome), (path, Outcome::Committed.name()));
    assert_eq!(transaction.percentage().await.unwrap(), 100);
    assert!(!transaction.allow_cancel().await.unwrap());
    let record: HistoryRecord =
        serde_json::from_str(&transaction.get_record().await.unwrap()).unwrap();
    assert_eq!(record.outcome, Outcome::Committed);
    let finished: FinishedTransaction =
        serde_json::from_str(&manager.get_record(1).await.unwrap()).unwrap();
    assert_eq!(finished.entry.record, record);
    assert_eq!(finished.entry.rollback, Some(RollbackState::Possible));
    let history: Vec<HistoryRecord> =
        serde_json::from_str(&manager.get_history(10).await.unwrap()).unwrap();
    assert_eq!(history, [record]);
    let state: HostState = serde_json::from_str(&manager.get_status().await.unwrap()).unwrap();
    assert_eq!(manager.running_commit().await.unwrap(), state.running.to_string());
}

#[actix::test]
async fn an_update_that_waits_for_its_confirmation_says_so_and_is_confirmed() {
    let peers = Peers::meet(&[ACTION_UPDATE]).await;
    let manager = peers.manager().await;
    assert_eq!(error_name(manager.confirm().await), "org.aptostree1.Error.NotFound");
    for by_number in [false, true] {
        let mut ends = manager.receive_transaction_removed().await.unwrap();
        let options = HashMap::from([("confirm-timeout", Value::from(3_600_u32))]);
        let path = manager.apply_live(&options).await.unwrap();
        let transaction = TransactionProxy::builder(&peers.client).path(path.clone()).unwrap();
        let transaction = transaction.build().await.unwrap();
        let mut told = transaction.receive_progress().await.unwrap();
        loop {
            let progress = told.next().await.unwrap();
            // It is applied sooner than that, and nothing is downloaded.
            if progress.args().unwrap().remaining_time > 3_000 {
                break;
            }
        }
        assert_eq!(transaction.status().await.unwrap(), "confirm");
        let state: HostState = serde_json::from_str(&manager.get_status().await.unwrap()).unwrap();
        let awaited = state.transaction.unwrap().confirmation.unwrap();
        assert!((3_000..=3_600).contains(&awaited.remaining_seconds), "{awaited:?}");
        assert!(awaited.until_seconds > 0);
        let busy = error_name(manager.apply_live(&HashMap::new()).await);
        assert_eq!(busy, "org.aptostree1.Error.Busy");
        if by_number {
            transaction.confirm().await.unwrap();
        } else {
            assert_eq!(manager.confirm().await.unwrap(), path);
        }
        let end = ends.next().await.unwrap();
        let end = end.args().unwrap();
        assert_eq!((end.transaction, end.outcome), (path, Outcome::Committed.name()));
    }
}

#[actix::test]
async fn options_that_make_no_sense_are_refused_by_name_and_begin_nothing() {
    let peers = Peers::meet(&[ACTION_UPDATE, ACTION_CHECK]).await;
    let manager = peers.manager().await;
    for (key, value) in [
        ("surprise", Value::from(true)),
        ("packages", Value::from(3_u32)),
        ("packages", Value::from(vec!["-rf"])),
        ("packages", Value::from(vec!["a\nb"])),
        ("restart", Value::from("sometimes")),
        ("target", Value::from("../x")),
        ("confirm-timeout", Value::from(1_u32)),
    ] {
        let options = HashMap::from([(key, value)]);
        let name = error_name(manager.apply_live(&options).await);
        assert_eq!(name, "org.aptostree1.Error.InvalidArgument", "{key}");
    }
    assert_eq!(manager.active_transaction().await.unwrap().as_str(), "/");
    assert_eq!(manager.get_history(10).await.unwrap(), "[]");
}

#[actix::test]
async fn a_caller_may_look_and_not_change_where_it_is_told_so() {
    let peers = Peers::meet(&[ACTION_CHECK]).await;
    let manager = peers.manager().await;
    let refused = "org.aptostree1.Error.NotAuthorized";
    assert_eq!(error_name(manager.apply_live(&HashMap::new()).await), refused);
    assert_eq!(error_name(manager.rollback(0, &HashMap::new()).await), refused);
    assert_eq!(error_name(manager.cancel().await), refused);
    assert_eq!(error_name(manager.confirm().await), refused);
    assert_eq!(error_name(manager.name_point("p", 0).await), refused);
    assert_eq!(error_name(manager.remove_point("p").await), refused);
    manager.diff("running", "booted").await.unwrap();
    let dry_run = HashMap::from([("dry-run", Value::from(true))]);
    manager.apply_live(&dry_run).await.unwrap();
}

#[actix::test]
async fn whoever_may_look_may_verify_and_only_who_may_repair_may_mend() {
    let peers = Peers::meet(&[ACTION_CHECK]).await;
    let manager = peers.manager().await;
    let none = HashMap::new();
    let inspection: Inspection =
        serde_json::from_str(&manager.verify(&none).await.unwrap()).unwrap();
    assert!(inspection.is_clean() && inspection.files > 0, "{inspection:?}");
    let quick = HashMap::from([("files", Value::from(false))]);
    let quick = manager.verify(&quick).await.unwrap();
    assert_eq!(serde_json::from_str::<Inspection>(&quick).unwrap().files, 0);
    let dry_run = HashMap::from([("dry-run", Value::from(true))]);
    let mending: Mending = serde_json::from_str(&manager.mend(&dry_run).await.unwrap()).unwrap();
    assert_eq!(mending, Mending { dry_run: true, ..Mending::default() });
    assert_eq!(error_name(manager.mend(&none).await), "org.aptostree1.Error.NotAuthorized");
    let odd = HashMap::from([("files", Value::from(1_u32))]);
    assert_eq!(error_name(manager.verify(&odd).await), "org.aptostree1.Error.InvalidArgument");
    let peers = Peers::meet(&[]).await;
    let refused = error_name(peers.manager().await.verify(&none).await);
    assert_eq!(refused, "org.aptostree1.Error.NotAuthorized");
}

#[actix::test]
async fn what_is_not_there_is_answered_as_not_found() {
    let peers = Peers::meet(&[ACTION_UPDATE]).await;
    let manager = peers.manager().await;
    assert_eq!(error_name(manager.get_record(7).await), "org.aptostree1.Error.NotFound");
}

#[actix::test]
async fn a_state_is_named_compared_gone_back_to_and_its_name_removed() {
    let peers = Peers::meet(&[ACTION_UPDATE, ACTION_POINTS, ACTION_ROLL_BACK, ACTION_CHECK]).await;
    let manager = peers.manager().await;
    let mut ends = manager.receive_transaction_removed().await.unwrap();
    let named: Point =
        serde_json::from_str(&manager.name_point("fresh", 0).await.unwrap()).unwrap();
    manager.apply_live(&HashMap::new()).await.unwrap();
    ends.next().await.unwrap();

    let told: Difference =
        serde_json::from_str(&manager.diff("fresh", "running").await.unwrap()).unwrap();
    assert_eq!((told.packages.len(), told.tree.counts.changed), (1, 1));
    let told: Difference = serde_json::from_str(&manager.diff("1", "next").await.unwrap()).unwrap();
    assert_eq!((told.packages.len(), told.tree.files.len()), (0, 0));

    let to_point = HashMap::from([("point", Value::from("fresh"))]);
    assert_eq!(
        error_name(manager.rollback(1, &to_point).await),
        "org.aptostree1.Error.InvalidArgument"
    );
    manager.rollback(0, &to_point).await.unwrap();
    ends.next().await.unwrap();
    let state: HostState = serde_json::from_str(&manager.get_status().await.unwrap()).unwrap();
    assert_eq!((state.running, state.points), (named.commit.clone(), vec![named]));

    manager.remove_point("fresh").await.unwrap();
    let not_found = "org.aptostree1.Error.NotFound";
    assert_eq!(error_name(manager.remove_point("fresh").await), not_found);
    assert_eq!(error_name(manager.rollback(0, &to_point).await), not_found);
    assert_eq!(error_name(manager.diff("fresh", "running").await), not_found);
    assert_eq!(error_name(manager.diff("running", "99").await), not_found);
    let invalid = "org.aptostree1.Error.InvalidArgument";
    for name in ["", "7", "a/b", "../x", "running"] {
        assert_eq!(error_name(manager.name_point(name, 0).await), invalid, "{name}");
    }
    assert_eq!(error_name(manager.diff("../x", "running").await), invalid);
}

#[actix::test]
async fn whoever_may_look_is_told_what_runs_old_code() {
    let peers = Peers::meet(&[ACTION_CHECK]).await;
    let manager = peers.manager().await;
    let told = manager.find_outdated(&HashMap::new()).await.unwrap();
    let found: Outdated = serde_json::from_str(&told).unwrap();
    assert!(found.is_empty(), "{told}");
    let odd = HashMap::from([("files", Value::from(true))]);
    assert_eq!(
        error_name(manager.find_outdated(&odd).await),
        "org.aptostree1.Error.InvalidArgument"
    );
    let peers = Peers::meet(&[ACTION_UPDATE]).await;
    let refused = peers.manager().await.find_outdated(&HashMap::new()).await;
    assert_eq!(error_name(refused), "org.aptostree1.Error.NotAuthorized");
}

#[actix::test]
async fn a_method_that_waits_for_a_person_holds_up_no_signals() {
    let peers = Peers::meet(&[ACTION_UPDATE]).await;
    let manager = peers.manager().await;
    let mut ends = manager.receive_transaction_removed().await.unwrap();
    let path = manager.apply_live(&HashMap::new()).await.unwrap();
    let server = peers.daemon.object_server();
    let object = server.interface::<_, transaction::Transaction>(path.as_str()).await.unwrap();
    // As the object is held while polkit asks for a password.
    let held = object.get().await;
    let patience = std::time::Duration::from_secs(60);
    let end = tokio::time::timeout(patience, ends.next()).await.unwrap().unwrap();
    assert_eq!(end.args().unwrap().outcome, Outcome::Committed.name());
    drop(held);
}

#[actix::test]
async fn a_daemon_that_cannot_serve_answers_every_call_with_the_reason() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let guid = zbus::Guid::generate();
    let daemon = Builder::unix_stream(ours).server(guid).unwrap().p2p().build();
    let client = Builder::unix_stream(theirs).p2p().build();
    let (daemon, client) = tokio::try_join!(daemon, client).unwrap();
    let failure = apt_ostree_proto::Failure::new(
        apt_ostree_proto::ErrorCode::InvalidConfiguration,
        "line 2 is odd",
    );
    let mut calls = zbus::MessageStream::from(&daemon);
    let refusals = refusal::answer_all(&daemon, &mut calls, &failure, Duration::from_secs(60));
    let manager = ManagerProxy::builder(&client)
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await
        .unwrap();
    let calls = async {
        let status = manager.get_status().await;
        assert!(status.as_ref().unwrap_err().to_string().contains("line 2 is odd"), "{status:?}");
        let names = [
            error_name(status),
            error_name(manager.apply_live(&HashMap::new()).await),
            error_name(manager.version().await),
        ];
        for name in names {
            assert_eq!(name, "org.aptostree1.Error.InvalidConfiguration");
        }
    };
    let (ended, ()) = tokio::join!(refusals, calls);
    ended.unwrap();
}

#[actix::test]
async fn a_daemon_that_cannot_serve_leaves_however_often_it_is_called() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let daemon = Builder::unix_stream(ours).server(zbus::Guid::generate()).unwrap().p2p().build();
    let client = Builder::unix_stream(theirs).p2p().build();
    let (daemon, client) = tokio::try_join!(daemon, client).unwrap();
    let failure = apt_ostree_proto::Failure::new(apt_ostree_proto::ErrorCode::Internal, "odd");
    let mut calls = zbus::MessageStream::from(&daemon);
    let longest = Duration::from_millis(300);
    let manager = ManagerProxy::builder(&client)
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await
        .unwrap();
    let without_end = async {
        loop {
            error_name(manager.get_status().await);
        }
    };
    let patience = Duration::from_secs(60);
    tokio::select! {
        () = without_end => unreachable!(),
        () = tokio::time::sleep(patience) => panic!("it answers without end"),
        ended = refusal::answer_all(&daemon, &mut calls, &failure, longest) => ended.unwrap(),
    }
}
