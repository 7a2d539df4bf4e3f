//! What runs old code: which updates count for it.

use std::cell::Cell;
use std::path::PathBuf;

use apt_ostree_actors::coordinator::{FindOutdated, RestartOutdated};
use apt_ostree_actors::port::{Manner, ProcessUse, TreeChange};
use apt_ostree_actors::service::{Strategies, StrategyRule};
use apt_ostree_actors::sim::{Behaviour, Faults, SimFault, SimHost, SimUnit};
use apt_ostree_proto::outdated::{Outdated, Place, Restarted};
use apt_ostree_proto::request::Target;
use apt_ostree_proto::service::{Reason, UnitAction};
use apt_ostree_proto::status::Outcome;
use apt_ostree_proto::strategy::Strategy;
use apt_ostree_proto::{ErrorCode, Failure, TransactionId, UnitName, UnitPattern};
use tokio_util::sync::CancellationToken;

use crate::daemon::{Daemon, begin_upgrade, directory, in_system, settings};

async fn look(daemon: &Daemon) -> Result<Outdated, Failure> {
    daemon.coordinator.send(FindOutdated).await.unwrap()
}

/// The updates that the processes were looked at with.
async fn told(host: &SimHost, daemon: &Daemon) -> Vec<TreeChange> {
    look(daemon).await.unwrap();
    host.processes.told_changes()
}

#[test]
fn kept_updates_and_rollbacks_of_this_boot_count_and_no_others() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let mut daemon = Daemon::start(&host, state.path()).await;
        assert_eq!(told(&host, &daemon).await, []);

        assert_eq!(daemon.update().await.outcome, Outcome::Committed);
        let changes = told(&host, &daemon).await;
        let [change] = changes.as_slice() else { panic!("{changes:?}") };
        let paths: Vec<&str> = change.paths.keys().filter_map(|path| path.to_str()).collect();
        assert_eq!(paths, ["/etc/app.conf", "/usr/lib/libapp.so"]);

        let id = daemon.begin(Target::Before(TransactionId(1))).await;
        daemon.end(id).await;
        let changes = told(&host, &daemon).await;
        assert_eq!(changes.len(), 2);
        assert!(changes[0].at_milliseconds >= changes[1].at_milliseconds);

        // What is put back changed nothing that stays.
        host.set_faults(&Faults::from_hook(|call| {
            (call == "tree.deploy").then_some(SimFault::ErrorBefore)
        }));
        assert_eq!(daemon.update().await.outcome, Outcome::RolledBack);
        host.set_faults(&Faults::default());
        assert_eq!(told(&host, &daemon).await.len(), 2);

        host.disk.reboot();
        let daemon = Daemon::start(&host, state.path()).await;
        assert_eq!(told(&host, &daemon).await, []);
    });
}

#[test]
fn the_admins_veto_is_told_and_a_look_that_fails_is_a_failure() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let unit = UnitName::parse("app.service").unwrap();
        let path = PathBuf::from("/usr/lib/libssl.so.3");
        host.processes.add_outdated(ProcessUse {
            pid: 7,
            unit: Some(unit.clone()),
            place: Place::Host,
            path: path.clone(),
            manner: Manner::Maps,
        });
        let daemon = Daemon::start(&host, state.path()).await;
        let found = look(&daemon).await.unwrap();
        let [effect] = found.units.as_slice() else { panic!("{found:?}") };
        assert_eq!((&effect.unit, effect.action), (&unit, UnitAction::Restart));
        assert_eq!(effect.reasons, [Reason::OldCode { pid: 7, path }]);

        let mut settings = settings(state.path());
        let units = UnitPattern::parse(unit.as_str()).unwrap();
        let rule = StrategyRule { units, strategy: Strategy::Never, group: None };
        settings.strategies = Strategies::new(vec![rule]);
        let daemon = Daemon::start_with(&host, state.path(), settings).await;
        let found = look(&daemon).await.unwrap();
        assert_eq!(found.units[0].action, UnitAction::Leave);

        for call in ["processes.outdated", "systemd.list"] {
            for fault in [SimFault::ErrorBefore, SimFault::Panic, SimFault::Hang] {
                host.set_faults(&Faults::from_hook(move |name| (name == call).then_some(fault)));
                assert!(look(&daemon).await.is_err(), "{call} {fault:?}");
            }
        }
        host.set_faults(&Faults::default());
        assert_eq!(look(&daemon).await.unwrap().units.len(), 1);
    });
}

fn used(name: &str) -> ProcessUse {
    ProcessUse {
        pid: 7,
        unit: Some(UnitName::parse(name).unwrap()),
        place: Place::Host,
        path: "/usr/lib/libssl.so.3".into(),
        manner: Manner::Maps,
    }
}

async fn restart(daemon: &Daemon) -> Result<Restarted, Failure> {
    let request = RestartOutdated { cancel: CancellationToken::new() };
    daemon.coordinator.send(request).await.unwrap()
}

#[test]
fn a_restart_takes_what_is_not_left_alone_watches_it_and_keeps_others_from_beginning() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let daemon = Daemon::start(&host, state.path()).await;
        let done = restart(&daemon).await.unwrap();
        assert_eq!((done.units.len(), host.systemd.calls().len()), (0, 0));

        host.systemd.define(&"dbus.service".parse().unwrap(), SimUnit::default());
        host.systemd.boot(&"dbus.service".parse().unwrap());
        host.processes.add_outdated(used("app.service"));
        host.processes.add_outdated(used("dbus.service"));
        let (done, refused) = tokio::join!(restart(&daemon), async {
            daemon.coordinator.send(begin_upgrade()).await.unwrap()
        });
        let done = done.unwrap();
        assert_eq!(done.units, ["app.service".parse().unwrap()]);
        assert_eq!(host.systemd.calls(), ["restart app.service"]);
        // The simulated processes never change.
        assert_eq!(done.left.units.len(), 2);
        assert_eq!(refused.unwrap_err().code, ErrorCode::Busy);
        assert!(!host.systemd.holds_shutdown());
        daemon.coordinator.send(begin_upgrade()).await.unwrap().unwrap();
    });
}

#[test]
fn a_restart_that_is_done_does_not_fail_for_want_of_a_last_look() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let daemon = Daemon::start(&host, state.path()).await;
        host.processes.add_outdated(used("app.service"));
        let looks = Cell::new(0);
        host.set_faults(&Faults::from_hook(move |call| {
            looks.set(looks.get() + u32::from(call == "processes.outdated"));
            (call == "processes.outdated" && looks.get() == 2).then_some(SimFault::ErrorBefore)
        }));
        let done = restart(&daemon).await.unwrap();
        assert_eq!(done.units, ["app.service".parse().unwrap()]);
        assert!(done.warnings.iter().any(|text| text.contains("not known")), "{done:?}");
    });
}

#[test]
fn a_unit_that_does_not_stay_up_is_started_again_and_named() {
    in_system(async {
        let (host, state) = (SimHost::booted(), directory());
        let daemon = Daemon::start(&host, state.path()).await;
        let unit: UnitName = "app.service".parse().unwrap();
        host.processes.add_outdated(used("app.service"));
        let dies_after = Some(std::time::Duration::from_secs(2));
        let behaviour = Behaviour { dies_after, ..Behaviour::default() };
        host.systemd.define(&unit, SimUnit { behaviour, ..SimUnit::default() });
        let failure = restart(&daemon).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::Unhealthy);
        assert!(failure.message.contains("app.service") && failure.undo.is_none(), "{failure:?}");
        assert_eq!(host.systemd.calls(), ["restart app.service", "start app.service"]);

        let start_fails = Some("exit-code".to_owned());
        let behaviour = Behaviour { start_fails, ..Behaviour::default() };
        host.systemd.define(&unit, SimUnit { behaviour, ..SimUnit::default() });
        let failure = restart(&daemon).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::UnitFailed);
        assert!(failure.undo.is_some(), "{failure:?}");
        assert!(!host.systemd.holds_shutdown());
        // Nothing is in the way of what comes next.
        daemon.coordinator.send(begin_upgrade()).await.unwrap().unwrap();
    });
}
