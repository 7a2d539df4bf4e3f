use std::collections::BTreeMap;

use tokio::time::Instant;

use super::*;
use crate::context::Reporter;
use crate::port::{CheckLevel, HookPhase, Probe, Question};
use crate::sim::{Behaviour, SimChecks, SimHook, SimSystemd, SimUnit};

fn unit(name: &str) -> UnitName {
    UnitName::parse(name).unwrap()
}

fn context() -> StepContext {
    StepContext {
        transaction: TransactionId(1),
        cancel: tokio_util::sync::CancellationToken::new(),
        report: Reporter::silent(),
    }
}

fn call(phase: HookPhase) -> HookCall {
    let (transaction, packages) = (TransactionId(1), vec!["app".to_owned()]);
    HookCall { transaction, phase, packages, result: None, reason: None }
}

fn look(units: &[&str], probes: Probes) -> RecordBaseline {
    RecordBaseline {
        units: Watched { units: units.iter().map(|name| unit(name)).collect(), gone: Vec::new() },
        probes,
        call: Some(call(HookPhase::Before)),
        hook_timeout: Duration::from_secs(30),
        context: context(),
    }
}

fn request(baseline: Baseline, touched: &[&str]) -> CheckHealth {
    CheckHealth {
        baseline,
        touched: touched.iter().map(|name| unit(name)).collect(),
        dwell: DEFAULT_DWELL,
        call: Some(call(HookPhase::After)),
        hook_timeout: Duration::from_secs(30),
        context: context(),
    }
}

async fn record_baseline(systemd: &SimSystemd, units: &[&str]) -> PortResult<Baseline> {
    baseline::record(systemd, &SimChecks::default(), &look(units, Probes::new())).await
}

async fn check_health(systemd: &SimSystemd, request: &CheckHealth) -> PortResult<HealthReport> {
    check(systemd, &SimChecks::default(), request).await
}

/// Restarts a unit that behaves so, and watches it. Answers how long that took.
async fn watch(behaviour: Behaviour) -> (PortResult<HealthReport>, Duration) {
    let systemd = SimSystemd::new();
    let name = unit("x.service");
    systemd.define(&name, SimUnit::default());
    systemd.boot(&name);
    let baseline = record_baseline(&systemd, &["x.service"]).await.unwrap();
    systemd.define(&name, SimUnit { behaviour, ..SimUnit::default() });
    systemd.restart(&name, Duration::from_secs(90)).await.unwrap();
    let began = Instant::now();
    let result = check_health(&systemd, &request(baseline, &["x.service"])).await;
    (result, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_stays_up_is_healthy_after_the_dwell_and_not_before() {
    let (report, took) = watch(Behaviour::default()).await;
    assert_eq!(report.unwrap().healthy, [unit("x.service")]);
    assert_eq!(took, DEFAULT_DWELL);
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_dies_ends_the_dwell_at_once() {
    let dies = Behaviour { dies_after: Some(Duration::from_millis(1200)), ..Behaviour::default() };
    let (report, took) = watch(dies).await;
    let failure = report.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Unhealthy);
    for part in ["x.service", "failed (exit-code)", "1.2 s", "simulated log"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    assert!(took < Duration::from_millis(1300), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_ran_and_ends_well_at_once_is_not_healthy_even_if_it_is_the_only_one() {
    let systemd = SimSystemd::new();
    let name = unit("x.service");
    systemd.define(&name, SimUnit::default());
    systemd.boot(&name);
    let baseline = record_baseline(&systemd, &["x.service"]).await.unwrap();
    let behaviour = Behaviour { one_shot: true, ..Behaviour::default() };
    systemd.define(&name, SimUnit { behaviour, ..SimUnit::default() });
    systemd.restart(&name, Duration::from_secs(90)).await.unwrap();
    // It is down, so no step expects it to stay up.
    let failure = check_health(&systemd, &request(baseline.clone(), &[])).await.unwrap_err();
    assert!(failure.message.contains("inactive, not active"), "{}", failure.message);

    let none_ran = Baseline { states: BTreeMap::new(), ..baseline };
    check_health(&systemd, &request(none_ran, &[])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_dies_right_at_the_end_of_the_dwell_is_seen() {
    let dies = Behaviour { dies_after: Some(DEFAULT_DWELL), ..Behaviour::default() };
    assert!(watch(dies).await.0.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_its_manager_keeps_restarting_is_not_healthy() {
    let flaps = Behaviour {
        dies_after: Some(Duration::from_secs(2)),
        restarts_itself: true,
        ..Behaviour::default()
    };
    let failure = watch(flaps).await.0.unwrap_err();
    assert!(failure.message.contains("restarted by itself"), "{}", failure.message);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_expected_of_a_unit_that_goes_even_if_it_needs_one_that_stays() {
    let systemd = SimSystemd::new();
    let required_by = vec![unit("top.service")];
    let dependencies = crate::port::UnitDependencies { required_by, ..Default::default() };
    systemd.define(&unit("base.service"), SimUnit { dependencies, ..SimUnit::default() });
    systemd.define(&unit("top.service"), SimUnit::default());
    systemd.boot(&unit("base.service"));
    systemd.boot(&unit("top.service"));
    let mut look = look(&["base.service"], Probes::new());
    look.units.gone = vec![unit("top.service")];
    let baseline = baseline::record(&systemd, &SimChecks::default(), &look).await.unwrap();
    // As packages leave it that are removed and not purged.
    systemd.define(&unit("top.service"), SimUnit { masked: true, ..SimUnit::default() });
    systemd.stop(&unit("top.service"), Duration::from_secs(90)).await.unwrap();
    let report = check_health(&systemd, &request(baseline, &["base.service"])).await.unwrap();
    assert_eq!(report.healthy, [unit("base.service")]);
}

#[tokio::test(start_paused = true)]
async fn what_needs_a_touched_unit_is_watched_and_what_had_failed_is_not() {
    let systemd = SimSystemd::new();
    let required_by = vec![unit("top.service"), unit("bad.service")];
    let base = SimUnit {
        dependencies: crate::port::UnitDependencies { required_by, ..Default::default() },
        ..SimUnit::default()
    };
    systemd.define(&unit("base.service"), base);
    let dies = Behaviour { dies_after: Some(Duration::from_secs(1)), ..Behaviour::default() };
    systemd.define(&unit("top.service"), SimUnit::default());
    systemd.define(&unit("bad.service"), SimUnit::default());
    systemd.boot(&unit("base.service"));
    systemd.boot(&unit("top.service"));
    systemd.fail(&unit("bad.service"));
    let baseline = record_baseline(&systemd, &["base.service"]).await.unwrap();
    let report =
        check_health(&systemd, &request(baseline.clone(), &["base.service"])).await.unwrap();
    assert_eq!(report.healthy, [unit("base.service"), unit("top.service")]);
    assert_eq!(report.failed_before, [unit("bad.service")]);

    systemd.define(&unit("top.service"), SimUnit { behaviour: dies, ..SimUnit::default() });
    systemd.restart(&unit("top.service"), Duration::from_secs(90)).await.unwrap();
    let failure = check_health(&systemd, &request(baseline, &["base.service"])).await.unwrap_err();
    assert!(failure.message.contains("top.service"), "{}", failure.message);
}

#[tokio::test(start_paused = true)]
async fn nothing_to_watch_is_healthy() {
    let systemd = SimSystemd::new();
    let report = check_health(&systemd, &request(Baseline::default(), &[])).await.unwrap();
    assert!(report.healthy.is_empty());
}

fn probe(level: CheckLevel) -> Probe {
    Probe {
        question: Question::Dbus { name: "org.example".to_owned() },
        level,
        timeout: Duration::from_secs(5),
        interval: Duration::from_secs(1),
        successes: 3,
        settle: Duration::from_secs(10),
    }
}

/// A service with a probe that answers so, before the update and from then on.
async fn ask(
    level: CheckLevel,
    before: &[bool],
    after: &[bool],
) -> (PortResult<HealthReport>, Duration) {
    let (systemd, checks, probe) = (SimSystemd::new(), SimChecks::default(), probe(level));
    systemd.define(&unit("x.service"), SimUnit::default());
    systemd.boot(&unit("x.service"));
    checks.set_answers(&probe, before);
    let probes = Probes::from([(unit("x.service"), vec![probe.clone()])]);
    let baseline =
        baseline::record(&systemd, &checks, &look(&["x.service"], probes)).await.unwrap();
    checks.set_answers(&probe, after);
    let began = Instant::now();
    (check(&systemd, &checks, &request(baseline, &["x.service"])).await, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_unit_whose_probe_succeeds_takes_no_longer_than_the_dwell() {
    let (report, took) = ask(CheckLevel::Required, &[true], &[true]).await;
    assert_eq!(report.unwrap().warnings, [""; 0]);
    assert_eq!(took, DEFAULT_DWELL);
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_gets_ready_late_is_waited_for_and_watched_meanwhile() {
    let late = [[false; 8].as_slice(), &[true]].concat();
    let (report, took) = ask(CheckLevel::Required, &[true], &late).await;
    assert!(report.unwrap().looks > 16);
    assert_eq!(took, Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_required_probe_that_fails_speaks_against_the_update_and_a_wanted_one_warns() {
    let failure = ask(CheckLevel::Required, &[true], &[false]).await.0.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Unhealthy);
    for part in ["dbus org.example", "x.service", "not ready"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    let warnings = ask(CheckLevel::Wanted, &[true], &[false]).await.0.unwrap().warnings;
    assert!(warnings[0].contains("dbus org.example") && warnings.len() == 1, "{warnings:?}");
}

#[tokio::test(start_paused = true)]
async fn what_had_failed_before_is_warned_of_and_one_lost_answer_is_no_failure() {
    let warnings = ask(CheckLevel::Required, &[false], &[false]).await.0.unwrap().warnings;
    assert!(warnings[0].contains("had failed before the update"), "{warnings:?}");
    assert!(ask(CheckLevel::Required, &[false, true], &[false]).await.0.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_the_update_starts_first_has_to_get_ready_too() {
    let (systemd, checks) = (SimSystemd::new(), SimChecks::default());
    let (name, probe) = (unit("x.service"), probe(CheckLevel::Required));
    systemd.define(&name, SimUnit::default());
    checks.set_answers(&probe, &[false]);
    let probes = Probes::from([(name.clone(), vec![probe.clone()])]);
    let baseline =
        baseline::record(&systemd, &checks, &look(&["x.service"], probes)).await.unwrap();
    systemd.start(&name, Duration::from_secs(90)).await.unwrap();
    let failure = check(&systemd, &checks, &request(baseline, &["x.service"])).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Unhealthy);
    assert!(failure.message.contains("not ready"), "{}", failure.message);
}

#[tokio::test(start_paused = true)]
async fn only_probes_of_touched_units_and_of_what_needs_them_are_asked() {
    let (systemd, checks) = (SimSystemd::new(), SimChecks::default());
    let required_by = vec![unit("top.service")];
    let names = vec![unit("base.service"), unit("alias.service")];
    let dependencies = crate::port::UnitDependencies { names, required_by, ..Default::default() };
    systemd.define(&unit("base.service"), SimUnit { dependencies, ..SimUnit::default() });
    for name in ["top.service", "other.service"] {
        systemd.define(&unit(name), SimUnit::default());
        systemd.boot(&unit(name));
    }
    let probes: Probes = ["alias.service", "top.service", "other.service", "none.service"]
        .map(|name| (unit(name), vec![probe(CheckLevel::Required)]))
        .into();
    let baseline = baseline::record(&systemd, &checks, &look(&["base.service"], probes)).await;
    let asked: Vec<UnitName> = baseline.unwrap().probes.into_iter().map(|p| p.unit).collect();
    assert_eq!(asked, [unit("base.service"), unit("top.service")]);
}

/// Runs these hooks before and after an update that touches no unit.
async fn run_hooks(hooks: Vec<SimHook>) -> (PortResult<HealthReport>, Vec<String>) {
    let (systemd, checks) = (SimSystemd::new(), SimChecks::default());
    checks.set_hooks(hooks);
    let baseline = baseline::record(&systemd, &checks, &look(&[], Probes::new())).await.unwrap();
    (check(&systemd, &checks, &request(baseline, &[])).await, checks.ran())
}

fn failing(kind: HookKind, name: &str, fails: &[HookPhase]) -> SimHook {
    SimHook { fails: fails.to_vec(), ..SimHook::new(kind, name) }
}

#[tokio::test(start_paused = true)]
async fn hooks_run_before_and_after_in_the_order_of_their_names() {
    let hooks = vec![
        SimHook::new(HookKind::Wanted, "05"),
        SimHook::new(HookKind::Required, "20"),
        SimHook::new(HookKind::Required, "10"),
        SimHook::new(HookKind::Green, "01"),
    ];
    let (report, ran) = run_hooks(hooks).await;
    assert_eq!(report.unwrap().warnings, [""; 0]);
    let before = ["check/required.d/10", "check/required.d/20", "check/wanted.d/05"];
    let expected: Vec<String> = ["before", "after"]
        .iter()
        .flat_map(|phase| before.map(|hook| format!("{hook} {phase}")))
        .collect();
    assert_eq!(ran, expected);
}

#[tokio::test(start_paused = true)]
async fn a_required_hook_that_fails_speaks_against_the_update_unless_it_had_failed_before() {
    use HookKind::{Required, Wanted};
    use HookPhase::{After, Before};
    let (report, ran) =
        run_hooks(vec![failing(Required, "10-bad", &[After]), SimHook::new(Required, "20")]).await;
    let failure = report.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Unhealthy);
    for part in ["check/required.d/10-bad", "exit status 1", "APT_OSTREE_PACKAGES=app"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    assert_eq!(ran.last().unwrap(), "check/required.d/10-bad after");

    let (report, _) = run_hooks(vec![
        failing(Required, "10", &[Before, After]),
        failing(Required, "20", &[Before]),
        failing(Wanted, "30", &[After]),
    ])
    .await;
    let warnings = report.unwrap().warnings;
    assert!(warnings[0].contains("required.d/10 failed, as before"), "{warnings:?}");
    assert!(warnings[1].contains("wanted.d/30 failed: exit status 1"), "{warnings:?}");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[tokio::test(start_paused = true)]
async fn hooks_that_hang_end_with_their_time_and_all_of_them_with_their_budget() {
    let hang = |name: &str| SimHook { hangs: true, ..SimHook::new(HookKind::Wanted, name) };
    let hooks: Vec<SimHook> = (10..20).map(|n| hang(&n.to_string())).collect();
    let began = Instant::now();
    let (report, ran) = run_hooks(hooks).await;
    assert_eq!(report.unwrap().warnings.len(), 10);
    assert_eq!(ran.len(), 12, "six of thirty seconds, twice");
    assert_eq!(began.elapsed(), HOOKS_BUDGET * 2);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_must_not_be_run_is_found_and_not_run() {
    let checks = SimChecks::default();
    let refused = Some("is not executable".to_owned());
    checks.set_hooks(vec![SimHook { refused, ..SimHook::new(HookKind::Red, "x") }]);
    let found = hooks::refused(&checks).await.unwrap();
    assert_eq!(found, ["\"/etc/apt-ostree/red.d/x\" is not executable"]);
}
