//! What the shims recorded, as requests: systemctl(1), deb-systemd-invoke(1p), invoke-rc.d(8),
//! service(8).

use apt_ostree_proto::service::{ScriptRequest, ScriptVerb};
use apt_ostree_proto::{UnitName, UnitPattern};

/// Between the fields of a record: no argument holds it but on purpose.
pub(super) const FIELD_END: u8 = 0x1f;
/// After a record.
pub(super) const RECORD_END: u8 = 0x1e;
/// The longest text of a hostile script that a warning quotes.
const LONGEST_QUOTE: usize = 120;

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    /// The requests, in their order.
    pub(super) requests: Vec<ScriptRequest>,
    /// Records that make no sense, quoted.
    pub(super) unread: Vec<String>,
}

/// Reads the records.
pub(super) fn parse(records: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    for record in records.split(|byte| *byte == RECORD_END).filter(|record| !record.is_empty()) {
        let text = String::from_utf8_lossy(record);
        let mut fields: Vec<&str> = text.split(char::from(FIELD_END)).collect();
        // Each field has an end, so there is nothing behind the last one.
        fields.pop();
        let read = match fields.as_slice() {
            [tool, package, script, arguments @ ..] => call(tool, arguments).map(|calls| {
                calls.into_iter().map(|(verb, named)| {
                    let (unit, units) = match named {
                        Some(Named::Unit(unit)) => (Some(unit), None),
                        Some(Named::Units(units)) => (None, Some(units)),
                        None => (None, None),
                    };
                    let (package, script) = ((*package).to_owned(), (*script).to_owned());
                    ScriptRequest { package, script, verb, unit, units }
                })
            }),
            _ => None,
        };
        match read {
            Some(requests) => parsed.requests.extend(requests),
            None => parsed.unread.push(quote(&fields.join(" "))),
        }
    }
    parsed
}

type Calls = Vec<(ScriptVerb, Option<Named>)>;

/// What a call is about.
enum Named {
    Unit(UnitName),
    Units(UnitPattern),
}

/// What one call asks for; none when it makes no sense.
fn call(tool: &str, arguments: &[&str]) -> Option<Calls> {
    let mut words = words(arguments);
    match tool {
        "systemctl" | "deb-systemd-invoke" => {
            let verb = words.next()?;
            if let Some(verb) = manager_verb(verb) {
                return Some(vec![(verb, None)]);
            }
            let verb = verb_of(verb)?;
            words.map(|name| Some((verb, Some(named(name)?)))).collect()
        }
        // `service --status-all` asks, and does not wish.
        "invoke-rc.d" | "service" => {
            let name = words.next()?;
            let verb = verb_of(words.next()?)?;
            Some(vec![(verb, Some(Named::Unit(UnitName::parse(full(name)).ok()?)))])
        }
        _ => None,
    }
}

/// The arguments that are no options, nor values of options.
fn words<'a>(arguments: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let mut takes_value = false;
    let mut only_words = false;
    arguments.iter().copied().filter(move |argument| {
        if std::mem::take(&mut takes_value) {
            return false;
        }
        if only_words || !argument.starts_with('-') {
            return true;
        }
        only_words = *argument == "--";
        takes_value = matches!(*argument, "-t" | "-p" | "-s" | "-n" | "-o" | "-H" | "-M")
            || matches!(*argument, "--type" | "--property" | "--signal" | "--kill-whom" | "--root");
        false
    })
}

fn manager_verb(verb: &str) -> Option<ScriptVerb> {
    match verb {
        "daemon-reload" => Some(ScriptVerb::DaemonReload),
        "daemon-reexec" => Some(ScriptVerb::DaemonReexec),
        _ => None,
    }
}

fn verb_of(verb: &str) -> Option<ScriptVerb> {
    Some(match verb {
        "start" => ScriptVerb::Start,
        "stop" => ScriptVerb::Stop,
        // `upgrade` is what some init scripts call the exchange of a running program.
        "restart" | "upgrade" => ScriptVerb::Restart,
        "try-restart" | "condrestart" => ScriptVerb::TryRestart,
        "reload" => ScriptVerb::Reload,
        "reload-or-restart" | "force-reload" => ScriptVerb::ReloadOrRestart,
        "try-reload-or-restart" | "reload-or-try-restart" => ScriptVerb::TryReloadOrRestart,
        _ => return None,
    })
}

/// A unit, or a pattern.
fn named(name: &str) -> Option<Named> {
    let full = full(name);
    match UnitName::parse(full.as_str()) {
        Ok(unit) => Some(Named::Unit(unit)),
        Err(_) => UnitPattern::parse(full).ok().map(Named::Units),
    }
}

/// systemctl(1) takes a name without a suffix for a service's.
fn full(name: &str) -> String {
    const SUFFIXES: &[&str] = &[
        "service",
        "socket",
        "device",
        "mount",
        "automount",
        "swap",
        "target",
        "path",
        "timer",
        "slice",
        "scope",
    ];
    let has_suffix = name.rsplit_once('.').is_some_and(|(_, suffix)| SUFFIXES.contains(&suffix));
    if has_suffix { name.to_owned() } else { format!("{name}.service") }
}

fn quote(text: &str) -> String {
    let plain: String = text.chars().take(LONGEST_QUOTE).flat_map(char::escape_debug).collect();
    format!("\"{plain}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &[&str]) -> Vec<u8> {
        let mut record = Vec::new();
        for field in fields {
            record.extend(field.as_bytes());
            record.push(FIELD_END);
        }
        record.push(RECORD_END);
        record
    }

    fn shown(fields: &[&str]) -> Vec<String> {
        let parsed = parse(&record(fields));
        let mut shown: Vec<String> = parsed
            .requests
            .iter()
            .map(|request| {
                let unit = request.unit.as_ref().map_or("", UnitName::as_str);
                let units = request.units.as_ref().map_or("", UnitPattern::as_str);
                format!("{:?} {unit}{units}", request.verb)
            })
            .collect();
        shown.extend(parsed.unread.iter().map(|text| format!("unread {text}")));
        shown
    }

    #[test]
    fn calls_are_read_as_the_tools_read_them() {
        for (fields, expected) in [
            (
                &["systemctl", "a", "postinst", "--system", "daemon-reload"][..],
                &["DaemonReload "][..],
            ),
            (&["systemctl", "a", "postinst", "daemon-reexec"], &["DaemonReexec "]),
            (
                &["deb-systemd-invoke", "a", "postinst", "restart", "nginx.service"],
                &["Restart nginx.service"],
            ),
            (
                &[
                    "deb-systemd-invoke",
                    "a",
                    "postinst",
                    "start",
                    "rescue-ssh.target",
                    "ssh.socket",
                ],
                &["Start rescue-ssh.target", "Start ssh.socket"],
            ),
            (&["invoke-rc.d", "a", "prerm", "--quiet", "ssh", "stop"], &["Stop ssh.service"]),
            (
                &["service", "a", "postinst", "cron", "force-reload"],
                &["ReloadOrRestart cron.service"],
            ),
            (
                &["systemctl", "a", "postinst", "-q", "try-restart", "systemd-journald"],
                &["TryRestart systemd-journald.service"],
            ),
            (
                &["systemctl", "a", "postinst", "restart", "--", "my.daemon"],
                &["Restart my.daemon.service"],
            ),
            (&["systemctl", "a", "postinst", "-s", "KILL", "stop", "x"], &["Stop x.service"]),
            // All clusters of one version, as postgresql's scripts have it.
            (
                &["deb-systemd-invoke", "a", "prerm", "stop", "postgresql@15-*"],
                &["Stop postgresql@15-*.service"],
            ),
            (
                &["deb-systemd-invoke", "a", "postinst", "--user", "restart", "p.service"],
                &["Restart p.service"],
            ),
        ] {
            assert_eq!(shown(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn hostile_names_become_no_requests() {
        for name in ["", "a b", "../x", "-x", "a\nb.service", "$(x)", "*", &"x".repeat(10_000)] {
            let fields = ["systemctl", "a", "postinst", "restart", "--", name];
            let parsed = parse(&record(&fields));
            assert!(parsed.requests.is_empty(), "{name:?}");
            assert!(parsed.unread[0].len() < 2 * LONGEST_QUOTE, "{name:?}");
        }
    }

    #[test]
    fn a_cut_record_is_told_and_the_others_are_read() {
        let mut records = b"systemctl".to_vec();
        records.push(RECORD_END);
        records.extend(record(&["systemctl", "a", "prerm", "stop", "x.socket"]));
        let parsed = parse(&records);
        assert_eq!(parsed.requests.len(), 1);
        assert_eq!(parsed.requests[0].script, "prerm");
        assert_eq!(parsed.unread.len(), 1);
    }
}
