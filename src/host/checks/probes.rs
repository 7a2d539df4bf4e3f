//! Asks a service over a socket or over the bus.

use std::time::Duration;

use apt_ostree_actors::port::Question;
use apt_ostree_proto::UnitName;
use reqwest::{Client, redirect};
use tokio::net::TcpStream;
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;
use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::zvariant::OwnedObjectPath;

/// What a probe calls itself.
const AGENT: &str = concat!("apt-ostree/", env!("CARGO_PKG_VERSION"));

/// Errors by which a peer, or the bus for it, says that nobody is there.
const NOBODY: &[&str] = &[
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.Disconnected",
    "org.freedesktop.DBus.Error.Timeout",
    "org.freedesktop.DBus.Error.TimedOut",
];

/// Asks once; `Err` says why it is not ready. The caller bounds the time.
pub(super) async fn ask(bus: &Connection, question: &Question) -> Result<(), String> {
    match question {
        Question::Tcp { address, port } => {
            let connected = TcpStream::connect((address.as_str(), *port)).await;
            connected.map(drop).map_err(|error| error.to_string())
        }
        Question::Http { url, status } => get(url, *status).await,
        Question::Dbus { name } => ping(bus, name).await,
        Question::Command { .. } => Err("a command runs in a unit".to_owned()),
    }
}

async fn get(url: &str, expected: Option<u16>) -> Result<(), String> {
    let is_encrypted = url.starts_with("https:");
    let client = tokio::task::spawn_blocking(move || {
        Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .http1_only()
            .user_agent(AGENT)
            .pool_max_idle_per_host(0)
            .pool_idle_timeout(Duration::ZERO)
            // To read the certificates takes time that only encryption is worth.
            .tls_built_in_root_certs(is_encrypted)
            .build()
    });
    let client = client.await.map_err(|error| error.to_string())?.map_err(explain)?;
    let answer = client.get(url).send().await.map_err(explain)?;
    let status = answer.status();
    let is_expected = expected.map_or(status.is_success(), |code| status.as_u16() == code);
    if is_expected { Ok(()) } else { Err(format!("the answer is {status}")) }
}

/// The innermost cause: what is around it repeats the URL.
fn explain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Whether the name has an owner, and the owner answers. Whatever it answers, it does; and a bus that
/// forbids to ask it has told that it is there.
async fn ping(bus: &Connection, name: &str) -> Result<(), String> {
    let told = |error: zbus::Error| error.to_string();
    let owner = BusName::try_from(name).map_err(|error| error.to_string())?;
    let daemon = DBusProxy::new(bus).await.map_err(told)?;
    let has_owner = daemon.name_has_owner(owner).await;
    if !has_owner.map_err(|error| error.to_string())? {
        return Err("nobody owns the name".to_owned());
    }
    let peer: zbus::Proxy<'_> = zbus::proxy::Builder::new(bus)
        .destination(name)
        .and_then(|builder| builder.path("/"))
        .and_then(|builder| builder.interface("org.freedesktop.DBus.Peer"))
        .map_err(told)?
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .map_err(told)?;
    let flags = MethodFlags::NoAutoStart.into();
    match peer.call_with_flags::<_, _, ()>("Ping", flags, &()).await {
        Ok(_) => Ok(()),
        Err(zbus::Error::MethodError(error, ..)) if !NOBODY.contains(&error.as_str()) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether the service manager has no such unit.
pub(super) async fn is_unknown_unit(bus: &Connection, unit: &UnitName) -> zbus::Result<bool> {
    const MANAGER: &str = "org.freedesktop.systemd1";
    let path = bus
        .call_method(
            Some(MANAGER),
            "/org/freedesktop/systemd1",
            Some("org.freedesktop.systemd1.Manager"),
            "LoadUnit",
            &(unit.as_str(),),
        )
        .await?;
    let path: OwnedObjectPath = path.body().deserialize()?;
    let unit: zbus::Proxy<'_> = zbus::proxy::Builder::new(bus)
        .destination(MANAGER)?
        .path(path)?
        .interface("org.freedesktop.systemd1.Unit")?
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    Ok(unit.get_property::<String>("LoadState").await? == "not-found")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn serve(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut request = [0; 1024];
                if client.read(&mut request).await.is_ok() {
                    client.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        port
    }

    #[tokio::test]
    async fn an_answer_is_judged_by_its_status() {
        let ok = serve("HTTP/1.1 204 No Content\r\n\r\n").await;
        let moved =
            serve("HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n")
                .await;
        for (port, status, told) in [
            (ok, None, None),
            (ok, Some(204), None),
            (ok, Some(200), Some("204")),
            (moved, None, Some("302")),
            (moved, Some(302), None),
        ] {
            let answer = get(&format!("http://127.0.0.1:{port}/"), status).await;
            match told {
                None => assert_eq!(answer, Ok(()), "{port} {status:?}"),
                Some(told) => assert!(answer.unwrap_err().contains(told), "{port} {status:?}"),
            }
        }
    }

    #[tokio::test]
    async fn nobody_who_listens_is_told_in_a_few_words() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let why = get(&format!("http://127.0.0.1:{free}/"), None).await.unwrap_err();
        assert!(why.contains("refused") && why.len() < 100, "{why}");
    }
}
