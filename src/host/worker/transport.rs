//! apt's settings for transfers, as the worker's `transport` task dumps them: apt.conf(5),
//! apt-transport-http(1), apt-transport-https(1), `apt_auth.conf(5)`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the `transport` task is asked: the hosts that will be spoken to, since apt's proxy detection
/// is a program that is asked for each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportRequest {
    /// URIs, of which scheme and host matter. May be empty: then no proxy is detected.
    pub uris: Vec<String>,
}

/// apt's settings for transfers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transport {
    /// `Acquire::http` with its hosts.
    pub http: SchemeSettings,
    /// `Acquire::https` with its hosts. What is not set there is taken from `http`, as apt does for
    /// all but the proxy.
    pub https: SchemeSettings,
    /// `Acquire::Retries`: how often a failed transfer is tried again.
    pub retries: u32,
    /// `Acquire::ForceIPv4`
    pub force_ipv4: bool,
    /// `Acquire::ForceIPv6`
    pub force_ipv6: bool,
    /// What `Acquire::http::Proxy-Auto-Detect` said, by the URI that was asked for: a proxy's URI, or
    /// `DIRECT`. A URI that it had no opinion on is missing.
    pub detected_proxies: BTreeMap<String, String>,
    /// The entries of `auth.conf` and `auth.conf.d/*.conf`, in the order in which apt reads them.
    /// The first that matches is used.
    pub credentials: Vec<Credential>,
}

/// The settings of one scheme.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemeSettings {
    /// Those of all hosts.
    pub general: TransferSettings,
    /// Those of single hosts (`Acquire::https::HOST::…`), which go before the general ones.
    pub hosts: BTreeMap<String, TransferSettings>,
}

/// Settings of a scheme or of a host; `None` where nothing is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferSettings {
    /// `Proxy`: a URI, or `DIRECT` for none. The environment's `http_proxy` counts only if this is
    /// not set.
    pub proxy: Option<String>,
    /// `Timeout`, in seconds, for connecting and for a stalled transfer.
    pub timeout_seconds: Option<u64>,
    /// `User-Agent`
    pub user_agent: Option<String>,
    /// `Dl-Limit`, in KiB a second.
    pub download_limit_kib: Option<u64>,
    /// `No-Cache`
    pub no_cache: Option<bool>,
    /// `AllowRedirect`
    pub allow_redirect: Option<bool>,
    /// `Verify-Peer`
    pub verify_peer: Option<bool>,
    /// `Verify-Host`
    pub verify_host: Option<bool>,
    /// `CaInfo`: a file of certificates to trust instead of the system's.
    pub ca_info: Option<String>,
    /// `SslCert`: a client certificate.
    pub client_certificate: Option<String>,
    /// `SslKey`: its key.
    pub client_key: Option<String>,
    /// `CrlFile`: revoked certificates.
    pub revocation_list: Option<String>,
}

/// One entry of `auth.conf`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// `machine`: `[scheme://]host[:port][/path]`, as it stands there. Without a scheme it is for
    /// https alone, as apt has it since 1.9.
    pub machine: String,
    /// `login`
    pub login: String,
    /// `password`
    pub password: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A password has no place in a log.
        formatter.debug_struct("Credential").field("machine", &self.machine).finish_non_exhaustive()
    }
}
