//! The bus: reads snapshots and sends messages to the coordinator, nothing else.
//!
//! Modules in reading order: [`manager`] and [`transaction`] are the interfaces, `options` reads
//! callers' options, `authority` asks polkit, `attendance` waits with a caller, `listeners` are told what tools print, `relay` turns the coordinator's events into signals,
//! `refusal` answers for a daemon that cannot serve.

mod activity;
mod attendance;
mod authority;
mod error;
mod listeners;
mod manager;
mod objects;
mod options;
mod outdated;
mod points;
mod refusal;
mod relay;
mod transaction;

pub use activity::Activity;
pub use error::Error;
pub use refusal::refuse;

use actix::Addr;
use anyhow::Context as _;
use apt_ostree_actors::coordinator::Coordinator;
use apt_ostree_proto::dbus::{BUS_NAME, MANAGER_PATH};
use apt_ostree_proto::event::Event;
use tokio::sync::mpsc::UnboundedReceiver;
use zbus::Connection;

/// Puts the manager on `connection`, takes the bus name, and publishes `events` until the
/// coordinator is gone.
pub async fn serve(
    connection: &Connection,
    coordinator: Addr<Coordinator>,
    events: UnboundedReceiver<Event>,
    activity: Activity,
) -> anyhow::Result<()> {
    let authority = authority::Authority::polkit(connection.clone());
    let relay = put_manager(connection, coordinator, activity, authority).await?;
    connection
        .request_name(BUS_NAME)
        .await
        .with_context(|| format!("cannot take the bus name {BUS_NAME}"))?;
    // Clients listen to the name: what is told before it is taken reaches nobody.
    tokio::task::spawn_local(relay.run(events));
    Ok(())
}

/// Puts the manager on `connection`; answers who publishes events there.
async fn put_manager(
    connection: &Connection,
    coordinator: Addr<Coordinator>,
    activity: Activity,
    authority: authority::Authority,
) -> anyhow::Result<relay::Relay> {
    let objects = objects::Objects {
        connection: connection.clone(),
        coordinator,
        authority,
        activity,
        listeners: listeners::Listeners::default(),
    };
    let manager = manager::Manager::new(objects.clone());
    connection
        .object_server()
        .at(MANAGER_PATH, manager)
        .await
        .context("cannot put the manager on the bus")?;
    Ok(relay::Relay::new(connection.clone(), objects.activity.clone(), objects))
}

/// Reads these bytes as the options of a call.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    use apt_ostree_proto::dbus::ReceivedOptions;
    use zbus::zvariant::LE;
    use zbus::zvariant::serialized::{Context, Data};

    let message = Data::new(data, Context::new_dbus(LE, 0));
    if let Ok((options, _)) = message.deserialize::<ReceivedOptions>()
        && let Err(failure) = options::apply_options(options)
    {
        assert!(failure.message.len() < 1000, "{failure}");
    }
}

#[cfg(test)]
mod tests;
