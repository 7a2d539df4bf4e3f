//! Reads units. The proxies here are our own because states are texts: systemd adds new ones.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use apt_ostree_actors::port::{PortResult, UnitDependencies};
use apt_ostree_proto::UnitName;
use apt_ostree_proto::service::UnitState;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;
use systemd_zbus::ManagerProxy;
use zbus::zvariant::{OwnedObjectPath, OwnedValue, Type};

use super::jobs::refusal;
use super::{answered, failure};

/// How many questions are on their way at once: enough to hide the way to the manager and back, few
/// enough for the bus's queue.
pub(super) const QUESTIONS_AT_ONCE: usize = 32;

/// The longest name that a question may carry is the bus's limit for a message; this many names stay
/// far below it.
const NAMES_AT_ONCE: usize = 512;

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    gen_blocking = false
)]
trait UnitLister {
    fn list_units(&self) -> zbus::Result<Vec<ListedUnit>>;
    fn list_units_by_names(&self, names: &[&str]) -> zbus::Result<Vec<ListedUnit>>;
}

/// One line of the manager's list.
#[derive(Clone, Debug, Deserialize, Type)]
struct ListedUnit {
    name: String,
    _description: String,
    load: String,
    active: String,
    sub: String,
    _following: String,
    path: OwnedObjectPath,
    _job: u32,
    _job_type: String,
    _job_path: OwnedObjectPath,
}

impl ListedUnit {
    fn state(&self) -> UnitState {
        UnitState {
            load: self.load.clone(),
            active: self.active.clone(),
            sub: self.sub.clone(),
            ..UnitState::default()
        }
    }
}

async fn lister(connection: &zbus::Connection) -> PortResult<UnitListerProxy<'static>> {
    UnitListerProxy::builder(connection)
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await
        .map_err(|error| failure("the service manager cannot be reached", &error))
}

/// Every loaded unit.
pub(super) async fn list(
    connection: &zbus::Connection,
) -> PortResult<BTreeMap<UnitName, UnitState>> {
    let listed = answered("its units", lister(connection).await?.list_units()).await?;
    let mut units = BTreeMap::new();
    for unit in listed {
        let state = unit.state();
        // Device units may have names that are longer than any unit that is ever restarted.
        if let Ok(name) = UnitName::parse(unit.name) {
            units.insert(name, state);
        }
    }
    Ok(units)
}

/// The states of `units`: one list for what all have, then the rest for services in parallel.
pub(super) async fn states(
    connection: &zbus::Connection,
    units: &[UnitName],
) -> PortResult<BTreeMap<UnitName, UnitState>> {
    let listed = listed_by_name(connection, units).await?;
    stream::iter(units)
        .map(|unit| async {
            let Some(listed) = listed.get(unit) else {
                return Ok((unit.clone(), not_found()));
            };
            let mut state = listed.state();
            if state.load == "loaded" || state.load == "masked" {
                complete(connection, unit, &listed.path, &mut state).await?;
            }
            Ok((unit.clone(), state))
        })
        .buffer_unordered(QUESTIONS_AT_ONCE)
        .try_collect()
        .await
}

fn not_found() -> UnitState {
    UnitState {
        load: "not-found".to_owned(),
        active: "inactive".to_owned(),
        sub: "dead".to_owned(),
        ..UnitState::default()
    }
}

/// The manager's lines for `units`, which it answers in the order of the names, with the units' own
/// names in place of aliases. Templates are no units.
async fn listed_by_name(
    connection: &zbus::Connection,
    units: &[UnitName],
) -> PortResult<HashMap<UnitName, ListedUnit>> {
    let manager = lister(connection).await?;
    let units: Vec<&UnitName> = units.iter().filter(|unit| !is_template(unit)).collect();
    let mut found = HashMap::with_capacity(units.len());
    for chunk in units.chunks(NAMES_AT_ONCE) {
        let names: Vec<&str> = chunk.iter().map(|unit| unit.as_str()).collect();
        let listed = answered("units by their names", manager.list_units_by_names(&names)).await?;
        if listed.len() == names.len() {
            found.extend(chunk.iter().map(|unit| (*unit).clone()).zip(listed));
            continue;
        }
        // A name was passed over: ask one by one.
        for unit in chunk {
            let listed = answered("a unit", manager.list_units_by_names(&[unit.as_str()])).await?;
            found.extend(listed.into_iter().map(|listed| ((*unit).clone(), listed)));
        }
    }
    Ok(found)
}

/// Where the units are on the bus; those that the manager does not know are left out.
pub(super) async fn paths_by_name(
    connection: &zbus::Connection,
    units: &[UnitName],
) -> PortResult<HashMap<UnitName, OwnedObjectPath>> {
    let listed = listed_by_name(connection, units).await?;
    Ok(listed.into_iter().map(|(unit, listed)| (unit, listed.path)).collect())
}

fn is_template(unit: &UnitName) -> bool {
    unit.as_str().contains("@.")
}

/// Adds what the list does not tell. Single questions, because all properties of a service at once
/// would have the manager read a dozen files of its control group.
async fn complete(
    connection: &zbus::Connection,
    unit: &UnitName,
    path: &OwnedObjectPath,
    state: &mut UnitState,
) -> PortResult<()> {
    const UNIT: &str = "org.freedesktop.systemd1.Unit";
    const SERVICE: &str = "org.freedesktop.systemd1.Service";
    if unit.kind() != "service" {
        state.unit_file = property(connection, path, UNIT, "UnitFileState").await?;
        return Ok(());
    }
    (state.unit_file, state.result, state.restarts, state.main_pid) = futures_util::try_join!(
        property(connection, path, UNIT, "UnitFileState"),
        property(connection, path, SERVICE, "Result"),
        property(connection, path, SERVICE, "NRestarts"),
        property(connection, path, SERVICE, "MainPID"),
    )?;
    Ok(())
}

/// The answer to the question for one property: org.freedesktop.DBus.Properties.
pub(super) async fn get(
    connection: &zbus::Connection,
    path: &OwnedObjectPath,
    interface: &str,
    name: &str,
) -> zbus::Result<zbus::Message> {
    let (manager, properties) = ("org.freedesktop.systemd1", "org.freedesktop.DBus.Properties");
    connection.call_method(Some(manager), path, Some(properties), "Get", &(interface, name)).await
}

pub(super) async fn property<T>(
    connection: &zbus::Connection,
    path: &OwnedObjectPath,
    interface: &str,
    name: &str,
) -> PortResult<T>
where
    T: TryFrom<OwnedValue> + Default,
    T::Error: Into<zbus::Error>,
{
    let question = async {
        let answer = get(connection, path, interface, name).await?;
        let value: OwnedValue = answer.body().deserialize()?;
        T::try_from(value).map_err(Into::into)
    };
    answered(name, question).await
}

/// How `units` hang together: one question for each unit, in parallel.
pub(super) async fn dependencies(
    connection: &zbus::Connection,
    manager: &ManagerProxy<'static>,
    units: &[UnitName],
) -> PortResult<BTreeMap<UnitName, UnitDependencies>> {
    stream::iter(units)
        .map(|unit| async { Ok((unit.clone(), dependencies_of(connection, manager, unit).await?)) })
        .buffer_unordered(QUESTIONS_AT_ONCE)
        .try_collect()
        .await
}

async fn dependencies_of(
    connection: &zbus::Connection,
    manager: &ManagerProxy<'static>,
    unit: &UnitName,
) -> PortResult<UnitDependencies> {
    if is_template(unit) {
        return Ok(UnitDependencies::default());
    }
    let question = async {
        let path = match manager.load_unit(unit.as_str()).await {
            Ok(path) => path,
            Err(error) if refusal(&error).is_some() => return Ok(None),
            Err(error) => return Err(error),
        };
        let answer = connection
            .call_method(
                Some("org.freedesktop.systemd1"),
                &path,
                Some("org.freedesktop.DBus.Properties"),
                "GetAll",
                &("org.freedesktop.systemd1.Unit",),
            )
            .await?;
        Ok(Some(answer.body().deserialize::<HashMap<String, OwnedValue>>()?))
    };
    let properties = answered("a unit's dependencies", question).await?;
    Ok(properties
        .map(|properties| read_dependencies(&mut Properties(properties)))
        .unwrap_or_default())
}

/// The properties of a unit; one that this systemd does not have yet reads as empty.
struct Properties(HashMap<String, OwnedValue>);

impl Properties {
    fn take<T: TryFrom<OwnedValue> + Default>(&mut self, name: &str) -> T {
        self.0.remove(name).and_then(|value| T::try_from(value).ok()).unwrap_or_default()
    }

    fn units(&mut self, names: &[&str]) -> Vec<UnitName> {
        let mut units: Vec<UnitName> = names
            .iter()
            .flat_map(|name| self.take::<Vec<String>>(name))
            .filter_map(|unit| UnitName::parse(unit).ok())
            .collect();
        units.sort();
        units.dedup();
        units
    }
}

fn read_dependencies(properties: &mut Properties) -> UnitDependencies {
    let load: String = properties.take("LoadState");
    let id: String = properties.take("Id");
    let fragment: String = properties.take("FragmentPath");
    let source: String = properties.take("SourcePath");
    let drop_ins: Vec<String> = properties.take("DropInPaths");
    let refuses_start: bool = properties.take("RefuseManualStart");
    let refuses_stop: bool = properties.take("RefuseManualStop");
    UnitDependencies {
        id: UnitName::parse(id).ok().filter(|_| load != "not-found"),
        names: properties.units(&["Names"]),
        requires: properties.units(&["Requires", "Requisite", "BindsTo"]),
        required_by: properties.units(&["RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf"]),
        after: properties.units(&["After"]),
        triggered_by: properties.units(&["TriggeredBy"]),
        triggers: properties.units(&["Triggers"]),
        refuses_restart: refuses_start || refuses_stop,
        can_reload: properties.take("CanReload"),
        files: [fragment, source]
            .into_iter()
            .chain(drop_ins)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
            .collect(),
    }
}
