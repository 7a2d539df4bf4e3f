//! Who may do what: polkit decides, for every method that works.

use std::collections::HashMap;

use apt_ostree_proto::request::Caller;
use apt_ostree_proto::{ErrorCode, Failure};
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::message::{Flags, Header};
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

/// Who is asked.
#[derive(Clone, Debug)]
pub(super) enum Authority {
    /// The bus, who calls; polkit, what they may.
    Polkit(Connection),
    /// Nobody: a connection without a bus has one known caller, with these actions allowed.
    #[cfg(test)]
    Peer(&'static [&'static str]),
}

impl Authority {
    pub(super) fn polkit(connection: Connection) -> Self {
        Self::Polkit(connection)
    }

    /// The caller, when it may do `action`; else `NotAuthorized`. The superuser may do everything:
    /// a host whose polkit does not run must stay manageable.
    pub(super) async fn allow(
        &self,
        header: &Header<'_>,
        action: &'static str,
    ) -> Result<Caller, Failure> {
        let connection = match self {
            Self::Polkit(connection) => connection,
            #[cfg(test)]
            Self::Peer(allowed) if allowed.contains(&action) => return Ok(Caller::default()),
            #[cfg(test)]
            Self::Peer(_) => return Err(Failure::new(ErrorCode::NotAuthorized, action)),
        };
        let caller = caller(connection, header).await?;
        if caller.uid == 0 {
            return Ok(caller);
        }
        let refused = |why: &str| {
            let text = format!("user {} may not do {action}{why}", caller.uid);
            Failure::new(ErrorCode::NotAuthorized, text)
        };
        let unreachable =
            |error: &dyn std::fmt::Display| refused(&format!(": polkit cannot be asked: {error}"));
        let polkit = AuthorityProxy::new(connection).await.map_err(|e| unreachable(&e))?;
        let subject = Subject::new_for_message_header(header).map_err(|e| unreachable(&e))?;
        let interactive = header.primary().flags().contains(Flags::AllowInteractiveAuth);
        let flags = if interactive {
            CheckAuthorizationFlags::AllowUserInteraction.into()
        } else {
            enumflags2::BitFlags::empty()
        };
        let answer = polkit
            .check_authorization(&subject, action, &HashMap::new(), flags, "")
            .await
            .map_err(|e| unreachable(&e))?;
        if answer.is_authorized { Ok(caller) } else { Err(refused("")) }
    }
}

async fn caller(connection: &Connection, header: &Header<'_>) -> Result<Caller, Failure> {
    let unknown = |error: &dyn std::fmt::Display| {
        let text = format!("the bus does not say who calls: {error}");
        Failure::new(ErrorCode::NotAuthorized, text)
    };
    let sender = header.sender().ok_or_else(|| unknown(&"the message has no sender"))?;
    let bus = DBusProxy::new(connection).await.map_err(|error| unknown(&error))?;
    let uid = bus
        .get_connection_unix_user(sender.clone().into())
        .await
        .map_err(|error| unknown(&error))?;
    Ok(Caller { uid, bus_name: sender.to_string() })
}
