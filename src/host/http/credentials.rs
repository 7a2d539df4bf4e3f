//! Whom `auth.conf` lets us be: `apt_auth.conf(5)`.

use reqwest::Url;

use crate::host::worker::transport::Credential;

/// The first entry that is meant for `url`. An entry without a scheme is for https alone, so that no
/// password goes over the network unencrypted unless the admin wrote `http://` before the host.
pub fn find<'a>(credentials: &'a [Credential], url: &Url) -> Option<&'a Credential> {
    credentials.iter().find(|credential| matches(&credential.machine, url))
}

fn matches(machine: &str, url: &Url) -> bool {
    let (scheme, rest) = machine.split_once("://").unwrap_or(("https", machine));
    if scheme != url.scheme() {
        return false;
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = url.host_str().unwrap_or("");
    let Some(port) = strip_prefix_ignoring_case(authority, host) else { return false };
    let port_matches = match port.strip_prefix(':') {
        // As apt has it: a port in the entry matches only a port that stands in the URI too.
        Some(port) => url.port().is_some_and(|of_url| port == of_url.to_string()),
        None => port.is_empty(),
    };
    port_matches && url.path().starts_with(path)
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    (!prefix.is_empty() && head.eq_ignore_ascii_case(prefix)).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_match_as_the_manual_says() {
        for (machine, uri, expected) in [
            ("example.org", "https://example.org/debian/x", true),
            ("example.org/deb", "https://example.org/debian/x", true),
            ("example.org/debian", "https://example.org/debian/x", true),
            ("example.org/debian/", "https://example.org/debian/x", true),
            ("example.org:443", "https://example.org/debian/x", false),
            ("example.org/deb/", "https://example.org/debian/x", false),
            ("example.org/ubuntu", "https://example.org/debian/x", false),
            ("example.orga", "https://example.org/debian/x", false),
            ("example.net", "https://example.org/debian/x", false),
            ("example.org", "https://example.orga/debian/x", false),
            ("example.org", "https://a.example.org/x", false),
            ("example.org", "http://example.org/x", false),
            ("http://example.org", "http://example.org/x", true),
            ("http://example.org", "https://example.org/x", false),
            ("Example.org:8443", "https://example.org:8443/x", true),
            ("example.org", "https://example.org:8443/x", true),
            ("example.org/a", "https://example.org/a/../b/x", false),
            ("", "https://example.org/x", false),
        ] {
            assert_eq!(matches(machine, &Url::parse(uri).unwrap()), expected, "{machine} {uri}");
        }
    }
}
