//! The bus: reads snapshots and sends messages to the coordinator, nothing else.
//!
//! Modules in reading order: [`manager`] and [`transaction`] are the interfaces, `options` reads
//! callers' options, `authority` asks polkit, `attendance` waits with a caller, `relay` turns the coordinator's events into signals,
//! `refusal` answers for a daemon that cannot serve.

mod activity;
mod attendance;
mod authority;
mod error;
mod manager;
mod objects;
mod options;
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
    publish(connection, coordinator, events, activity, authority).await?;
    connection
        .request_name(BUS_NAME)
        .await
        .with_context(|| format!("cannot take the bus name {BUS_NAME}"))
}

async fn publish(
    connection: &Connection,
    coordinator: Addr<Coordinator>,
    events: UnboundedReceiver<Event>,
    activity: Activity,
    authority: authority::Authority,
) -> anyhow::Result<()> {
    let objects =
        objects::Objects { connection: connection.clone(), coordinator, authority, activity };
    let manager = manager::Manager::new(objects.clone());
    connection
        .object_server()
        .at(MANAGER_PATH, manager)
        .await
        .context("cannot put the manager on the bus")?;
    let relay = relay::Relay::new(connection.clone(), objects.activity.clone(), objects);
    tokio::task::spawn_local(relay.run(events));
    Ok(())
}

#[cfg(test)]
mod tests;
