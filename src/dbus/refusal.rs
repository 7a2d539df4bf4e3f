//! A daemon that cannot serve says why on the bus, instead of leaving its callers to wait until the bus
//! gives up, which takes 25 s.

use std::time::Duration;

use anyhow::{Context as _, bail};
use apt_ostree_proto::Failure;
use apt_ostree_proto::dbus::BUS_NAME;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;
use zbus::fdo::{DBusProxy, RequestNameFlags, RequestNameReply};
use zbus::message::{Flags, Type};
use zbus::names::WellKnownName;
use zbus::{Connection, Message, MessageStream};

use super::error::Error;

/// How long the next call is waited for. What keeps the daemon from serving may be mended in the next
/// moment; but a daemon that leaves sooner is started too often by a caller who tries again and again:
/// systemd allows five starts in ten seconds.
const QUIET: Duration = Duration::from_secs(3);

/// How long it answers at the most: whoever calls again and again is not to keep the next daemon from
/// finding out whether it can serve.
const LONGEST: Duration = Duration::from_secs(30);

/// Takes the bus name, answers every call with `failure` until none has come for [`QUIET`], or for
/// [`LONGEST`], and leaves the bus name.
pub async fn refuse(connection: &Connection, failure: &Failure) -> anyhow::Result<()> {
    let mut calls = MessageStream::from(connection);
    // zbus's own way to take a name warns of interfaces that are not there yet: there will be none.
    let bus = DBusProxy::new(connection).await.context("cannot speak with the bus")?;
    let name = WellKnownName::from_static_str(BUS_NAME)?;
    let reply = bus.request_name(name.clone(), RequestNameFlags::DoNotQueue.into()).await;
    let reply = reply.with_context(|| format!("cannot take the bus name {BUS_NAME}"))?;
    if reply != RequestNameReply::PrimaryOwner {
        bail!("somebody else has the bus name {BUS_NAME}");
    }
    answer_all(connection, &mut calls, failure, LONGEST).await?;
    bus.release_name(name).await.context("cannot leave the bus")?;
    // What came before the name was gone.
    while let Some(Some(message)) = calls.next().now_or_never() {
        answer(connection, &message?, failure).await?;
    }
    Ok(())
}

pub(super) async fn answer_all(
    connection: &Connection,
    calls: &mut MessageStream,
    failure: &Failure,
    longest: Duration,
) -> anyhow::Result<()> {
    let end = Instant::now() + longest;
    let quiet = || end.min(Instant::now() + QUIET);
    while let Ok(message) = tokio::time::timeout_at(quiet(), calls.next()).await {
        let message = message.context("the bus was lost")??;
        answer(connection, &message, failure).await?;
    }
    Ok(())
}

async fn answer(
    connection: &Connection,
    message: &Message,
    failure: &Failure,
) -> anyhow::Result<()> {
    let is_call = message.message_type() == Type::MethodCall;
    if is_call && !message.primary_header().flags().contains(Flags::NoReplyExpected) {
        let error = Error::from(failure.clone());
        connection.reply_dbus_error(&message.header(), error).await?;
    }
    Ok(())
}
