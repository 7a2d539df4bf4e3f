//! The way to the daemon, and its errors on the way back.

use anyhow::Context as _;
use apt_ostree_proto::dbus::{BUS_NAME, ERROR_PREFIX, ManagerProxy};
use apt_ostree_proto::{ErrorCode, Failure};
use zbus::Connection;

/// The system bus and the manager on it.
pub(super) async fn manager() -> anyhow::Result<(Connection, ManagerProxy<'static>)> {
    let bus = Connection::system().await.context("cannot reach the system bus")?;
    let manager = manager_on(&bus).await?;
    Ok((bus, manager))
}

/// The manager on this bus.
pub(super) async fn manager_on(bus: &Connection) -> anyhow::Result<ManagerProxy<'static>> {
    ManagerProxy::builder(bus)
        // Every property is read when it is wanted: a cache costs a round trip that few commands use.
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await
        .context("cannot speak with the daemon")
}

/// Reads what the daemon answered.
pub(super) fn read<T: serde::de::DeserializeOwned>(text: &str) -> anyhow::Result<T> {
    serde_json::from_str(text)
        .context("the daemon's answer is not understood; are the versions equal?")
}

/// What the daemon's answer means: its own failures come back as such.
pub(super) fn explain(error: zbus::Error) -> anyhow::Error {
    let zbus::Error::MethodError(name, text, _) = &error else {
        return anyhow::Error::new(error).context("cannot speak with the daemon");
    };
    let text = text.clone().unwrap_or_default();
    match name.strip_prefix(ERROR_PREFIX).and_then(ErrorCode::parse) {
        // The text ends with the hint: what to do is printed by itself.
        Some(code) => {
            let failure = Failure::new(code, text);
            let message = failure.message.strip_suffix(failure.hint.as_str());
            let message = message.map(|m| m.trim_end_matches([' ', '.']).to_owned());
            Failure { message: message.unwrap_or(failure.message), ..failure }.into()
        }
        None if name.ends_with("ServiceUnknown") => Failure::new(
            ErrorCode::DaemonUnavailable,
            format!("nothing on the system bus answers to {BUS_NAME}"),
        )
        .with_hint("Install the package apt-ostree, which brings the daemon.")
        .into(),
        None if name.ends_with("UnitMasked") => {
            Failure::new(ErrorCode::DaemonUnavailable, "the daemon is masked: apt-ostreed.service")
                .with_hint("Let it start: systemctl unmask apt-ostreed.")
                .into()
        }
        None if name.ends_with("NoReply") || name.ends_with("TimedOut") => Failure::new(
            ErrorCode::DaemonUnavailable,
            format!("the daemon does not start or does not answer: {text}"),
        )
        .into(),
        None => anyhow::anyhow!("the daemon answered {name}: {text}"),
    }
}
