//! In which order units start: pure.

use std::collections::{BTreeMap, BTreeSet};

use apt_ostree_proto::UnitName;

use crate::port::UnitDependencies;

/// An order of units, with what each waits for. Acyclic whatever the unit files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Order {
    /// The units, each after all that it waits for.
    pub(super) units: Vec<UnitName>,
    /// What each unit waits for; only units of this order.
    pub(super) waits_for: BTreeMap<UnitName, BTreeSet<UnitName>>,
    /// Cycles that were cut: each unit that does not wait, and for what.
    pub(super) given_up: Vec<(UnitName, UnitName)>,
}

impl Order {
    /// Orders `units` for starting: a unit waits for what it is ordered after, for what it requires,
    /// and for the sockets that trigger it. Where these form a cycle, the first of its units by kind and
    /// name does not wait for the others of it, as systemd too gives an edge up.
    pub(super) fn of(
        units: impl IntoIterator<Item = UnitName>,
        dependencies: &BTreeMap<UnitName, UnitDependencies>,
    ) -> Self {
        let units: BTreeSet<UnitName> = units.into_iter().collect();
        let mut waits_for: BTreeMap<UnitName, BTreeSet<UnitName>> = units
            .iter()
            .map(|unit| (unit.clone(), predecessors(unit, &units, dependencies)))
            .collect();
        let mut left = units;
        let mut ordered = Vec::with_capacity(left.len());
        let mut given_up = Vec::new();
        while !left.is_empty() {
            let is_ready = |unit: &&UnitName| {
                waits_for.get(*unit).is_none_or(|before| before.is_disjoint(&left))
            };
            let by_rank = |unit: &&UnitName| (rank(unit), (*unit).clone());
            let ready = left.iter().filter(is_ready).min_by_key(by_rank);
            // Nobody is ready: whoever only waits for a cycle goes on waiting.
            let in_cycle = || left.iter().filter(|unit| waits_for_itself(unit, &left, &waits_for));
            let Some(next) = ready.or_else(|| in_cycle().min_by_key(by_rank)).cloned() else {
                break;
            };
            left.remove(&next);
            if let Some(before) = waits_for.get_mut(&next) {
                given_up
                    .extend(before.intersection(&left).map(|unit| (next.clone(), unit.clone())));
                before.retain(|unit| !left.contains(unit));
            }
            ordered.push(next);
        }
        Self { units: ordered, waits_for, given_up }
    }

    /// Has the units of each group wait for one another, in their order.
    pub(super) fn one_by_one<'a>(
        mut self,
        group_of: impl Fn(&UnitName) -> Option<&'a str>,
    ) -> Self {
        let mut latest: BTreeMap<&str, &UnitName> = BTreeMap::new();
        for unit in &self.units {
            let Some(before) = group_of(unit).and_then(|group| latest.insert(group, unit)) else {
                continue;
            };
            self.waits_for.entry(unit.clone()).or_default().insert(before.clone());
        }
        self
    }

    /// The same units in the order for stopping: whoever waits goes first.
    pub(super) fn reversed(&self) -> Self {
        let mut waits_for: BTreeMap<UnitName, BTreeSet<UnitName>> =
            self.units.iter().map(|unit| (unit.clone(), BTreeSet::new())).collect();
        for (unit, before) in &self.waits_for {
            for earlier in before {
                if let Some(later) = waits_for.get_mut(earlier) {
                    later.insert(unit.clone());
                }
            }
        }
        let given_up = self.given_up.clone();
        Self { units: self.units.iter().rev().cloned().collect(), waits_for, given_up }
    }
}

/// Whether `unit` waits for itself, by way of others that are `left`.
fn waits_for_itself(
    unit: &UnitName,
    left: &BTreeSet<UnitName>,
    waits_for: &BTreeMap<UnitName, BTreeSet<UnitName>>,
) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![unit]);
    while let Some(next) = open.pop() {
        for before in waits_for.get(next).into_iter().flatten().filter(|one| left.contains(*one)) {
            if before == unit {
                return true;
            }
            if seen.insert(before) {
                open.push(before);
            }
        }
    }
    false
}

fn predecessors(
    unit: &UnitName,
    units: &BTreeSet<UnitName>,
    dependencies: &BTreeMap<UnitName, UnitDependencies>,
) -> BTreeSet<UnitName> {
    let Some(own) = dependencies.get(unit) else { return BTreeSet::new() };
    let is_after = |one: &UnitName, other: &UnitName| {
        dependencies.get(one).is_some_and(|of_one| of_one.after.contains(other))
    };
    let sockets = own.triggered_by.iter().filter(|trigger| trigger.kind() == "socket");
    // `After=` decides; without it, what is required and what triggers comes first, unless it is
    // itself ordered after this unit.
    let implied = own.requires.iter().chain(sockets).filter(|other| !is_after(other, unit));
    own.after
        .iter()
        .chain(implied)
        .filter(|other| *other != unit && units.contains(*other))
        .cloned()
        .collect()
}

/// What goes first when nothing else decides: what other units are triggered by, then services.
fn rank(unit: &UnitName) -> u8 {
    match unit.kind() {
        "mount" | "automount" | "swap" => 0,
        "socket" => 1,
        "path" | "timer" => 2,
        "service" => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str) -> UnitName {
        UnitName::parse(name).unwrap()
    }

    /// Reads `a.service: after b.service; requires c.service; socket d.socket`.
    fn graph(lines: &[&str]) -> BTreeMap<UnitName, UnitDependencies> {
        let mut graph = BTreeMap::new();
        for line in lines {
            let (name, rest) = line.split_once(':').unwrap();
            let mut own = UnitDependencies::default();
            for part in rest.split(';').map(str::trim).filter(|part| !part.is_empty()) {
                let (how, other) = part.split_once(' ').unwrap();
                match how {
                    "after" => own.after.push(unit(other)),
                    "requires" => own.requires.push(unit(other)),
                    "socket" => own.triggered_by.push(unit(other)),
                    _ => panic!("{how}"),
                }
            }
            graph.insert(unit(name), own);
        }
        graph
    }

    #[test]
    fn units_come_after_what_they_wait_for() {
        for (lines, order) in [
            (&["a.service:", "b.service:"][..], "a.service b.service"),
            (&["a.service: after b.service", "b.service:"], "b.service a.service"),
            (&["a.service: requires b.service", "b.service:"], "b.service a.service"),
            // Required, but ordered the other way round.
            (
                &["a.service: requires b.service", "b.service: after a.service"],
                "a.service b.service",
            ),
            (&["a.service: socket z.socket", "z.socket:"], "z.socket a.service"),
            (&["a.service:", "z.socket:"], "z.socket a.service"),
            // Edges to units that are not touched do not matter.
            (&["a.service: after network.target", "b.service:"], "a.service b.service"),
            (
                &["a.service: after b.service", "b.service: after c.service", "c.service:"],
                "c.service b.service a.service",
            ),
            (&["a.service: after a.service"], "a.service"),
        ] {
            let graph = graph(lines);
            let ordered = Order::of(graph.keys().cloned(), &graph);
            let names: Vec<_> = ordered.units.iter().map(UnitName::as_str).collect();
            assert_eq!(names.join(" "), order, "{lines:?}");
        }
    }

    #[test]
    fn a_cycle_is_cut_and_every_unit_still_comes_once() {
        let graph = graph(&[
            "a.service: after c.service",
            "b.service: after a.service",
            "c.service: after b.service",
            "d.service: after c.service",
        ]);
        let order = Order::of(graph.keys().cloned(), &graph);
        let names: Vec<_> = order.units.iter().map(UnitName::as_str).collect();
        assert_eq!(names, ["a.service", "b.service", "c.service", "d.service"]);
        for (position, name) in order.units.iter().enumerate() {
            let before = &order.waits_for[name];
            assert!(before.iter().all(|other| order.units[..position].contains(other)), "{name}");
        }
        assert_eq!(order.given_up, [(unit("a.service"), unit("c.service"))]);
    }

    #[test]
    fn what_only_waits_for_a_cycle_goes_on_waiting() {
        let graph = graph(&[
            "a.service: after z.service",
            "y.service: after z.service",
            "z.service: after y.service",
        ]);
        let order = Order::of(graph.keys().cloned(), &graph);
        let names: Vec<_> = order.units.iter().map(UnitName::as_str).collect();
        assert_eq!(names, ["y.service", "z.service", "a.service"]);
        assert_eq!(order.given_up, [(unit("y.service"), unit("z.service"))]);
        let straight = Order::of([unit("a.service"), unit("z.service")], &graph);
        assert_eq!(straight.given_up, []);
    }

    #[test]
    fn units_of_a_group_go_one_by_one() {
        let graph =
            graph(&["w1.service: after w3.service", "w2.service:", "w3.service:", "x.service:"]);
        let in_group = |unit: &UnitName| unit.as_str().starts_with('w').then_some("web");
        let order = Order::of(graph.keys().cloned(), &graph).one_by_one(in_group);
        let names: Vec<_> = order.units.iter().map(UnitName::as_str).collect();
        assert_eq!(names, ["w2.service", "w3.service", "w1.service", "x.service"]);
        assert!(order.waits_for[&unit("w3.service")].contains(&unit("w2.service")));
        assert!(order.waits_for[&unit("w1.service")].contains(&unit("w3.service")));
        assert!(order.waits_for[&unit("x.service")].is_empty());
    }

    #[test]
    fn stopping_goes_the_other_way() {
        let graph = graph(&["a.service: after b.service", "b.service:"]);
        let stop = Order::of(graph.keys().cloned(), &graph).reversed();
        assert_eq!(stop.units, [unit("a.service"), unit("b.service")]);
        assert!(stop.waits_for[&unit("b.service")].contains(&unit("a.service")));
        assert!(stop.waits_for[&unit("a.service")].is_empty());
    }
}
