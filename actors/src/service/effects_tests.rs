use apt_ostree_proto::service::ScriptRequest;
use apt_ostree_proto::{TransactionId, UnitPattern};

use apt_ostree_proto::strategy::Strategy;

use super::super::StrategyRule;
use super::*;
use crate::context::{Reporter, StepContext};
use crate::port::{Manner, ReplacedFile};
use crate::sim::{SimProcess, SimProcesses, SimSystemd, SimUnit};

fn unit(name: &str) -> UnitName {
    UnitName::parse(name).unwrap()
}

fn units(names: &[&str]) -> Vec<UnitName> {
    names.iter().map(|name| unit(name)).collect()
}

fn request(requests: &[(&str, ScriptVerb)]) -> DetermineEffects {
    let script = |(name, verb): &(&str, ScriptVerb)| ScriptRequest {
        package: "p".to_owned(),
        script: "postinst".to_owned(),
        verb: *verb,
        unit: UnitName::parse(*name).ok(),
        units: UnitPattern::parse(*name).ok().filter(|_| name.contains('*')),
    };
    DetermineEffects {
        requests: requests.iter().map(script).collect(),
        changed: Vec::new(),
        etc_changed: Vec::new(),
        replaced: Vec::new(),
        configured: BTreeMap::new(),
        reads: BTreeMap::new(),
        ran_before: Vec::new(),
        restart: RestartPolicy::Affected,
        strategies: Strategies::default(),
        from_packages: true,
        context: StepContext {
            transaction: TransactionId(1),
            cancel: tokio_util::sync::CancellationToken::new(),
            report: Reporter::silent(),
        },
    }
}

/// A host where `running` runs, each with its dependencies.
fn host(running: &[(&str, UnitDependencies)]) -> SimSystemd {
    let systemd = SimSystemd::new();
    for (name, dependencies) in running {
        let file = SimUnit { dependencies: dependencies.clone(), ..SimUnit::default() };
        systemd.define(&unit(name), file);
        systemd.boot(&unit(name));
    }
    systemd
}

async fn plan_of(systemd: &SimSystemd, request: &DetermineEffects) -> ServicePlan {
    determine(systemd, &SimProcesses::new(), request).await.unwrap()
}

fn actions(plan: &ServicePlan) -> Vec<(&str, UnitAction)> {
    plan.effects.iter().map(|effect| (effect.unit.as_str(), effect.action)).collect()
}

#[tokio::test]
async fn what_the_hosts_policy_forbids_is_left_and_takes_nothing_down() {
    let needed =
        UnitDependencies { required_by: vec![unit("app.service")], ..UnitDependencies::default() };
    let systemd = host(&[("db.service", needed), ("app.service", UnitDependencies::default())]);
    let request = request(&[("db.service", ScriptVerb::Restart)]);
    let plan = plan_of(&systemd, &request).await;
    assert_eq!(plan.followers, [unit("app.service")]);
    systemd.forbid(&unit("db.service"));
    let plan = plan_of(&systemd, &request).await;
    assert_eq!(actions(&plan), [("db.service", UnitAction::Leave)]);
    assert!(plan.effects[0].left_because.as_deref().is_some_and(|why| why.contains("policy-rc.d")));
    assert!(plan.followers.is_empty(), "{:?}", plan.followers);
}

#[tokio::test]
async fn what_the_hosts_policy_forbids_goes_down_with_nothing_else_either() {
    let needed =
        UnitDependencies { required_by: vec![unit("app.service")], ..UnitDependencies::default() };
    let systemd = host(&[("db.service", needed), ("app.service", UnitDependencies::default())]);
    systemd.forbid(&unit("app.service"));
    for requests in [
        &[("db.service", ScriptVerb::Restart)][..],
        &[("db.service", ScriptVerb::Restart), ("app.service", ScriptVerb::Restart)],
    ] {
        let plan = plan_of(&systemd, &request(requests)).await;
        assert!(plan.is_empty(), "{plan:?}");
        let db = plan.effects.iter().find(|effect| effect.unit == unit("db.service")).unwrap();
        assert!(db.left_because.as_ref().unwrap().contains("app.service"), "{db:?}");
    }
}

#[tokio::test]
async fn all_sources_are_joined_with_their_reasons() {
    let systemd = host(&[
        ("nginx.service", UnitDependencies::default()),
        ("ssh.service", UnitDependencies::default()),
        ("own.service", UnitDependencies::default()),
        ("rsyslog.service", UnitDependencies { can_reload: true, ..UnitDependencies::default() }),
        ("idle.service", UnitDependencies::default()),
    ]);
    let processes = SimProcesses::new();
    let library = PathBuf::from("/usr/lib/libssl.so.3");
    for (pid, unit) in
        [(10, Some(unit("nginx.service"))), (11, Some(unit("ssh.service"))), (12, None)]
    {
        processes.add(SimProcess {
            pid,
            unit,
            maps: vec![library.clone()],
            ..SimProcess::default()
        });
    }
    processes.add_own_mount(unit("own.service"), "/usr/lib/modules".into());
    let mut request = request(&[("nginx.service", ScriptVerb::Restart)]);
    request.changed = vec!["usr/lib/systemd/system/ssh.service".into()];
    request.etc_changed = vec!["etc/rsyslog.conf".into()];
    request.replaced = vec![ReplacedFile { path: library.clone(), device: 1, inode: 2 }];

    let plan = determine(&systemd, &processes, &request).await.unwrap();
    assert_eq!(
        actions(&plan),
        [
            ("nginx.service", UnitAction::Restart),
            ("own.service", UnitAction::Restart),
            ("rsyslog.service", UnitAction::Reload),
            ("ssh.service", UnitAction::Restart),
        ]
    );
    let nginx = &plan.effects[0].reasons;
    assert!(
        matches!(nginx[0], Reason::Script { .. }) && matches!(nginx[1], Reason::OldCode { .. })
    );
    assert_eq!(
        plan.effects[3].reasons,
        [
            Reason::UnitFile { path: "/usr/lib/systemd/system/ssh.service".into() },
            Reason::OldCode { pid: 11, path: library.clone() },
        ]
    );
    let other =
        ProcessUse { pid: 12, unit: None, place: Place::Host, path: library, manner: Manner::Maps };
    assert_eq!(plan.other_processes, [other]);
}

#[tokio::test]
async fn a_unit_is_affected_by_the_configuration_that_it_is_known_to_read() {
    let systemd = host(&[("by-name.service", UnitDependencies::default())]);
    for (name, reads) in [
        ("environment.service", "/etc/shared/app.env"),
        ("generated.service", "/usr/lib/systemd/system-generators/toy-generator"),
        ("packaged.service", "/etc/other"),
        ("told.service", "/etc/other"),
        ("unaffected.service", "/etc/shared/other.env"),
    ] {
        systemd.define(&unit(name), SimUnit { reads: vec![reads.into()], ..SimUnit::default() });
        systemd.boot(&unit(name));
    }
    let stopped = SimUnit { reads: vec!["/etc/shared/app.env".into()], ..SimUnit::default() };
    systemd.define(&unit("stopped.service"), stopped);
    let mut request = request(&[]);
    request.etc_changed = vec!["etc/shared/app.env".into(), "etc/by-name/x.conf".into()];
    request.changed = vec!["usr/lib/systemd/system-generators/toy-generator".into()];
    request.configured = [("/etc/shared/app.env".into(), units(&["packaged.service"]))].into();
    request.reads =
        ["told.service".parse().map(|units| (units, vec!["/etc/shared".into()])).unwrap()].into();
    let plan = plan_of(&systemd, &request).await;
    let expected = ["by-name", "environment", "generated", "packaged", "told"];
    let restarted: Vec<String> = expected.iter().map(|name| format!("{name}.service")).collect();
    let names: Vec<String> = plan.effects.iter().map(|effect| effect.unit.to_string()).collect();
    assert_eq!(names, restarted);
    assert!(plan.effects.iter().all(|effect| effect.action == UnitAction::Restart));
    let configuration = Reason::Configuration { path: "/etc/shared/app.env".into() };
    assert_eq!(plan.effects[1].reasons, [configuration]);
}

#[tokio::test]
async fn an_alias_is_taken_for_the_unit_that_it_names() {
    let names = units(&["ssh.service", "sshd.service"]);
    let systemd =
        host(&[("ssh.service", UnitDependencies { names, ..UnitDependencies::default() })]);
    let request =
        request(&[("sshd.service", ScriptVerb::Reload), ("ssh.service", ScriptVerb::Restart)]);
    let plan = plan_of(&systemd, &request).await;
    assert_eq!(actions(&plan), [("ssh.service", UnitAction::Restart)]);
    assert_eq!(plan.effects[0].reasons.len(), 2);
}

#[tokio::test]
async fn what_is_stopped_by_one_name_and_started_by_another_comes_up_again() {
    let names = units(&["ssh.service", "sshd.service"]);
    let systemd =
        host(&[("ssh.service", UnitDependencies { names, ..UnitDependencies::default() })]);
    for (requests, action) in [
        (
            [("sshd.service", ScriptVerb::Stop), ("ssh.service", ScriptVerb::Start)],
            UnitAction::StopStart,
        ),
        (
            [("ssh.service", ScriptVerb::Start), ("sshd.service", ScriptVerb::Stop)],
            UnitAction::Stop,
        ),
    ] {
        let plan = plan_of(&systemd, &request(&requests)).await;
        assert_eq!(actions(&plan), [("ssh.service", action)]);
    }
}

#[tokio::test]
async fn a_template_stands_for_its_instances() {
    let systemd = host(&[
        ("app@a.service", UnitDependencies::default()),
        ("app@b.service", UnitDependencies::default()),
    ]);
    let plan = plan_of(&systemd, &request(&[("app@.service", ScriptVerb::Restart)])).await;
    let restarted =
        [("app@a.service", UnitAction::Restart), ("app@b.service", UnitAction::Restart)];
    assert_eq!(actions(&plan), restarted);
}

#[tokio::test]
async fn running_units_that_need_one_that_goes_down_follow_it() {
    let required_by =
        |names| UnitDependencies { required_by: units(names), ..UnitDependencies::default() };
    let systemd = host(&[
        ("base.service", required_by(&["middle.service", "stopped.service"])),
        ("middle.service", required_by(&["top.service"])),
        ("top.service", UnitDependencies::default()),
    ]);
    systemd.define(&unit("stopped.service"), SimUnit::default());
    let plan = plan_of(&systemd, &request(&[("base.service", ScriptVerb::Restart)])).await;
    assert_eq!(plan.followers, units(&["middle.service", "top.service"]));
    assert_eq!(plan.touched(), units(&["base.service", "middle.service", "top.service"]));
}

#[tokio::test]
async fn what_a_protected_unit_needs_is_left_alone() {
    let required_by =
        UnitDependencies { required_by: units(&["dbus.service"]), ..UnitDependencies::default() };
    let systemd =
        host(&[("base.service", required_by), ("dbus.service", UnitDependencies::default())]);
    let plan = plan_of(&systemd, &request(&[("base.service", ScriptVerb::Restart)])).await;
    assert_eq!(actions(&plan), [("base.service", UnitAction::Leave)]);
    assert!(plan.effects[0].left_because.as_ref().unwrap().contains("dbus.service"));
    assert!(plan.is_empty());
}

#[tokio::test]
async fn a_socket_is_left_alone_whose_service_is_for_another_that_is_never_touched() {
    let needed =
        UnitDependencies { required_by: units(&["p.service"]), ..UnitDependencies::default() };
    let triggers =
        UnitDependencies { triggers: units(&["a.service"]), ..UnitDependencies::default() };
    let systemd = host(&[
        ("a.socket", triggers),
        ("a.service", needed),
        ("p.service", UnitDependencies::default()),
    ]);
    let requests = [("a.socket", ScriptVerb::Restart), ("a.service", ScriptVerb::Restart)];
    let mut request = request(&requests);
    let never = StrategyRule {
        units: "p.service".parse().unwrap(),
        strategy: Strategy::Never,
        group: None,
    };
    request.strategies = Strategies::new(vec![never]);
    let plan = plan_of(&systemd, &request).await;
    let left = [("a.service", UnitAction::Leave), ("a.socket", UnitAction::Leave)];
    assert_eq!(actions(&plan), left);
    assert!(plan.is_empty(), "{plan:?}");
}

#[tokio::test]
async fn a_socket_restarts_only_together_with_its_running_service() {
    let triggers =
        UnitDependencies { triggers: units(&["a.service"]), ..UnitDependencies::default() };
    let systemd = host(&[("a.socket", triggers), ("a.service", UnitDependencies::default())]);
    let alone = plan_of(&systemd, &request(&[("a.socket", ScriptVerb::Restart)])).await;
    assert_eq!(actions(&alone), [("a.socket", UnitAction::Leave)]);
    let both = [("a.socket", ScriptVerb::Restart), ("a.service", ScriptVerb::Restart)];
    let both = plan_of(&systemd, &request(&both)).await;
    assert!(actions(&both).iter().all(|(_, action)| *action == UnitAction::Restart));
}

/// As postgresql's scripts do: all clusters of a version are stopped by a pattern, and what they are part
/// of is started.
#[tokio::test]
async fn what_is_stopped_by_a_pattern_comes_back_with_what_it_is_part_of() {
    use UnitAction::{Leave, Restart, Stop, StopStart};
    let whole = UnitDependencies {
        required_by: units(&["db@15-main.service"]),
        ..UnitDependencies::default()
    };
    let systemd =
        host(&[("db.service", whole), ("db@15-main.service", UnitDependencies::default())]);
    let (stop, start) = (("db@15-*.service", ScriptVerb::Stop), ("db.service", ScriptVerb::Start));
    let rule = |strategy| StrategyRule {
        units: UnitPattern::parse("db@.service").unwrap(),
        strategy,
        group: None,
    };
    for (requests, strategy, expected) in [
        (&[stop, start][..], Strategy::Automatic, StopStart),
        (&[stop, start], Strategy::Restart, StopStart),
        (&[stop, start], Strategy::Rolling, Restart),
        (&[stop, start], Strategy::Defer, Leave),
        // Its package goes.
        (&[stop], Strategy::Defer, Stop),
        (&[start, stop], Strategy::Automatic, Stop),
    ] {
        let mut request = request(requests);
        request.strategies = Strategies::new(vec![rule(strategy)]);
        let plan = plan_of(&systemd, &request).await;
        assert_eq!(actions(&plan), [("db@15-main.service", expected)], "{requests:?} {strategy:?}");
    }
}
