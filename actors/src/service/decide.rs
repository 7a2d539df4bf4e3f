//! What is done with one affected unit, and why not more: pure.

use apt_ostree_proto::UnitName;
use apt_ostree_proto::request::RestartPolicy;
use apt_ostree_proto::service::{Reason, UnitAction, UnitEffect, UnitState};
use apt_ostree_proto::strategy::Strategy;

use super::scripts::{Asked, Wish};
use super::strategy::{Strategies, StrategyRule};
use crate::port::UnitDependencies;

/// How many reasons of one unit are kept: enough to understand, few enough to read.
pub(super) const MOST_REASONS: usize = 8;

/// What is known about one affected unit.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    pub(super) unit: &'a UnitName,
    pub(super) state: &'a UnitState,
    pub(super) dependencies: &'a UnitDependencies,
    /// What scripts asked of it.
    pub(super) asked: Option<&'a Asked>,
    /// Why it is affected otherwise.
    pub(super) reasons: &'a [Reason],
    /// Whether it ran before the updates that are undone.
    pub(super) ran_before: bool,
    /// What the configuration says about units.
    pub(super) strategies: &'a Strategies,
}

impl Evidence<'_> {
    fn rule(&self) -> Option<&StrategyRule> {
        self.strategies.of(self.unit, &self.dependencies.names)
    }

    /// Whether it went with an update that is undone, and its file comes again.
    fn comes_back(&self) -> bool {
        self.ran_before && self.state.load == "not-found" && !self.reasons.is_empty()
    }
}

/// Why a unit that only runs replaced code is left alone where the packages have the say.
const NOT_ASKED_FOR: &str = "no package asked for it; --restart-services does it";
/// Why every unit is left alone where the caller wants that.
const NONE_RESTARTED: &str = "no unit is restarted, as asked";

/// What [`decide`] will do with a running unit, as far as it can be told before the packages'
/// scripts have run: a unit that a package owns is restarted by that package's scripts, by Debian's
/// habit.
pub(crate) fn predict(
    mut effect: UnitEffect,
    policy: RestartPolicy,
    strategies: &Strategies,
) -> UnitEffect {
    let is_asked_for = effect.reasons.iter().any(|reason| matches!(reason, Reason::Package { .. }));
    let forbidden = protected(&effect.unit, &[], strategies);
    let left_because = forbidden.or_else(|| match policy {
        RestartPolicy::Never => Some(NONE_RESTARTED.to_owned()),
        RestartPolicy::AsPackagesAsk if !is_asked_for => Some(NOT_ASKED_FOR.to_owned()),
        RestartPolicy::AsPackagesAsk | RestartPolicy::Affected => None,
    });
    if let Some(rule) = strategies.of(&effect.unit, &[]) {
        effect.strategy = rule.strategy;
        effect.group = rule.group_of(&effect.unit);
    }
    if left_because.is_some() {
        effect.action = UnitAction::Leave;
        effect.left_because = left_because;
    }
    effect.reasons.truncate(MOST_REASONS);
    effect
}

/// Decides about one unit. None when nothing is to be done and nothing is to be told.
pub(super) fn decide(
    evidence: &Evidence<'_>,
    policy: RestartPolicy,
    from_packages: bool,
) -> Option<UnitEffect> {
    let mut reasons: Vec<Reason> =
        evidence.asked.map(|asked| asked.reasons.clone()).unwrap_or_default();
    reasons.extend(evidence.reasons.iter().cloned());
    reasons.truncate(MOST_REASONS);
    let decision = match forbidden(evidence, policy) {
        Some(why) => Decision::Leave(why),
        None if evidence.state.is_up() => {
            of_running(evidence, policy, from_packages).under(evidence)
        }
        None => of_stopped(evidence),
    };
    let (action, left_because) = match decision {
        Decision::Do(action) => (action, None),
        Decision::Leave(why) => (UnitAction::Leave, Some(why)),
        Decision::Nothing => return None,
    };
    let rule = evidence.rule();
    Some(UnitEffect {
        unit: evidence.unit.clone(),
        action,
        reasons,
        left_because,
        strategy: rule.map(|rule| rule.strategy).unwrap_or_default(),
        group: rule.and_then(|rule| rule.group_of(evidence.unit)),
    })
}

enum Decision {
    Do(UnitAction),
    Leave(String),
    Nothing,
}

impl Decision {
    /// What the configuration makes of it.
    fn under(self, evidence: &Evidence<'_>) -> Self {
        match (self, evidence.rule()) {
            (Self::Do(action), Some(rule)) => rule
                .change(action, evidence.dependencies.can_reload)
                .map_or_else(Self::Leave, Self::Do),
            (decision, _) => decision,
        }
    }
}

/// Why the unit is not restarted while the host runs, if it is not. `names` holds its aliases.
pub(super) fn protected(
    unit: &UnitName,
    names: &[UnitName],
    strategies: &Strategies,
) -> Option<String> {
    let by_name = std::iter::once(unit).chain(names).find_map(|name| protected_name(name.as_str()));
    let by_rule = || strategies.of(unit, names).and_then(StrategyRule::holds);
    by_name.map(str::to_owned).or_else(by_rule)
}

/// The same of what no strategy overrides: a unit that the configuration defers is still stopped when
/// its package goes, and started where it does not run.
fn untouchable(evidence: &Evidence<'_>) -> Option<String> {
    let is_going = evidence.asked.is_some_and(|asked| asked.wish == Wish::Stop);
    let keeps_nothing = is_going || !evidence.state.is_up();
    let defers = evidence.rule().is_some_and(|rule| rule.strategy == Strategy::Defer);
    let none = Strategies::default();
    let strategies = if keeps_nothing && defers { &none } else { evidence.strategies };
    protected(evidence.unit, &evidence.dependencies.names, strategies)
}

fn protected_name(name: &str) -> Option<&'static str> {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let template = stem.split_once('@').map_or(stem, |(template, _)| template);
    match template {
        "dbus" | "dbus-broker" => Some("every client of the system bus would lose its connection"),
        "init" => Some("it is the service manager itself"),
        "systemd-logind" => Some("sessions hang on it"),
        "apt-ostreed" => Some("it is this daemon; it takes its new code when it next starts"),
        "display-manager" | "gdm" | "gdm3" | "lightdm" | "sddm" | "lxdm" | "xdm" | "slim"
        | "wdm" | "nodm" | "greetd" | "ly" => {
            Some("restarting it would end the graphical sessions")
        }
        "user" | "user-runtime-dir" | "session" => Some("it holds a user's session"),
        "getty" | "autovt" | "serial-getty" | "console-getty" | "container-getty" => {
            Some("restarting it would end the login on that terminal")
        }
        // Its stop merges /etc into what boots next.
        "ostree-finalize-staged" | "ostree-finalize-staged-hold" => {
            Some("it belongs to the deployment that is staged")
        }
        _ if template.starts_with("systemd-") => Some("it is part of systemd's own core"),
        _ => None,
    }
}

fn forbidden(evidence: &Evidence<'_>, policy: RestartPolicy) -> Option<String> {
    let acts = evidence.state.is_up() || evidence.asked.is_some() || evidence.comes_back();
    if !acts {
        return None;
    }
    if let Some(why) = untouchable(evidence) {
        return Some(why);
    }
    if policy == RestartPolicy::Never {
        return Some(NONE_RESTARTED.to_owned());
    }
    if evidence.state.load == "masked" {
        return Some("it is masked".to_owned());
    }
    if evidence.dependencies.refuses_restart {
        return Some("its unit file refuses to be started or stopped by hand".to_owned());
    }
    match evidence.unit.kind() {
        "service" | "socket" | "timer" | "path" | "target" => None,
        kind => Some(format!("a {kind} cannot be restarted")),
    }
}

fn of_stopped(evidence: &Evidence<'_>) -> Decision {
    // Nobody can have stopped what does not exist: it went with the update.
    if evidence.comes_back() {
        return Decision::Do(UnitAction::StopStart);
    }
    let Some(asked) = evidence.asked else { return Decision::Nothing };
    let is_new = !matches!(evidence.state.load.as_str(), "loaded" | "masked");
    match asked.wish {
        // Whether a unit is enabled shows only after the switch: its unit file may be new.
        Wish::Start => Decision::Do(UnitAction::Start),
        Wish::Restart | Wish::StopStart if is_new => Decision::Do(UnitAction::Start),
        Wish::Stop => Decision::Nothing,
        _ if is_new => Decision::Leave("there is no such unit".to_owned()),
        _ if evidence.state.is_failed() => {
            Decision::Leave("it had failed before the update".to_owned())
        }
        _ => Decision::Leave("it does not run".to_owned()),
    }
}

fn of_running(evidence: &Evidence<'_>, policy: RestartPolicy, from_packages: bool) -> Decision {
    let wish = evidence.asked.map(|asked| asked.wish);
    match wish {
        Some(Wish::Stop) => return Decision::Do(UnitAction::Stop),
        Some(Wish::StopStart) => return Decision::Do(UnitAction::StopStart),
        Some(Wish::Restart) => return Decision::Do(UnitAction::Restart),
        Some(Wish::Reload | Wish::Start) | None => {}
    }
    match demanded(evidence, policy, from_packages) {
        Some(UnitAction::Restart) => Decision::Do(UnitAction::Restart),
        _ if wish == Some(Wish::Reload) => Decision::Do(UnitAction::Reload),
        Some(action) => Decision::Do(action),
        None if evidence.reasons.is_empty() => Decision::Nothing,
        None if evidence.unit.kind() == "target" => Decision::Nothing,
        None => Decision::Leave(NOT_ASKED_FOR.to_owned()),
    }
}

/// What the reasons besides scripts demand under `policy`.
fn demanded(
    evidence: &Evidence<'_>,
    policy: RestartPolicy,
    from_packages: bool,
) -> Option<UnitAction> {
    // A target runs nothing; its changed file counts from the next boot on.
    if evidence.unit.kind() == "target" {
        return None;
    }
    let counts = |reason: &&Reason| match policy {
        RestartPolicy::Affected => true,
        RestartPolicy::AsPackagesAsk => !from_packages && matches!(reason, Reason::UnitFile { .. }),
        RestartPolicy::Never => false,
    };
    let mut counting = evidence.reasons.iter().filter(counts).peekable();
    counting.peek()?;
    let only_configuration = counting.all(|reason| matches!(reason, Reason::Configuration { .. }));
    if only_configuration && evidence.dependencies.can_reload {
        Some(UnitAction::Reload)
    } else {
        Some(UnitAction::Restart)
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
