use apt_ostree_proto::TransactionId;
use apt_ostree_proto::service::UnitEffect;
use apt_ostree_proto::strategy::Strategy;

use super::super::restore::{restore, stop_started};
use super::*;
use crate::context::Reporter;
use crate::sim::{Behaviour, Faults, SimFault, SimSystemd, SimUnit};

const DWELL: Duration = Duration::from_secs(5);

fn unit(name: &str) -> UnitName {
    UnitName::parse(name).unwrap()
}

fn units(names: &[&str]) -> Vec<UnitName> {
    names.iter().map(|name| unit(name)).collect()
}

fn context() -> StepContext {
    StepContext {
        transaction: TransactionId(1),
        cancel: tokio_util::sync::CancellationToken::new(),
        report: Reporter::silent(),
    }
}

fn plan(effects: &[(&str, UnitAction)], followers: &[&str]) -> ServicePlan {
    let effect =
        |(name, action): &(&str, UnitAction)| UnitEffect::new(unit(name), *action, Vec::new());
    ServicePlan {
        effects: effects.iter().map(effect).collect(),
        followers: units(followers),
        other_processes: Vec::new(),
    }
}

/// A host with `a`, which needs `b`, `off`, which does not run, and `bad`, which had failed; on
/// tree 0.
fn host() -> SimSystemd {
    let systemd = SimSystemd::new();
    let needs_b = UnitDependencies {
        requires: units(&["b.service"]),
        after: units(&["b.service"]),
        ..UnitDependencies::default()
    };
    let needed_by_a =
        UnitDependencies { required_by: units(&["a.service"]), ..UnitDependencies::default() };
    for (name, dependencies) in [
        ("a.service", needs_b),
        ("b.service", needed_by_a),
        ("off.service", UnitDependencies::default()),
        ("bad.service", UnitDependencies::default()),
    ] {
        let unit_file = "enabled".to_owned();
        systemd.define(&unit(name), SimUnit { dependencies, unit_file, ..SimUnit::default() });
    }
    systemd.boot(&unit("b.service"));
    systemd.boot(&unit("a.service"));
    systemd.fail(&unit("bad.service"));
    systemd
}

fn behaving(behaviour: Behaviour) -> SimUnit {
    SimUnit { behaviour, unit_file: "enabled".to_owned(), ..SimUnit::default() }
}

fn calls(systemd: &SimSystemd) -> String {
    systemd.calls().join(", ")
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_its_requirement_took_along_is_not_restarted_again() {
    let systemd = host();
    let plan = plan(&[("a.service", UnitAction::Restart), ("b.service", UnitAction::Restart)], &[]);
    let up = start(&systemd, &plan, DWELL, &context()).await.unwrap();
    assert_eq!(up, units(&["a.service", "b.service"]));
    assert_eq!(calls(&systemd), "restart b.service, start a.service");
}

#[tokio::test(start_paused = true)]
async fn what_is_stopped_for_the_switch_comes_back_with_its_followers() {
    let systemd = host();
    let plan = plan(&[("b.service", UnitAction::StopStart)], &["a.service"]);
    stop(&systemd, &plan, &context()).await.unwrap();
    assert_eq!(systemd.snapshot()[&unit("a.service")].active, "inactive");
    systemd.set_tree(1);
    start(&systemd, &plan, DWELL, &context()).await.unwrap();
    for name in ["a.service", "b.service"] {
        assert_eq!(systemd.snapshot()[&unit(name)].runs_tree, Some(1), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_start_starts_only_what_is_enabled() {
    let systemd = host();
    let disabled = SimUnit { unit_file: "disabled".to_owned(), ..SimUnit::default() };
    systemd.define(&unit("disabled.service"), disabled);
    let plan =
        plan(&[("off.service", UnitAction::Start), ("disabled.service", UnitAction::Start)], &[]);
    let up = start(&systemd, &plan, DWELL, &context()).await.unwrap();
    assert_eq!(up, units(&["off.service"]));
}

#[tokio::test(start_paused = true)]
async fn independent_units_start_side_by_side() {
    let systemd = SimSystemd::new();
    let slow = Behaviour { start_takes: Duration::from_secs(10), ..Behaviour::default() };
    let names: Vec<String> = (0..6).map(|number| format!("s{number}.service")).collect();
    for name in &names {
        systemd.define(&unit(name), behaving(slow.clone()));
    }
    let effects: Vec<_> = names.iter().map(|name| (name.as_str(), UnitAction::Start)).collect();
    let began = tokio::time::Instant::now();
    start(&systemd, &plan(&effects, &[]), DWELL, &context()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_the_plan_leaves_running_is_not_stopped_for_its_socket() {
    let systemd = SimSystemd::new();
    let triggers =
        UnitDependencies { triggers: units(&["a.service"]), ..UnitDependencies::default() };
    let socket = SimUnit { dependencies: triggers, ..SimUnit::default() };
    systemd.define(&unit("a.socket"), socket);
    systemd.define(&unit("a.service"), SimUnit::default());
    systemd.boot(&unit("a.socket"));
    // Somebody came to the socket after the plan was made.
    systemd.boot(&unit("a.service"));
    let plan = plan(&[("a.socket", UnitAction::Restart)], &[]);
    start(&systemd, &plan, DWELL, &context()).await.unwrap();
    assert_eq!(calls(&systemd), "");
}

#[tokio::test(start_paused = true)]
async fn a_socket_restarts_around_its_service() {
    let systemd = SimSystemd::new();
    let triggers =
        UnitDependencies { triggers: units(&["a.service"]), ..UnitDependencies::default() };
    let triggered =
        UnitDependencies { triggered_by: units(&["a.socket"]), ..UnitDependencies::default() };
    for (name, dependencies) in [("a.socket", triggers), ("a.service", triggered)] {
        systemd.define(&unit(name), SimUnit { dependencies, ..SimUnit::default() });
        systemd.boot(&unit(name));
    }
    let plan = plan(&[("a.service", UnitAction::Restart), ("a.socket", UnitAction::Restart)], &[]);
    start(&systemd, &plan, DWELL, &context()).await.unwrap();
    assert_eq!(calls(&systemd), "stop a.service, restart a.socket, start a.service");
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_names_the_unit_its_result_and_its_log() {
    let systemd = SimSystemd::new();
    let fails = Behaviour { start_fails: Some("exit-code".to_owned()), ..Behaviour::default() };
    systemd.define(&unit("x.service"), behaving(fails));
    let plan = plan(&[("x.service", UnitAction::Restart)], &[]);
    let failure = start(&systemd, &plan, DWELL, &context()).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::UnitFailed);
    for part in ["x.service", "exit-code", "simulated log"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_hangs_ends_after_its_time() {
    let systemd = SimSystemd::new();
    let hangs = Behaviour { stop_hangs: true, ..Behaviour::default() };
    systemd.define(&unit("x.service"), behaving(hangs));
    systemd.boot(&unit("x.service"));
    let began = tokio::time::Instant::now();
    let plan = plan(&[("x.service", UnitAction::Stop)], &[]);
    let failure = stop(&systemd, &plan, &context()).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::UnitFailed);
    assert_eq!(began.elapsed(), Duration::from_secs(200));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_heard_while_a_job_runs() {
    let systemd = SimSystemd::new();
    systemd.define(
        &unit("x.service"),
        behaving(Behaviour { start_hangs: true, ..Behaviour::default() }),
    );
    let context = context();
    let cancel = context.cancel.clone();
    let trip = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cancel.cancel();
    };
    let plan = plan(&[("x.service", UnitAction::Start)], &[]);
    let (result, ()) = tokio::join!(start(&systemd, &plan, DWELL, &context), trip);
    assert_eq!(result.unwrap_err().code, ErrorCode::Cancelled);
}

/// Whatever call of the whole way goes wrong, and however: once the old tree is back, restoring
/// brings back the world as it was, and restoring again changes nothing.
#[tokio::test(start_paused = true)]
async fn restoring_brings_the_world_back_after_any_fault() {
    let effects = [
        ("a.service", UnitAction::Restart),
        ("b.service", UnitAction::StopStart),
        ("new.service", UnitAction::Start),
        ("off.service", UnitAction::Start),
    ];
    let mut faults_met = 0;
    for fault in [SimFault::ErrorBefore, SimFault::ErrorAfter, SimFault::Hang] {
        for position in 0..200_usize {
            let systemd = host();
            let new = SimUnit { unit_file: "enabled".to_owned(), ..SimUnit::default() };
            systemd.define_in(1, &unit("new.service"), Some(new));
            let plan = plan(&effects, &[]);
            let before = systemd.states(&plan.touched()).await.unwrap();
            let world = systemd.snapshot();
            let count = std::cell::Cell::new(0);
            systemd.set_faults(Faults::from_hook(move |_| {
                count.set(count.get() + 1);
                (count.get() == position + 1).then_some(fault)
            }));
            let way = async {
                stop(&systemd, &plan, &context()).await?;
                systemd.set_tree(1);
                systemd.reload_managers().await?;
                start(&systemd, &plan, DWELL, &context()).await
            };
            let result = tokio::time::timeout(Duration::from_secs(1000), way).await;
            let went_wrong = !matches!(result, Ok(Ok(_)));
            faults_met += usize::from(went_wrong);
            systemd.set_faults(Faults::default());
            stop_started(&systemd, &before, &plan, &context()).await.unwrap();
            systemd.set_tree(0);
            systemd.reload_managers().await.unwrap();
            for round in 0..2 {
                restore(&systemd, &before, &plan, &context()).await.unwrap();
                assert_eq!(systemd.snapshot(), world, "{fault:?} at {position}, round {round}");
            }
            if !went_wrong && position > 60 {
                break;
            }
        }
    }
    assert!(faults_met > 30, "{faults_met}");
}

#[tokio::test(start_paused = true)]
async fn restoring_leaves_a_unit_alone_that_nobody_restarted() {
    let systemd = host();
    let plan = plan(&[("a.service", UnitAction::Restart), ("b.service", UnitAction::Restart)], &[]);
    let before = systemd.states(&plan.touched()).await.unwrap();
    restore(&systemd, &before, &plan, &context()).await.unwrap();
    assert_eq!(calls(&systemd), "");
}

#[tokio::test(start_paused = true)]
async fn restoring_goes_on_past_a_unit_that_does_not_come_back() {
    let systemd = host();
    let restarts =
        ["a.service", "off.service", "b.service"].map(|name| (name, UnitAction::Restart));
    let plan = plan(&restarts, &[]);
    let before = systemd.states(&plan.touched()).await.unwrap();
    systemd.stop(&unit("b.service"), DWELL).await.unwrap();
    let fails = Behaviour { start_fails: Some("exit-code".to_owned()), ..Behaviour::default() };
    systemd.define(&unit("b.service"), behaving(fails));
    systemd.define(&unit("a.service"), SimUnit::default());
    let failure = restore(&systemd, &before, &plan, &context()).await.unwrap_err();
    assert!(failure.message.contains("b.service"), "{}", failure.message);
    assert!(systemd.snapshot()[&unit("a.service")].runs_tree.is_some());
}

/// Five instances of a template that run and are to be restarted one by one.
fn rolling() -> (SimSystemd, ServicePlan) {
    let systemd = SimSystemd::new();
    let names: Vec<String> = (1..=5).map(|number| format!("web@{number}.service")).collect();
    for name in &names {
        systemd.define(&unit(name), SimUnit::default());
        systemd.boot(&unit(name));
    }
    let effects: Vec<_> = names.iter().map(|name| (name.as_str(), UnitAction::Restart)).collect();
    let mut plan = plan(&effects, &[]);
    for effect in &mut plan.effects {
        effect.group = Some("web@".to_owned());
    }
    systemd.set_tree(1);
    (systemd, plan)
}

#[tokio::test(start_paused = true)]
async fn a_rolling_group_restarts_one_by_one_each_once_the_one_before_has_kept_up() {
    let (systemd, plan) = rolling();
    let begun = Instant::now();
    let up = start(&systemd, &plan, DWELL, &context()).await.unwrap();
    assert_eq!(up, plan.touched());
    assert!(begun.elapsed() >= 5 * DWELL, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_turns_of_a_group_take_no_longer_together_than_the_guard_waits() {
    let (systemd, plan) = rolling();
    let began = Instant::now();
    start(&systemd, &plan, 10 * LONGEST_TURNS, &context()).await.unwrap();
    let took = began.elapsed();
    assert!(took >= LONGEST_TURNS && took < LONGEST_TURNS + DWELL, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rolling_group_stops_at_the_first_that_does_not_keep_up() {
    let (systemd, plan) = rolling();
    let dies = Behaviour { dies_after: Some(Duration::from_secs(2)), ..Behaviour::default() };
    systemd.define_in(1, &unit("web@3.service"), Some(behaving(dies)));
    systemd.reload_managers().await.unwrap();
    let failure = start(&systemd, &plan, DWELL, &context()).await.unwrap_err();
    assert!(failure.message.contains("web@3.service did not stay up"), "{}", failure.message);
    for (number, tree) in [(1, Some(1)), (2, Some(1)), (3, None), (4, Some(0)), (5, Some(0))] {
        let found = systemd.snapshot()[&unit(&format!("web@{number}.service"))].runs_tree;
        assert_eq!(found, tree, "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_graceful_restart_takes_as_long_as_the_unit_needs() {
    for (strategy, stops) in [(Strategy::Automatic, false), (Strategy::Graceful, true)] {
        let systemd = SimSystemd::new();
        let slow = Behaviour { start_takes: Duration::from_secs(400), ..Behaviour::default() };
        systemd.define(&unit("slow.service"), behaving(slow));
        systemd.boot(&unit("slow.service"));
        let mut plan = plan(&[("slow.service", UnitAction::Restart)], &[]);
        plan.effects[0].strategy = strategy;
        let started = start(&systemd, &plan, DWELL, &context()).await;
        assert_eq!(started.is_ok(), stops, "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_unit_whose_file_went_is_stopped_and_is_no_failure_and_comes_back_with_it() {
    let systemd = SimSystemd::new();
    let gone = unit("gone.service");
    systemd.define(&gone, SimUnit::default());
    systemd.boot(&gone);
    systemd.define_in(1, &gone, None);
    let before = systemd.states(std::slice::from_ref(&gone)).await.unwrap();
    let plan = plan(&[("gone.service", UnitAction::Restart)], &[]);
    systemd.set_tree(1);
    systemd.reload_managers().await.unwrap();
    let up = start(&systemd, &plan, DWELL, &context()).await.unwrap();
    assert_eq!((up, calls(&systemd).as_str()), (Vec::new(), "stop gone.service"));
    systemd.set_tree(0);
    systemd.reload_managers().await.unwrap();
    restore(&systemd, &before, &plan, &context()).await.unwrap();
    assert_eq!(systemd.snapshot()[&gone].runs_tree, Some(0));
}
