//! A reqwest client for given settings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::tls::{Certificate, CertificateRevocationList, Identity};
use reqwest::{Client, ClientBuilder, Proxy, redirect};

use super::settings::{Family, Settings, Tls};

/// Connections that wait for the next file of the same mirror; as many as transfers run at once.
const IDLE_CONNECTIONS_PER_HOST: usize = 16;
/// How long such a connection waits. Within a download the next file follows at once.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes a client. Reads certificates from the disk: call it off the arbiter.
pub(super) fn make(settings: &Settings) -> Result<Client> {
    let mut builder = Client::builder()
        .no_proxy()
        // Followed by the caller, who decides anew about proxy, credentials and TLS for each.
        .redirect(redirect::Policy::none())
        .http1_only()
        .referer(false)
        .user_agent(&settings.user_agent)
        .connect_timeout(settings.timeout)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST)
        .pool_idle_timeout(IDLE_TIMEOUT);
    if let Some(family) = settings.family {
        builder = builder.local_address(match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        });
    }
    if let Some(uri) = &settings.proxy {
        let proxy = Proxy::all(uri).map_err(reqwest::Error::without_url);
        builder = builder.proxy(proxy.context("the proxy's URI cannot be used")?);
    }
    let builder = match &settings.tls {
        Some(tls) => add_tls(builder, tls)?,
        None => builder.tls_built_in_root_certs(false),
    };
    builder.build().map_err(reqwest::Error::without_url).context("no client for these settings")
}

fn add_tls(mut builder: ClientBuilder, tls: &Tls) -> Result<ClientBuilder> {
    builder = builder
        .https_only(false)
        .danger_accept_invalid_certs(!tls.verify_peer)
        .danger_accept_invalid_hostnames(!tls.verify_host);
    if let Some(path) = &tls.ca_info {
        builder = builder.tls_built_in_root_certs(false);
        let bundle = Certificate::from_pem_bundle(&read(path)?);
        for certificate in bundle.with_context(|| format!("the certificates in {path:?}"))? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    if let Some(path) = &tls.client_certificate {
        let mut pem = read(path)?;
        // Without a key of its own the certificate's file holds both.
        if let Some(key) = &tls.client_key {
            pem.push(b'\n');
            pem.extend(read(key)?);
        }
        let identity = Identity::from_pem(&pem);
        builder = builder.identity(identity.with_context(|| format!("the certificate {path:?}"))?);
    }
    if let Some(path) = &tls.revocation_list {
        let lists = CertificateRevocationList::from_pem_bundle(&read(path)?);
        builder = builder.add_crls(lists.with_context(|| format!("the revocations in {path:?}"))?);
    }
    Ok(builder)
}

fn read(path: &str) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{path:?} cannot be read"))
}
