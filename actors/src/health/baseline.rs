//! How everything is before the update touches it.

use std::collections::{BTreeMap, BTreeSet};

use apt_ostree_proto::UnitName;
use apt_ostree_proto::service::{UnitState, UnitUsage};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::{Deserialize, Serialize};

use super::probes::{self, PROBES_AT_ONCE};
use super::{RecordBaseline, hooks, usage};
use crate::port::{Checks, HookKind, PortResult, Probe, Probes, Systemd};
use crate::service::Watched;

/// How far dependents of dependents are followed; real chains have two or three links.
const DEEPEST_CHAIN: usize = 16;

/// Everything that matters, before anything was touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// The units' states.
    pub states: BTreeMap<UnitName, UnitState>,
    /// What the touched services used.
    pub usage: BTreeMap<UnitName, UnitUsage>,
    /// The probes of these units.
    pub probes: Vec<UnitProbe>,
    /// The hooks that failed.
    pub failed_hooks: Vec<FailedBefore>,
}

/// A probe of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitProbe {
    /// The unit, by its own name.
    pub unit: UnitName,
    /// The probe.
    pub probe: Probe,
    /// Why it failed before the update, where it did: then the update is not judged by it.
    pub failed_before: Option<String>,
}

/// A hook that failed before the update, which is therefore not judged by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedBefore {
    /// When it runs.
    pub kind: HookKind,
    /// Its name.
    pub name: String,
    /// Why it failed.
    pub why: String,
}

/// Reads states and usage, asks the units' probes, and runs the hooks.
pub(super) async fn record(
    systemd: &dyn Systemd,
    checks: &dyn Checks,
    request: &RecordBaseline,
) -> PortResult<Baseline> {
    let states = states(systemd, &request.units).await?;
    let services = request.units.units.iter().filter(|unit| unit.kind() == "service");
    let usage = usage::read(systemd, &services.cloned().collect::<Vec<_>>()).await;
    let probes = probes_of(systemd, &request.probes, &states).await?;
    let transaction = request.context.transaction;
    let states_now = &states;
    let asked = stream::iter(probes).map(|(unit, probe)| async move {
        // One that does not run cannot answer yet: that tells nothing of the probe.
        let runs = states_now.get(&unit).is_some_and(UnitState::is_up);
        let failed_before =
            if runs { probes::fails_before(checks, transaction, &probe).await? } else { None };
        Ok(UnitProbe { unit, probe, failed_before })
    });
    let asked: Vec<PortResult<UnitProbe>> = asked.buffered(PROBES_AT_ONCE).collect().await;
    Ok(Baseline {
        states,
        usage: usage.unwrap_or_default(),
        probes: asked.into_iter().collect::<PortResult<_>>()?,
        failed_hooks: hooks::fail_before(checks, request).await?,
    })
}

/// The states of the units and, link by link, of what needs them.
async fn states(
    systemd: &dyn Systemd,
    watched: &Watched,
) -> PortResult<BTreeMap<UnitName, UnitState>> {
    let mut all: BTreeSet<UnitName> = watched.units.iter().cloned().collect();
    let mut newest = watched.units.clone();
    for _ in 0..DEEPEST_CHAIN {
        if newest.is_empty() {
            break;
        }
        let dependencies = systemd.dependencies(&newest).await?;
        newest = dependencies
            .into_values()
            .flat_map(|own| own.required_by)
            .filter(|unit| !watched.gone.contains(unit) && all.insert(unit.clone()))
            .collect();
    }
    let all: Vec<UnitName> = all.into_iter().collect();
    systemd.states(&all).await
}

/// The probes of the units in `states`. They may be configured by an alias.
async fn probes_of(
    systemd: &dyn Systemd,
    configured: &Probes,
    states: &BTreeMap<UnitName, UnitState>,
) -> PortResult<Vec<(UnitName, Probe)>> {
    if configured.is_empty() || states.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<UnitName> = configured.keys().cloned().collect();
    let mut known = systemd.dependencies(&names).await?;
    let mut found = Vec::new();
    for (name, probes) in configured {
        let unit = known.remove(name).and_then(|own| own.id).unwrap_or_else(|| name.clone());
        if states.contains_key(&unit) {
            found.extend(probes.iter().map(|probe| (unit.clone(), probe.clone())));
        }
    }
    Ok(found)
}
