//! Who may do what: polkit decides, for every method that works.

use std::collections::HashMap;

use apt_ostree_proto::request::Caller;
use apt_ostree_proto::{ErrorCode, Failure};
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::message::{Flags, Header};
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

/// Asks the bus who calls and polkit what they may.
#[derive(Clone, Debug)]
pub(super) struct Authority {
    connection: Connection,
}

impl Authority {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// The caller, when it may do `action`; else `NotAuthorized`. The superuser may do everything:
    /// a host whose polkit does not run must stay manageable.
    pub(super) async fn allow(
        &self,
        header: &Header<'_>,
        action: &'static str,
    ) -> Result<Caller, Failure> {
        let caller = self.caller(header).await?;
        if caller.uid == 0 {
            return Ok(caller);
        }
        let refused = |why: &str| {
            let text = format!("user {} may not do {action}{why}", caller.uid);
            Failure::new(ErrorCode::NotAuthorized, text)
        };
        let unreachable =
            |error: &dyn std::fmt::Display| refused(&format!(": polkit cannot be asked: {error}"));
        let polkit = AuthorityProxy::new(&self.connection).await.map_err(|e| unreachable(&e))?;
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

    async fn caller(&self, header: &Header<'_>) -> Result<Caller, Failure> {
        let unknown = |error: &dyn std::fmt::Display| {
            let text = format!("the bus does not say who calls: {error}");
            Failure::new(ErrorCode::NotAuthorized, text)
        };
        let sender = header.sender().ok_or_else(|| unknown(&"the message has no sender"))?;
        let bus = DBusProxy::new(&self.connection).await.map_err(|error| unknown(&error))?;
        let uid = bus
            .get_connection_unix_user(sender.clone().into())
            .await
            .map_err(|error| unknown(&error))?;
        Ok(Caller { uid, bus_name: sender.to_string() })
    }
}
