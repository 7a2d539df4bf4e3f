//! logind's inhibitor locks: org.freedesktop.login1(5).

use std::os::fd::OwnedFd;

use apt_ostree_actors::port::PortResult;

use super::{answered, failure};

#[zbus::proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1",
    gen_blocking = false
)]
trait Login {
    fn inhibit(
        &self,
        what: &str,
        who: &str,
        why: &str,
        mode: &str,
    ) -> zbus::Result<zbus::zvariant::OwnedFd>;
}

/// Takes a lock that has shutdown and sleep refused. It is held until it is closed.
pub(super) async fn take(connection: &zbus::Connection, why: &str) -> PortResult<OwnedFd> {
    let login = LoginProxy::new(connection)
        .await
        .map_err(|error| failure("logind cannot be reached", &error))?;
    let lock = login.inhibit("shutdown:sleep", "apt-ostree", why, "block");
    Ok(answered("an inhibitor lock", lock).await?.into())
}
