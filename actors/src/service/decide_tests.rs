use apt_ostree_proto::service::ScriptVerb;

use super::*;

fn unit(name: &str) -> UnitName {
    UnitName::parse(name).unwrap()
}

fn state(load: &str, active: &str) -> UnitState {
    UnitState { load: load.to_owned(), active: active.to_owned(), ..UnitState::default() }
}

fn asked(wish: Wish) -> Asked {
    let reason = Reason::Script { package: "p".to_owned(), verb: ScriptVerb::Restart };
    Asked { wish, reasons: vec![reason], last: 0 }
}

fn rules(rules: &[(&str, Strategy)]) -> Strategies {
    let rule = |(units, strategy): &(&str, Strategy)| StrategyRule {
        units: units.parse().unwrap(),
        strategy: *strategy,
        group: None,
    };
    Strategies::new(rules.iter().map(rule).collect())
}

fn old_code() -> Reason {
    Reason::OldCode { pid: 1, path: "/usr/lib/libssl.so.3".into() }
}

/// Decides and tells the action, or the reason for leaving the unit alone.
fn outcome(
    name: &str,
    state: &UnitState,
    wish: Option<Wish>,
    reasons: &[Reason],
    policy: RestartPolicy,
    from_packages: bool,
) -> Option<(UnitAction, Option<String>)> {
    let asked = wish.map(asked);
    let evidence = Evidence {
        unit: &unit(name),
        state,
        dependencies: &UnitDependencies::default(),
        asked: asked.as_ref(),
        reasons,
        ran_before: false,
        strategies: &Strategies::default(),
    };
    decide(&evidence, policy, from_packages).map(|effect| (effect.action, effect.left_because))
}

#[test]
fn a_running_unit_gets_what_its_scripts_ask() {
    let up = state("loaded", "active");
    for (wish, action) in [
        (Wish::Stop, Some(UnitAction::Stop)),
        (Wish::StopStart, Some(UnitAction::StopStart)),
        (Wish::Restart, Some(UnitAction::Restart)),
        (Wish::Reload, Some(UnitAction::Reload)),
        // A start is not a restart.
        (Wish::Start, None),
    ] {
        let found = outcome("a.service", &up, Some(wish), &[], RestartPolicy::AsPackagesAsk, true);
        assert_eq!(found.map(|(action, _)| action), action, "{wish:?}");
    }
}

#[test]
fn a_stopped_unit_stays_stopped_except_for_a_lone_start_or_a_new_unit() {
    for (load, active, wish, action) in [
        ("loaded", "inactive", Wish::Start, Some(UnitAction::Start)),
        ("not-found", "inactive", Wish::Start, Some(UnitAction::Start)),
        ("not-found", "inactive", Wish::Restart, Some(UnitAction::Start)),
        ("not-found", "inactive", Wish::StopStart, Some(UnitAction::Start)),
        ("not-found", "inactive", Wish::Reload, Some(UnitAction::Leave)),
        ("loaded", "inactive", Wish::Restart, Some(UnitAction::Leave)),
        ("loaded", "inactive", Wish::StopStart, Some(UnitAction::Leave)),
        ("loaded", "failed", Wish::Restart, Some(UnitAction::Leave)),
        ("masked", "inactive", Wish::Start, Some(UnitAction::Leave)),
        ("loaded", "inactive", Wish::Stop, None),
    ] {
        let state = state(load, active);
        let policy = RestartPolicy::Affected;
        let found = outcome("a.service", &state, Some(wish), &[old_code()], policy, true);
        assert_eq!(found.map(|(action, _)| action), action, "{load} {active} {wish:?}");
    }
}

#[test]
fn old_code_counts_when_affected_units_are_to_be_restarted() {
    let up = state("loaded", "active");
    let unit_file = Reason::UnitFile { path: "/usr/lib/systemd/system/a.service".into() };
    let configuration = Reason::Configuration { path: "/etc/a.conf".into() };
    for (reason, policy, from_packages, action) in [
        (old_code(), RestartPolicy::Affected, true, UnitAction::Restart),
        (old_code(), RestartPolicy::AsPackagesAsk, true, UnitAction::Leave),
        (old_code(), RestartPolicy::AsPackagesAsk, false, UnitAction::Leave),
        (old_code(), RestartPolicy::Never, true, UnitAction::Leave),
        (unit_file.clone(), RestartPolicy::AsPackagesAsk, true, UnitAction::Leave),
        (unit_file, RestartPolicy::AsPackagesAsk, false, UnitAction::Restart),
        (configuration, RestartPolicy::Affected, true, UnitAction::Restart),
    ] {
        let found = outcome("a.service", &up, None, &[reason], policy, from_packages);
        assert_eq!(found.unwrap().0, action, "{policy:?} {from_packages}");
    }
}

#[test]
fn a_reload_that_was_asked_becomes_a_restart_only_when_old_code_counts() {
    let up = state("loaded", "active");
    for (policy, action) in [
        (RestartPolicy::AsPackagesAsk, UnitAction::Reload),
        (RestartPolicy::Affected, UnitAction::Restart),
    ] {
        let found = outcome("a.service", &up, Some(Wish::Reload), &[old_code()], policy, true);
        assert_eq!(found.unwrap().0, action);
    }
}

#[test]
fn a_service_that_can_reload_only_reloads_for_changed_configuration() {
    let evidence = Evidence {
        unit: &unit("a.service"),
        state: &state("loaded", "active"),
        dependencies: &UnitDependencies { can_reload: true, ..UnitDependencies::default() },
        asked: None,
        reasons: &[Reason::Configuration { path: "/etc/a.conf".into() }],
        ran_before: false,
        strategies: &Strategies::default(),
    };
    let effect = decide(&evidence, RestartPolicy::Affected, true).unwrap();
    assert_eq!(effect.action, UnitAction::Reload);
}

#[test]
fn what_went_with_an_update_that_is_undone_comes_back_unless_it_is_there() {
    let unit_file = [Reason::UnitFile { path: "/usr/lib/systemd/system/a.service".into() }];
    let (unit_file, nothing): (&[Reason], &[Reason]) = (&unit_file, &[]);
    for (load, active, ran_before, reasons, policy, action) in [
        (
            "not-found",
            "inactive",
            true,
            unit_file,
            RestartPolicy::AsPackagesAsk,
            Some(UnitAction::StopStart),
        ),
        ("not-found", "inactive", true, unit_file, RestartPolicy::Never, Some(UnitAction::Leave)),
        ("not-found", "inactive", false, unit_file, RestartPolicy::Affected, None),
        // No file of its comes back.
        ("not-found", "inactive", true, nothing, RestartPolicy::Affected, None),
        // Somebody stopped it since, or it fell over.
        ("loaded", "inactive", true, unit_file, RestartPolicy::Affected, None),
        ("loaded", "failed", true, unit_file, RestartPolicy::Affected, None),
    ] {
        let evidence = Evidence {
            unit: &unit("a.service"),
            state: &state(load, active),
            dependencies: &UnitDependencies::default(),
            asked: None,
            reasons,
            ran_before,
            strategies: &Strategies::default(),
        };
        let found = decide(&evidence, policy, false).map(|effect| effect.action);
        assert_eq!(found, action, "{load} {active} {ran_before} {policy:?}");
    }
}

#[test]
fn the_core_of_the_host_is_never_restarted() {
    let up = state("loaded", "active");
    for name in [
        "dbus.service",
        "dbus.socket",
        "dbus-broker.service",
        "systemd-logind.service",
        "systemd-journald.service",
        "init.scope",
        "lightdm.service",
        "gdm3.service",
        "getty@tty1.service",
        "serial-getty@ttyS0.service",
        "user@1000.service",
        "session-4.scope",
        "apt-ostreed.service",
        "run-user.mount",
    ] {
        for wish in [None, Some(Wish::Restart), Some(Wish::Stop), Some(Wish::StopStart)] {
            let found = outcome(name, &up, wish, &[old_code()], RestartPolicy::Affected, true);
            let (action, why) = found.unwrap();
            assert_eq!(action, UnitAction::Leave, "{name}");
            assert!(why.is_some(), "{name}");
        }
    }
}

#[test]
fn an_alias_or_a_refusal_of_its_unit_file_protects_a_unit_too() {
    let up = state("loaded", "active");
    let names = vec![unit("own-dm.service"), unit("display-manager.service")];
    for dependencies in [
        UnitDependencies { names, ..UnitDependencies::default() },
        UnitDependencies { refuses_restart: true, ..UnitDependencies::default() },
    ] {
        let evidence = Evidence {
            unit: &unit("own-dm.service"),
            state: &up,
            dependencies: &dependencies,
            asked: None,
            reasons: &[old_code()],
            ran_before: false,
            strategies: &Strategies::default(),
        };
        let effect = decide(&evidence, RestartPolicy::Affected, true).unwrap();
        assert_eq!(effect.action, UnitAction::Leave);
    }
}

#[test]
fn a_unit_keeps_a_bounded_number_of_reasons() {
    let reasons = vec![old_code(); 500];
    let evidence = Evidence {
        unit: &unit("a.service"),
        state: &state("loaded", "active"),
        dependencies: &UnitDependencies::default(),
        asked: None,
        reasons: &reasons,
        ran_before: false,
        strategies: &Strategies::default(),
    };
    let effect = decide(&evidence, RestartPolicy::Affected, true).unwrap();
    assert_eq!(effect.reasons.len(), MOST_REASONS);
}

#[test]
fn the_admins_veto_holds_for_a_unit_its_aliases_and_a_templates_instances() {
    let never = [("postgresql.service", Strategy::Never), ("db@.service", Strategy::Never)];
    for (name, aliases, expected) in [
        ("postgresql.service", vec![], true),
        ("db@main.service", vec![], true),
        ("db@main.socket", vec![], false),
        ("db.service", vec![], false),
        ("pg.service", vec![unit("postgresql.service")], true),
        ("postgresql.socket", vec![], false),
    ] {
        assert_eq!(protected(&unit(name), &aliases, &rules(&never)).is_some(), expected, "{name}");
    }
}

#[test]
fn the_configuration_decides_how_a_running_unit_gets_its_code() {
    let up = state("loaded", "active");
    let reloads = UnitDependencies { can_reload: true, ..UnitDependencies::default() };
    for (strategy, wish, expected) in [
        (Strategy::Reload, None, UnitAction::Reload),
        (Strategy::Restart, Some(Wish::Reload), UnitAction::Restart),
        (Strategy::Rolling, Some(Wish::StopStart), UnitAction::Restart),
        (Strategy::Graceful, Some(Wish::StopStart), UnitAction::StopStart),
        (Strategy::Defer, Some(Wish::Restart), UnitAction::Leave),
        (Strategy::Defer, Some(Wish::Stop), UnitAction::Stop),
        (Strategy::Never, Some(Wish::Stop), UnitAction::Leave),
    ] {
        let asked = wish.map(asked);
        let evidence = Evidence {
            unit: &unit("a@1.service"),
            state: &up,
            dependencies: &reloads,
            asked: asked.as_ref(),
            reasons: &[old_code()],
            ran_before: false,
            strategies: &rules(&[("a@.service", strategy)]),
        };
        let effect = decide(&evidence, RestartPolicy::Affected, true).unwrap();
        assert_eq!((effect.action, effect.strategy), (expected, strategy));
        assert_eq!(effect.left_because.is_some(), expected == UnitAction::Leave, "{strategy:?}");
        assert_eq!(effect.group.is_some(), strategy == Strategy::Rolling);
    }
}

#[test]
fn a_prediction_follows_the_same_rules_as_the_decision() {
    use RestartPolicy::{Affected, AsPackagesAsk, Never};
    let owned = || Reason::Package { package: "nginx".parse().unwrap() };
    for (name, reason, policy, expected) in [
        ("a.service", owned(), AsPackagesAsk, UnitAction::Restart),
        ("a.service", old_code(), AsPackagesAsk, UnitAction::Leave),
        ("a.service", old_code(), Affected, UnitAction::Restart),
        ("a.service", owned(), Never, UnitAction::Leave),
        ("dbus.service", owned(), Affected, UnitAction::Leave),
        ("systemd-journald.service", old_code(), Affected, UnitAction::Leave),
        ("vetoed.service", owned(), Affected, UnitAction::Leave),
    ] {
        let effect = UnitEffect::new(unit(name), UnitAction::Restart, vec![reason]);
        let predicted = predict(effect, policy, &rules(&[("vetoed.service", Strategy::Never)]));
        assert_eq!(predicted.action, expected, "{name} {policy:?}");
        assert_eq!(predicted.left_because.is_some(), expected == UnitAction::Leave, "{name}");
    }
}

#[test]
fn a_deferred_unit_that_does_not_run_is_started_when_that_is_asked() {
    for (strategy, action) in
        [(Strategy::Defer, UnitAction::Start), (Strategy::Never, UnitAction::Leave)]
    {
        let evidence = Evidence {
            unit: &unit("db.service"),
            state: &state("not-found", "inactive"),
            dependencies: &UnitDependencies::default(),
            asked: Some(&asked(Wish::Start)),
            reasons: &[],
            ran_before: false,
            strategies: &rules(&[("db.service", strategy)]),
        };
        let effect = decide(&evidence, RestartPolicy::AsPackagesAsk, true).unwrap();
        assert_eq!(effect.action, action, "{strategy:?}");
    }
}
