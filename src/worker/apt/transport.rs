//! apt's settings for transfers.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use apt_ostree::host::worker::transport::{
    Credential, SchemeSettings, TransferSettings, Transport, TransportRequest,
};
use apt_ostree_proto::{ErrorCode, Failure};
use rust_apt::config::{Config, ConfigTree};

use super::cache::shown;
use crate::output::Output;

/// Dumps the settings, and asks the proxy detection about each host once.
pub(crate) fn transport(request: TransportRequest, output: &Output) -> Result<Transport, Failure> {
    let config = Config::new();
    let mut detected = BTreeMap::new();
    for uri in request.uris {
        if let Some(proxy) = detect_proxy(&config, &uri, output) {
            detected.insert(uri, proxy);
        }
    }
    Ok(Transport {
        http: scheme(&config, "http"),
        https: scheme(&config, "https"),
        retries: u32::try_from(config.int("Acquire::Retries", 3)).unwrap_or(0),
        force_ipv4: config.bool("Acquire::ForceIPv4", false),
        force_ipv6: config.bool("Acquire::ForceIPv6", false),
        detected_proxies: detected,
        credentials: credentials(&config)?,
    })
}

/// One scheme's settings and those of its hosts. A child that has children is a host, but for
/// `Proxy`, whose children are the hosts' proxies.
fn scheme(config: &Config, name: &str) -> SchemeSettings {
    let prefix = format!("Acquire::{name}");
    let mut settings =
        SchemeSettings { general: settings_at(config, &prefix), hosts: BTreeMap::new() };
    for child in children(config, &prefix) {
        let Some(tag) = child.tag() else { continue };
        if tag.eq_ignore_ascii_case("proxy") {
            for host in child.child().into_iter().flatten() {
                if let (Some(host), Some(proxy)) = (host.tag(), host.value()) {
                    settings.hosts.entry(host).or_default().proxy = Some(proxy);
                }
            }
        } else if child.child().is_some() {
            let found = settings_at(config, &format!("{prefix}::{tag}"));
            let host = settings.hosts.entry(tag).or_default();
            let proxy = host.proxy.take().or(found.proxy.clone());
            *host = TransferSettings { proxy, ..found };
        }
    }
    settings
}

fn children(config: &Config, key: &str) -> Vec<ConfigTree> {
    let first = config.tree(key).and_then(|tree| tree.child());
    first.into_iter().flatten().collect()
}

fn settings_at(config: &Config, prefix: &str) -> TransferSettings {
    let text = |key: &str| config.get(&format!("{prefix}::{key}"));
    let number = |key: &str| text(key).and_then(|value| value.trim().parse().ok());
    let flag = |key: &str| text(key).map(|_| config.bool(&format!("{prefix}::{key}"), false));
    TransferSettings {
        proxy: text("Proxy"),
        timeout_seconds: number("Timeout"),
        user_agent: text("User-Agent"),
        download_limit_kib: number("Dl-Limit"),
        no_cache: flag("No-Cache"),
        allow_redirect: flag("AllowRedirect"),
        verify_peer: flag("Verify-Peer"),
        verify_host: flag("Verify-Host"),
        ca_info: text("CaInfo"),
        client_certificate: text("SslCert"),
        client_key: text("SslKey"),
        revocation_list: text("CrlFile"),
    }
}

/// Asks the configured program for a URI's proxy, as apt does: apt-transport-http(1). An explicit
/// proxy of that host goes before it; a program that fails has no opinion.
fn detect_proxy(config: &Config, uri: &str, output: &Output) -> Option<String> {
    let (scheme, rest) = uri.split_once("://")?;
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    if config.get(&format!("Acquire::{scheme}::Proxy::{host}")).is_some() {
        return None;
    }
    let program = ["Proxy-Auto-Detect", "ProxyAutoDetect"]
        .iter()
        .find_map(|key| config.get(&format!("Acquire::{scheme}::{key}")))?;
    let run = Command::new(&program).arg(uri).stdin(Stdio::null()).stderr(Stdio::null()).output();
    match run {
        Ok(run) if run.status.success() => {
            let text = String::from_utf8_lossy(&run.stdout);
            let proxy = text.lines().next().unwrap_or_default().trim();
            (!proxy.is_empty()).then(|| proxy.to_owned())
        }
        Ok(run) => {
            let program = shown(&program);
            output.warning(&format!("the proxy detection \"{program}\" failed: {}", run.status));
            None
        }
        Err(error) => {
            let program = shown(&program);
            output.warning(&format!("the proxy detection \"{program}\" did not start: {error}"));
            None
        }
    }
}

/// All entries of `auth.conf` and `auth.conf.d`, in apt's order.
fn credentials(config: &Config) -> Result<Vec<Credential>, Failure> {
    let mut files = vec![PathBuf::from(config.file("Dir::Etc::netrc", "/etc/apt/auth.conf"))];
    let parts = PathBuf::from(config.dir("Dir::Etc::netrcparts", "/etc/apt/auth.conf.d/"));
    let unreadable = |path: &Path, error: &io::Error| {
        Failure::caused(ErrorCode::Internal, &format!("{} cannot be read", path.display()), error)
    };
    match std::fs::read_dir(&parts) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(unreadable(&parts, &error)),
        Ok(entries) => {
            let mut found = Vec::new();
            for entry in entries {
                let path = entry.map_err(|error| unreadable(&parts, &error))?.path();
                if path.extension() == Some(OsStr::new("conf")) {
                    found.push(path);
                }
            }
            found.sort();
            files.extend(found);
        }
    }
    let mut credentials = Vec::new();
    for path in files {
        match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&path, &error)),
            Ok(text) => credentials.extend(parse_credentials(&text)),
        }
    }
    Ok(credentials)
}

/// Reads the netrc-like format of `apt_auth.conf(5)`: tokens in any layout, comments from `#`.
fn parse_credentials(text: &str) -> Vec<Credential> {
    let mut credentials: Vec<Credential> = Vec::new();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut tokens = lines.flat_map(str::split_whitespace);
    while let Some(token) = tokens.next() {
        match (token, credentials.last_mut()) {
            ("machine", _) => {
                let machine = tokens.next().unwrap_or_default().to_owned();
                let (login, password) = (String::new(), String::new());
                credentials.push(Credential { machine, login, password });
            }
            ("login", Some(entry)) => {
                tokens.next().unwrap_or_default().clone_into(&mut entry.login);
            }
            ("password", Some(entry)) => {
                tokens.next().unwrap_or_default().clone_into(&mut entry.password);
            }
            _ => {}
        }
    }
    credentials
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_in_any_layout() {
        let text = "# a comment\nmachine http://a.example/x login u password p\n\
                    machine b.example\n  login v\n  password #w\nmachine c.example";
        let found: Vec<(String, String, String)> = parse_credentials(text)
            .into_iter()
            .map(|entry| (entry.machine, entry.login, entry.password))
            .collect();
        let entry = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(
            found,
            [
                entry("http://a.example/x", "u", "p"),
                entry("b.example", "v", "#w"),
                entry("c.example", "", ""),
            ]
        );
    }
}
