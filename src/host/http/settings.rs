//! What apt's settings say for one URI.
//!
//! The order is apt's: what is set for the host goes before what is set for all, and what is set for
//! https goes before what is set for http (proxies included, as apt 2.6 does).

use std::time::Duration;

use reqwest::Url;

use crate::host::worker::transport::{TransferSettings, Transport};

/// How long apt waits for a connection: apt.conf(5), `Acquire::http::Timeout`.
const DEFAULT_TIMEOUT_SECONDS: u64 = 30;
/// The longest wait for a connection that a configuration may ask for; more would outlast the step.
const LONGEST_TIMEOUT_SECONDS: u64 = 300;
/// The word for "no proxy".
const DIRECT: &str = "DIRECT";

/// The settings of one URI. Transfers with equal settings share a client, and its connections.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// The proxy's URI, with credentials.
    pub proxy: Option<String>,
    /// For making a connection.
    pub timeout: Duration,
    /// What we call ourselves.
    pub user_agent: String,
    /// Whether caches on the way are to be passed by.
    pub no_cache: bool,
    /// Whether redirects are followed.
    pub allow_redirect: bool,
    /// The address family to use, where only one may be.
    pub family: Option<Family>,
    /// For https, and for proxies that are spoken to by https; none where no certificate is looked
    /// at, so that the system's are not even read.
    pub tls: Option<Tls>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `Acquire::ForceIPv4`
    V4,
    /// `Acquire::ForceIPv6`
    V6,
}

/// Settings of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Whether the certificate's signatures are checked.
    pub verify_peer: bool,
    /// Whether the certificate has to be the host's.
    pub verify_host: bool,
    /// A file of certificates to trust instead of the system's.
    pub ca_info: Option<String>,
    /// A client certificate.
    pub client_certificate: Option<String>,
    /// Its key.
    pub client_key: Option<String>,
    /// Revoked certificates.
    pub revocation_list: Option<String>,
}

/// What the environment says about proxies.
#[derive(Clone, Default)]
pub struct Environment {
    /// `http_proxy`
    pub http_proxy: Option<String>,
    /// `https_proxy`
    pub https_proxy: Option<String>,
    /// `no_proxy`: domains that are asked directly, separated by commas.
    pub no_proxy: Option<String>,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            http_proxy: variable("http_proxy"),
            https_proxy: variable("https_proxy"),
            no_proxy: variable("no_proxy"),
        }
    }
}

// Proxies' URIs may carry passwords, which have no place in a log.
impl std::fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("proxied", &self.proxy.is_some())
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Environment")
            .field("no_proxy", &self.no_proxy)
            .finish_non_exhaustive()
    }
}

/// What `transport` says about `url`.
pub fn of(transport: &Transport, url: &Url, environment: &Environment) -> Settings {
    let layers = Layers::new(transport, url);
    let proxy = proxy(transport, &layers, url, environment);
    let timeout = layers.find(|of| of.timeout_seconds).unwrap_or(DEFAULT_TIMEOUT_SECONDS);
    let speaks_tls =
        url.scheme() == "https" || proxy.as_ref().is_some_and(|p| p.starts_with("https:"));
    let text = |of: fn(&TransferSettings) -> &Option<String>| {
        layers.find(|layer| of(layer).clone()).filter(|text| !text.is_empty())
    };
    Settings {
        proxy,
        timeout: Duration::from_secs(timeout.clamp(1, LONGEST_TIMEOUT_SECONDS)),
        user_agent: text(|of| &of.user_agent)
            .unwrap_or_else(|| concat!("apt-ostree/", env!("CARGO_PKG_VERSION")).to_owned()),
        no_cache: layers.find(|of| of.no_cache).unwrap_or(false),
        allow_redirect: layers.find(|of| of.allow_redirect).unwrap_or(true),
        family: match (transport.force_ipv4, transport.force_ipv6) {
            (true, _) => Some(Family::V4),
            (false, true) => Some(Family::V6),
            (false, false) => None,
        },
        tls: speaks_tls.then(|| Tls {
            verify_peer: layers.find(|of| of.verify_peer).unwrap_or(true),
            verify_host: layers.find(|of| of.verify_host).unwrap_or(true),
            ca_info: text(|of| &of.ca_info),
            client_certificate: text(|of| &of.client_certificate),
            client_key: text(|of| &of.client_key),
            revocation_list: text(|of| &of.revocation_list),
        }),
    }
}

/// The settings that concern a URI, what counts most first.
struct Layers<'a> {
    of_host: Vec<&'a TransferSettings>,
    general: Vec<&'a TransferSettings>,
}

impl<'a> Layers<'a> {
    fn new(transport: &'a Transport, url: &Url) -> Self {
        let host = url.host_str().unwrap_or("");
        let schemes = match url.scheme() {
            "https" => vec![&transport.https, &transport.http],
            _ => vec![&transport.http],
        };
        Self {
            of_host: schemes.iter().filter_map(|scheme| scheme.hosts.get(host)).collect(),
            general: schemes.iter().map(|scheme| &scheme.general).collect(),
        }
    }

    fn find<T>(&self, of: impl Fn(&TransferSettings) -> Option<T>) -> Option<T> {
        self.of_host.iter().chain(&self.general).find_map(|layer| of(layer))
    }
}

/// apt's order: the host's own setting, what the detection program said, the general setting, the
/// environment; and `no_proxy` above all.
fn proxy(
    transport: &Transport,
    layers: &Layers<'_>,
    url: &Url,
    environment: &Environment,
) -> Option<String> {
    let host = url.host_str().unwrap_or("");
    if environment.no_proxy.as_ref().is_some_and(|list| is_in_domains(host, list)) {
        return None;
    }
    let set = |layers: &[&TransferSettings]| layers.iter().find_map(|layer| layer.proxy.clone());
    let from_environment = || match url.scheme() {
        "https" => environment.https_proxy.clone(),
        _ => environment.http_proxy.clone(),
    };
    set(&layers.of_host)
        .or_else(|| detected(transport, url))
        .or_else(|| set(&layers.general).filter(|proxy| !proxy.is_empty()))
        .or_else(from_environment)
        .filter(|proxy| proxy != DIRECT && !proxy.is_empty())
}

fn detected(transport: &Transport, url: &Url) -> Option<String> {
    let same_host =
        |asked: &str| Url::parse(asked).is_ok_and(|asked| asked.origin() == url.origin());
    let found = transport.detected_proxies.iter().find(|(asked, _)| same_host(asked));
    found.map(|(_, proxy)| proxy.clone())
}

/// Whether a host is one of the domains, or below one.
fn is_in_domains(host: &str, list: &str) -> bool {
    list.split(',').map(str::trim).filter(|domain| !domain.is_empty()).any(|domain| {
        let domain = domain.trim_start_matches('.');
        host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::host::worker::transport::SchemeSettings;

    fn with_proxy(proxy: &str) -> TransferSettings {
        TransferSettings { proxy: Some(proxy.to_owned()), ..TransferSettings::default() }
    }

    fn transport() -> Transport {
        let hosts = [("near", with_proxy(DIRECT)), ("far", with_proxy("http://far-proxy:1"))];
        Transport {
            http: SchemeSettings {
                general: TransferSettings {
                    timeout_seconds: Some(7),
                    ..with_proxy("http://all:1")
                },
                hosts: hosts.map(|(host, settings)| (host.to_owned(), settings)).into(),
            },
            https: SchemeSettings {
                general: TransferSettings {
                    ca_info: Some("/ca.pem".to_owned()),
                    ..TransferSettings::default()
                },
                hosts: BTreeMap::from([(
                    "odd".to_owned(),
                    TransferSettings { verify_host: Some(false), ..TransferSettings::default() },
                )]),
            },
            detected_proxies: BTreeMap::from([
                ("http://seen/a.deb".to_owned(), "http://seen-proxy:1".to_owned()),
                ("http://far/a.deb".to_owned(), "http://not-this:1".to_owned()),
            ]),
            ..Transport::default()
        }
    }

    #[test]
    fn proxies_are_chosen_in_apts_order() {
        let environment = Environment {
            http_proxy: Some("http://env:1".to_owned()),
            https_proxy: None,
            no_proxy: Some("inside.example, .corp".to_owned()),
        };
        for (uri, proxy) in [
            ("http://mirror/x", Some("http://all:1")),
            ("https://mirror/x", Some("http://all:1")),
            ("http://near/x", None),
            ("http://far/x", Some("http://far-proxy:1")),
            ("http://seen/other", Some("http://seen-proxy:1")),
            ("http://inside.example/x", None),
            ("http://a.inside.example/x", None),
            ("http://outside.example/x", Some("http://all:1")),
            ("http://x.corp/x", None),
        ] {
            let url = Url::parse(uri).unwrap();
            assert_eq!(of(&transport(), &url, &environment).proxy.as_deref(), proxy, "{uri}");
        }
        let bare = Transport::default();
        let url = Url::parse("http://mirror/").unwrap();
        assert_eq!(of(&bare, &url, &environment).proxy.as_deref(), Some("http://env:1"));
    }

    #[test]
    fn https_takes_from_http_what_is_not_set_for_it() {
        let environment = Environment::default();
        let of = |uri| of(&transport(), &Url::parse(uri).unwrap(), &environment);
        let plain = of("http://near/");
        assert_eq!((plain.timeout.as_secs(), plain.tls.is_some()), (7, false));
        let secure = of("https://odd/");
        let tls = secure.tls.unwrap();
        assert_eq!(secure.timeout.as_secs(), 7);
        assert_eq!(tls.ca_info.as_deref(), Some("/ca.pem"));
        assert!(tls.verify_peer && !tls.verify_host);
        assert!(of("https://mirror/").tls.unwrap().verify_host);
    }
}
