//! Which units an update affects: joins what scripts asked, changed files, running processes and
//! mounts, and decides about each unit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use apt_ostree_proto::UnitName;
use apt_ostree_proto::outdated::Place;
use apt_ostree_proto::request::RestartPolicy;
use apt_ostree_proto::service::{
    Reason, ScriptRequest, ScriptVerb, UnitAction, UnitEffect, UnitState,
};

use super::decide::{Evidence, MOST_REASONS, decide, protected};
use super::scripts::{self, Asked};
use super::strategy::Strategies;
use super::unit_files::Described;
use super::{DetermineEffects, ServicePlan, configuration};
use crate::port::{PortResult, ProcessUse, Processes, Systemd, UnitDependencies};

/// How far dependents of dependents are followed; real chains have two or three links.
const DEEPEST_CHAIN: usize = 16;

/// How many processes outside units are kept by name; the rest is only advice to log in anew.
const MOST_UNOWNED: usize = 64;

/// What makes a host's units affected, by unit.
#[derive(Debug, Default)]
struct Affected {
    asked: BTreeMap<UnitName, Asked>,
    reasons: BTreeMap<UnitName, Vec<Reason>>,
    unowned: Vec<ProcessUse>,
    /// What ran before the updates that are undone.
    ran_before: BTreeSet<UnitName>,
    /// What the host's policy says no to, and its answer.
    forbidden: BTreeMap<UnitName, String>,
}

/// Joins all sources and decides about each unit.
pub(super) async fn determine(
    systemd: &dyn Systemd,
    processes: &dyn Processes,
    request: &DetermineEffects,
) -> PortResult<ServicePlan> {
    let (loaded, uses, own_mounts) = futures_util::try_join!(
        systemd.list(),
        processes.users_of(&request.replaced),
        processes.own_mounts(),
    )?;
    let requests = under_own_names(systemd, &request.requests).await?;
    let mut affected = Affected {
        asked: scripts::join(&requests, &loaded),
        ran_before: request.ran_before.iter().cloned().collect(),
        ..Affected::default()
    };
    affected.add_unit_files(request.changed.iter().chain(&request.etc_changed), &loaded);
    for (unit, reason) in configuration::reasons(systemd, request, &loaded).await? {
        affected.add(unit, reason);
    }
    affected.add_processes(uses);
    for (unit, path) in own_mounts {
        affected.add(unit, Reason::OwnMount { path });
    }
    affected.expand_templates(&loaded);

    if request.requests.iter().any(|request| request.verb == ScriptVerb::DaemonReexec) {
        request.context.report.warning(
            "a package asked the service manager to execute itself anew; that is left to the next boot",
        );
    }
    let rules = Rules {
        restart: request.restart,
        from_packages: request.from_packages,
        strategies: &request.strategies,
    };
    affected.conclude(systemd, &loaded, &rules).await
}

/// The requests with the units' own names instead of aliases: what comes of several depends on their order.
async fn under_own_names(
    systemd: &dyn Systemd,
    requests: &[ScriptRequest],
) -> PortResult<Vec<ScriptRequest>> {
    let named = requests.iter().filter_map(|request| request.unit.as_ref());
    let named: BTreeSet<UnitName> = named.filter(|unit| !is_template(unit)).cloned().collect();
    let by_name = systemd.dependencies(&named.into_iter().collect::<Vec<_>>()).await?;
    let mut requests = requests.to_vec();
    for unit in requests.iter_mut().filter_map(|request| request.unit.as_mut()) {
        if let Some(own) = by_name.get(unit).and_then(|dependencies| dependencies.id.clone()) {
            *unit = own;
        }
    }
    Ok(requests)
}

fn is_template(unit: &UnitName) -> bool {
    unit.as_str().contains("@.")
}

/// Decides what a restart of everything in `uses` would do: all of them processes of units.
pub(super) async fn of_uses(
    systemd: &dyn Systemd,
    uses: Vec<ProcessUse>,
    strategies: &Strategies,
) -> PortResult<ServicePlan> {
    let loaded = systemd.list().await?;
    let mut affected = Affected::default();
    affected.add_processes(uses);
    let rules = Rules { restart: RestartPolicy::Affected, from_packages: false, strategies };
    let mut plan = affected.conclude(systemd, &loaded, &rules).await?;
    plan.effects.extend(affected.told_nothing_of(&plan, &loaded));
    plan.effects.sort_by(|one, other| one.unit.cmp(&other.unit));
    Ok(plan)
}

/// What decides about affected units.
struct Rules<'a> {
    restart: RestartPolicy,
    from_packages: bool,
    strategies: &'a Strategies,
}

impl Affected {
    /// Looks at the units and decides about each.
    async fn conclude(
        &mut self,
        systemd: &dyn Systemd,
        loaded: &BTreeMap<UnitName, UnitState>,
        rules: &Rules<'_>,
    ) -> PortResult<ServicePlan> {
        let by_name = systemd.dependencies(&self.units()).await?;
        self.rename(&by_name);
        let units = self.units();
        let states = systemd.states(&units).await?;
        let graph = Graph::load(systemd, &units, by_name, loaded).await?;
        scripts::start_parts_again(&mut self.asked, &graph.dependencies);
        let plan = decide_all(self, &states, &graph, rules);
        let acted = plan.effects.iter().filter(|effect| effect.action != UnitAction::Leave);
        let acted = acted.map(|effect| (effect.unit.clone(), effect.action));
        let followed = plan.followers.iter().map(|unit| (unit.clone(), UnitAction::Restart));
        let acts: Vec<(UnitName, UnitAction)> = acted.chain(followed).collect();
        self.forbidden = systemd.forbidden_by_policy(&acts).await?;
        if self.forbidden.is_empty() {
            return Ok(plan);
        }
        Ok(decide_all(self, &states, &graph, rules))
    }

    /// The units that the plan passes over because they do not run: what is left of one still does.
    fn told_nothing_of(
        &self,
        plan: &ServicePlan,
        loaded: &BTreeMap<UnitName, UnitState>,
    ) -> Vec<UnitEffect> {
        let is_told = |unit: &UnitName| plan.effects.iter().any(|effect| effect.unit == *unit);
        let untold = self.reasons.iter().filter(|(unit, _)| !is_told(unit));
        let left = untold.map(|(unit, reasons)| {
            let state = loaded.get(unit).map_or("gone", |state| state.active.as_str());
            let reasons = reasons.iter().take(MOST_REASONS).cloned().collect();
            let left_because = Some(format!("it is {state}, and only its processes are left"));
            let effect = UnitEffect::new(unit.clone(), UnitAction::Leave, reasons);
            UnitEffect { left_because, ..effect }
        });
        left.collect()
    }

    fn add(&mut self, unit: UnitName, reason: Reason) {
        let reasons = self.reasons.entry(unit).or_default();
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }

    fn units(&self) -> Vec<UnitName> {
        let units: BTreeSet<&UnitName> = self.asked.keys().chain(self.reasons.keys()).collect();
        units.into_iter().cloned().collect()
    }

    fn add_unit_files<'a>(
        &mut self,
        changed: impl Iterator<Item = &'a PathBuf>,
        loaded: &BTreeMap<UnitName, UnitState>,
    ) {
        for path in changed {
            let Some(described) = Described::by(path) else { continue };
            let reason = || Reason::UnitFile { path: absolute(path) };
            // By its own name too: the file may be that of an alias, which no list shows.
            if let Some(unit) = described.unit() {
                self.add(unit, reason());
            }
            let concerned = loaded.keys().chain(&self.ran_before);
            let concerned: Vec<UnitName> =
                concerned.filter(|unit| described.concerns(unit)).cloned().collect();
            for unit in concerned {
                self.add(unit, reason());
            }
        }
    }

    /// One reason for each unit and file; the process is the first that uses it.
    fn add_processes(&mut self, uses: Vec<ProcessUse>) {
        let mut seen = BTreeSet::new();
        let mut unowned = BTreeSet::new();
        for found in uses {
            if let (Some(unit), Place::Host) = (&found.unit, &found.place) {
                if seen.insert((unit.clone(), found.path.clone())) {
                    self.add(unit.clone(), found.reason());
                }
            } else if unowned.insert(found.pid) && unowned.len() <= MOST_UNOWNED {
                self.unowned.push(found);
            }
        }
    }

    /// What was asked of a template means its instances.
    fn expand_templates(&mut self, loaded: &BTreeMap<UnitName, UnitState>) {
        self.reasons.retain(|unit, _| !is_template(unit));
        let templates: Vec<UnitName> =
            self.asked.keys().filter(|unit| is_template(unit)).cloned().collect();
        for template in templates {
            let Some(asked) = self.asked.remove(&template) else { continue };
            let Some((prefix, kind)) = template.as_str().split_once("@.") else { continue };
            let family =
                Described::Family { prefix: format!("{prefix}@"), suffix: format!(".{kind}") };
            for unit in loaded.keys().filter(|unit| family.concerns(unit)) {
                self.asked.entry(unit.clone()).or_insert_with(|| asked.clone());
            }
        }
    }

    /// Puts everything under the units' own names instead of aliases.
    fn rename(&mut self, by_name: &BTreeMap<UnitName, UnitDependencies>) {
        let own_name = |unit: UnitName| {
            let own = by_name.get(&unit).and_then(|dependencies| dependencies.id.clone());
            own.unwrap_or(unit)
        };
        for (unit, asked) in std::mem::take(&mut self.asked) {
            let Asked { wish, last, .. } = asked;
            let joined = self.asked.entry(own_name(unit)).or_insert_with(|| Asked {
                wish,
                reasons: Vec::new(),
                last,
            });
            joined.wish = joined.wish.max(wish);
            joined.last = joined.last.max(last);
            joined.reasons.extend(asked.reasons);
        }
        for (unit, reasons) in std::mem::take(&mut self.reasons) {
            let unit = own_name(unit);
            for reason in reasons {
                self.add(unit.clone(), reason);
            }
        }
    }
}

/// The units' dependencies, and which of them run.
struct Graph {
    dependencies: BTreeMap<UnitName, UnitDependencies>,
    up: BTreeSet<UnitName>,
}

impl Graph {
    /// Loads the units and, link by link, the running ones that need them.
    async fn load(
        systemd: &dyn Systemd,
        units: &[UnitName],
        by_name: BTreeMap<UnitName, UnitDependencies>,
        loaded: &BTreeMap<UnitName, UnitState>,
    ) -> PortResult<Self> {
        let up: BTreeSet<UnitName> = loaded
            .iter()
            .filter(|(_, state)| state.is_up())
            .map(|(unit, _)| unit.clone())
            .collect();
        let mut graph = Self { dependencies: BTreeMap::new(), up };
        for (unit, dependencies) in by_name {
            let own_name = dependencies.id.clone().unwrap_or(unit);
            graph.dependencies.insert(own_name, dependencies);
        }
        let mut newest = units.to_vec();
        for _ in 0..DEEPEST_CHAIN {
            let missing: BTreeSet<UnitName> = newest
                .iter()
                .flat_map(|unit| graph.dependents(unit))
                .filter(|unit| !graph.dependencies.contains_key(*unit))
                .cloned()
                .collect();
            if missing.is_empty() {
                break;
            }
            newest = missing.into_iter().collect();
            graph.dependencies.extend(systemd.dependencies(&newest).await?);
        }
        Ok(graph)
    }

    /// The running units that need `unit` and go down with it.
    fn dependents(&self, unit: &UnitName) -> impl Iterator<Item = &UnitName> {
        let required_by = self.dependencies.get(unit).map(|own| own.required_by.as_slice());
        required_by.unwrap_or_default().iter().filter(|unit| self.up.contains(*unit))
    }

    /// The same, and what needs those.
    fn all_dependents(&self, unit: &UnitName) -> BTreeSet<UnitName> {
        let mut found = BTreeSet::new();
        let mut open = vec![unit.clone()];
        while let Some(next) = open.pop() {
            for dependent in self.dependents(&next) {
                if dependent != unit && found.insert(dependent.clone()) {
                    open.push(dependent.clone());
                }
            }
        }
        found
    }

    fn names(&self, unit: &UnitName) -> &[UnitName] {
        self.dependencies.get(unit).map(|own| own.names.as_slice()).unwrap_or_default()
    }
}

fn decide_all(
    affected: &Affected,
    states: &BTreeMap<UnitName, UnitState>,
    graph: &Graph,
    rules: &Rules<'_>,
) -> ServicePlan {
    let (no_state, alone) = (UnitState::default(), UnitDependencies::default());
    let mut effects: BTreeMap<UnitName, UnitEffect> = BTreeMap::new();
    for unit in affected.units() {
        let evidence = Evidence {
            unit: &unit,
            state: states.get(&unit).unwrap_or(&no_state),
            dependencies: graph.dependencies.get(&unit).unwrap_or(&alone),
            asked: affected.asked.get(&unit),
            reasons: affected.reasons.get(&unit).map(Vec::as_slice).unwrap_or_default(),
            ran_before: affected.ran_before.contains(&unit),
            strategies: rules.strategies,
        };
        if let Some(mut effect) = decide(&evidence, rules.restart, rules.from_packages) {
            if let Some(answer) = affected.forbidden.get(&unit) {
                effect.action = UnitAction::Leave;
                effect.left_because = Some(format!("the host's policy-rc.d says no: {answer}"));
            }
            effects.insert(unit, effect);
        }
    }
    spare_what_others_hold(&mut effects, graph, |unit| {
        affected.forbidden.contains_key(unit)
            || protected(unit, graph.names(unit), rules.strategies).is_some()
    });
    let goes_down = |effect: &&UnitEffect| {
        !matches!(effect.action, UnitAction::Leave | UnitAction::Reload | UnitAction::Start)
    };
    let followers: BTreeSet<UnitName> = effects
        .values()
        .filter(goes_down)
        .flat_map(|effect| graph.all_dependents(&effect.unit))
        .filter(|unit| effects.get(unit).is_none_or(|effect| effect.action == UnitAction::Leave))
        .collect();
    ServicePlan {
        effects: effects.into_values().collect(),
        followers: followers.into_iter().collect(),
        other_processes: affected.unowned.clone(),
    }
}

/// Leaves units alone whose restart would take one down that stays up, and sockets that cannot
/// restart because a service of theirs runs and is not itself restarted.
fn spare_what_others_hold(
    effects: &mut BTreeMap<UnitName, UnitEffect>,
    graph: &Graph,
    stays_up: impl Fn(&UnitName) -> bool,
) {
    // What is spared may hold another: a service its socket. Each round spares one more at least.
    loop {
        let spared = held(effects, graph, &stays_up);
        if spared.is_empty() {
            return;
        }
        for (unit, why) in spared {
            if let Some(effect) = effects.get_mut(&unit) {
                effect.action = UnitAction::Leave;
                effect.left_because = Some(why);
            }
        }
    }
}

/// The units that others hold, as the effects are now, and why.
fn held(
    effects: &BTreeMap<UnitName, UnitEffect>,
    graph: &Graph,
    stays_up: impl Fn(&UnitName) -> bool,
) -> Vec<(UnitName, String)> {
    let acts = |effect: &UnitEffect| {
        matches!(effect.action, UnitAction::StopStart | UnitAction::Stop | UnitAction::Restart)
    };
    let mut spared = Vec::new();
    for (unit, effect) in effects.iter().filter(|(_, effect)| acts(effect)) {
        let holder = graph.all_dependents(unit).into_iter().find(&stays_up);
        if let Some(holder) = holder {
            spared.push((unit.clone(), format!("{holder} needs it and is not restarted")));
        } else if unit.kind() == "socket" && effect.action == UnitAction::Restart {
            let triggers = graph.dependencies.get(unit).map(|own| own.triggers.as_slice());
            let running = triggers.unwrap_or_default().iter().find(|service| {
                graph.up.contains(*service) && !effects.get(*service).is_some_and(acts)
            });
            if let Some(service) = running {
                spared.push((unit.clone(), format!("{service} holds it and is not restarted")));
            }
        }
    }
    spared
}

fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

#[cfg(test)]
#[path = "effects_tests.rs"]
mod tests;
