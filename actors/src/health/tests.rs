use apt_ostree_proto::TransactionId;

use super::*;
use crate::context::Reporter;
use crate::sim::{Behaviour, SimSystemd, SimUnit};

fn unit(name: &str) -> UnitName {
    UnitName::parse(name).unwrap()
}

fn check(baseline: Baseline, touched: &[&str]) -> CheckHealth {
    CheckHealth {
        baseline,
        touched: touched.iter().map(|name| unit(name)).collect(),
        dwell: DEFAULT_DWELL,
        context: StepContext {
            transaction: TransactionId(1),
            cancel: tokio_util::sync::CancellationToken::new(),
            report: Reporter::silent(),
        },
    }
}

/// Restarts a unit that behaves so, and watches it. Answers how long that took.
async fn watch(behaviour: Behaviour) -> (PortResult<HealthReport>, Duration) {
    let systemd = SimSystemd::new();
    let name = unit("x.service");
    systemd.define(&name, SimUnit::default());
    systemd.boot(&name);
    let baseline = record_baseline(&systemd, std::slice::from_ref(&name)).await.unwrap();
    systemd.define(&name, SimUnit { behaviour, ..SimUnit::default() });
    systemd.restart(&name, Duration::from_secs(90)).await.unwrap();
    let began = Instant::now();
    let result = check_health(&systemd, &check(baseline, &["x.service"])).await;
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
    let baseline = record_baseline(&systemd, &[unit("base.service")]).await.unwrap();
    let report = check_health(&systemd, &check(baseline.clone(), &["base.service"])).await.unwrap();
    assert_eq!(report.healthy, [unit("base.service"), unit("top.service")]);
    assert_eq!(report.failed_before, [unit("bad.service")]);

    systemd.define(&unit("top.service"), SimUnit { behaviour: dies, ..SimUnit::default() });
    systemd.restart(&unit("top.service"), Duration::from_secs(90)).await.unwrap();
    let failure = check_health(&systemd, &check(baseline, &["base.service"])).await.unwrap_err();
    assert!(failure.message.contains("top.service"), "{}", failure.message);
}

#[tokio::test(start_paused = true)]
async fn nothing_to_watch_is_healthy() {
    let systemd = SimSystemd::new();
    let report = check_health(&systemd, &check(Baseline::default(), &[])).await.unwrap();
    assert!(report.healthy.is_empty());
}
