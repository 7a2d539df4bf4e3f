//! Which units the configuration has a strategy for.

use apt_ostree_proto::service::UnitAction;
use apt_ostree_proto::strategy::Strategy;
use apt_ostree_proto::{UnitName, UnitPattern};

/// What the configuration says about some units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrategyRule {
    /// Which units.
    pub units: UnitPattern,
    /// How they get their new code.
    pub strategy: Strategy,
    /// The group whose units are restarted one by one under [`Strategy::Rolling`]; by default the
    /// instances of one template.
    pub group: Option<String>,
}

impl StrategyRule {
    /// What forbids every restart, for people. None when the rule allows it.
    pub(super) fn holds(&self) -> Option<String> {
        match self.strategy {
            Strategy::Never => Some(format!("the configuration says never for {}", self.units)),
            Strategy::Defer => Some(format!(
                "deferred to the next boot: the configuration says so for {}",
                self.units
            )),
            _ => None,
        }
    }

    /// The group that `unit` waits its turn in.
    pub(super) fn group_of(&self, unit: &UnitName) -> Option<String> {
        (self.strategy == Strategy::Rolling).then(|| {
            let template =
                || unit.as_str().split_once('@').map(|(template, _)| format!("{template}@"));
            self.group.clone().or_else(template).unwrap_or_else(|| unit.to_string())
        })
    }

    /// What becomes of `action` on a running unit. The error is why the unit is left alone.
    pub(super) fn change(
        &self,
        action: UnitAction,
        can_reload: bool,
    ) -> Result<UnitAction, String> {
        use UnitAction::{Reload, Restart, StopStart};
        match (self.strategy, action) {
            (Strategy::Defer, Restart | StopStart | Reload) | (Strategy::Never, _) => {
                Err(self.holds().unwrap_or_default())
            }
            (Strategy::Reload, Restart | StopStart) if can_reload => Ok(Reload),
            (Strategy::Reload, Restart | StopStart) => Err(format!(
                "the configuration says reload for {}, and it cannot reload",
                self.units
            )),
            (Strategy::Restart, Reload) | (Strategy::Rolling, StopStart | Reload) => Ok(Restart),
            (_, action) => Ok(action),
        }
    }
}

/// All of these rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strategies {
    /// Vetoes, then the most precise first.
    rules: Vec<StrategyRule>,
}

impl Strategies {
    /// Of rules that mean the same unit equally precisely, the first counts.
    pub fn new(mut rules: Vec<StrategyRule>) -> Self {
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.units.precision()));
        Self { rules }
    }

    /// These units are never restarted, whatever another rule says of them.
    #[must_use]
    pub fn vetoed(mut self, units: impl IntoIterator<Item = UnitPattern>) -> Self {
        let strategy = Strategy::Never;
        let vetoes = units.into_iter().map(|units| StrategyRule { units, strategy, group: None });
        self.rules.splice(0..0, vetoes);
        self
    }

    /// What is set for the unit of that name.
    pub fn strategy(&self, unit: &UnitName) -> Option<Strategy> {
        self.of(unit, &[]).map(|rule| rule.strategy)
    }

    /// The rule for a unit with these names: its own and its aliases.
    pub(super) fn of(&self, unit: &UnitName, aliases: &[UnitName]) -> Option<&StrategyRule> {
        let is_meant = |rule: &&StrategyRule| {
            rule.units.matches(unit) || aliases.iter().any(|name| rule.units.matches(name))
        };
        self.rules.iter().find(is_meant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(units: &str, strategy: Strategy) -> StrategyRule {
        StrategyRule { units: UnitPattern::parse(units).unwrap(), strategy, group: None }
    }

    fn unit(name: &str) -> UnitName {
        UnitName::parse(name).unwrap()
    }

    #[test]
    fn the_most_precise_rule_counts() {
        let strategies = Strategies::new(vec![
            rule("db*.service", Strategy::Defer),
            rule("db@.service", Strategy::Rolling),
            rule("db@main.service", Strategy::Never),
            rule("d*.service", Strategy::Restart),
        ]);
        for (name, expected) in [
            ("db@main.service", Some(Strategy::Never)),
            ("db@other.service", Some(Strategy::Rolling)),
            ("dbus.service", Some(Strategy::Defer)),
            ("demo.service", Some(Strategy::Restart)),
            ("nginx.service", None),
        ] {
            let found = strategies.of(&unit(name), &[]).map(|rule| rule.strategy);
            assert_eq!(found, expected, "{name}");
        }
        let vetoed = strategies.clone().vetoed(["db*.service".parse().unwrap()]);
        assert_eq!(vetoed.strategy(&unit("db@other.service")), Some(Strategy::Never));
        assert_eq!(vetoed.strategy(&unit("demo.service")), Some(Strategy::Restart));
        let by_alias = strategies.of(&unit("mysqld.service"), &[unit("db@main.service")]);
        assert_eq!(by_alias.map(|rule| rule.strategy), Some(Strategy::Never));
    }

    #[test]
    fn a_strategy_changes_what_is_done_with_a_running_unit() {
        use UnitAction::{Reload, Restart, Stop, StopStart};
        for (strategy, action, can_reload, expected) in [
            (Strategy::Automatic, StopStart, true, Some(StopStart)),
            (Strategy::Graceful, StopStart, true, Some(StopStart)),
            (Strategy::Reload, Restart, true, Some(Reload)),
            (Strategy::Reload, StopStart, false, None),
            (Strategy::Restart, Reload, true, Some(Restart)),
            (Strategy::Restart, StopStart, true, Some(StopStart)),
            (Strategy::Rolling, StopStart, true, Some(Restart)),
            (Strategy::Defer, Restart, true, None),
            (Strategy::Defer, Stop, true, Some(Stop)),
            (Strategy::Never, Stop, true, None),
        ] {
            let rule = rule("a.service", strategy);
            assert_eq!(rule.change(action, can_reload).ok(), expected, "{strategy:?} {action:?}");
        }
    }

    #[test]
    fn instances_of_a_template_are_a_group_unless_another_is_named() {
        let mut rolling = rule("web@.service", Strategy::Rolling);
        assert_eq!(rolling.group_of(&unit("web@1.service")).as_deref(), Some("web@"));
        assert_eq!(rolling.group_of(&unit("web.service")).as_deref(), Some("web.service"));
        rolling.group = Some("front".to_owned());
        assert_eq!(rolling.group_of(&unit("web@1.service")).as_deref(), Some("front"));
        assert_eq!(rule("a.service", Strategy::Restart).group_of(&unit("a.service")), None);
    }
}
