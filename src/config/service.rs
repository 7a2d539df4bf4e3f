//! `[service."NAME"]`: what holds for one unit.

use std::time::Duration;

use apt_ostree_actors::health::{LONGEST_PROBE, LONGEST_SETTLE};
use apt_ostree_actors::port::{CheckLevel, Probe, Question};
use apt_ostree_proto::UnitPattern;
use apt_ostree_proto::strategy::Strategy;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use zbus::names::WellKnownName;

use super::rules::Complaint;
use super::unit_of;

/// How many probes a unit can have: each is asked every second or so.
const MOST_PROBES: usize = 16;

/// The longest from one attempt to the next, and the most attempts that have to succeed.
const LONGEST_INTERVAL_SECONDS: u64 = 60;
const MOST_SUCCESSES: u32 = 20;

/// Where a tcp probe connects to where nothing else is said.
const LOOPBACK: &str = "127.0.0.1";

/// `[service."NAME"]`, where NAME is a unit, a template or a pattern; the most precise counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Service {
    /// How the units get their new code; none leaves it to what else means them.
    pub strategy: Option<Strategy>,
    /// With `rolling`: units of one group go one by one. By default the instances of a template.
    pub group: Option<String>,
    /// How one unit is asked whether it is ready. A later fragment's list takes the place of an earlier one's.
    pub probes: Vec<ProbeSettings>,
}

/// What a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeKind {
    /// Whether a port accepts connections.
    Tcp,
    /// Whether a URL is answered with the right status.
    Http,
    /// Whether a name on the system bus has an owner that answers.
    Dbus,
    /// Whether a command ends with success.
    Command,
}

/// One probe: `{ kind = "tcp", port = 80 }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProbeSettings {
    /// What it asks; the four kinds have what follows.
    pub kind: ProbeKind,
    /// tcp: a name or an address, 127.0.0.1 without it.
    #[serde(default)]
    pub address: Option<String>,
    /// tcp: the port.
    #[serde(default)]
    pub port: Option<u16>,
    /// http: where; `https:` too, with the host's certificates.
    #[serde(default)]
    pub url: Option<String>,
    /// http: the status of the answer; 200 to 299 without it.
    #[serde(default)]
    pub status: Option<u16>,
    /// dbus: the well-known name.
    #[serde(default)]
    pub name: Option<String>,
    /// command: the program's whole path, and its arguments.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// Whether an update is put back when it fails, or only warned of.
    #[serde(default)]
    pub level: CheckLevel,
    /// How long one attempt may take.
    #[serde(default = "five")]
    pub timeout_seconds: u64,
    /// How long it is from one attempt to the next.
    #[serde(default = "one")]
    pub interval_seconds: u64,
    /// How many attempts have to succeed one after the other.
    #[serde(default = "three")]
    pub successes: u32,
    /// How long, after the dwell time, that may take.
    #[serde(default = "thirty")]
    pub settle_seconds: u64,
}

fn one() -> u64 {
    1
}

fn three() -> u32 {
    3
}

fn five() -> u64 {
    5
}

fn thirty() -> u64 {
    30
}

impl Service {
    /// What is wrong with it.
    pub(super) fn complaints(&self, units: &UnitPattern) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        if self.group.is_some() && self.strategy != Some(Strategy::Rolling) {
            let text =
                format!("service.\"{units}\".group is of use only with strategy = \"rolling\"");
            complaints.push(Complaint::new(&["service", units.as_str(), "group"], text));
        }
        let key = ["service", units.as_str(), "probes"];
        if unit_of(units).is_none() && !self.probes.is_empty() {
            let text = format!("\"{units}\" means several units: only a single unit has probes");
            complaints.push(Complaint::new(&key, text));
        }
        if self.probes.len() > MOST_PROBES {
            let text = format!("{units} has more than {MOST_PROBES} probes");
            complaints.push(Complaint::new(&key, text));
        }
        for (index, probe) in self.probes.iter().enumerate() {
            if let Some(text) = probe.complaint() {
                let index = index.to_string();
                complaints.push(Complaint::new(&[key[0], key[1], key[2], &index], text));
            }
        }
        complaints
    }
}

impl ProbeSettings {
    /// The probe; none where something is missing, which the configuration's check says.
    pub(super) fn probe(&self) -> Option<Probe> {
        let seconds = Duration::from_secs;
        Some(Probe {
            question: self.question()?,
            level: self.level,
            timeout: seconds(self.timeout_seconds),
            interval: seconds(self.interval_seconds),
            successes: self.successes,
            settle: seconds(self.settle_seconds),
        })
    }

    fn question(&self) -> Option<Question> {
        Some(match self.kind {
            ProbeKind::Tcp => Question::Tcp {
                address: self.address.clone().unwrap_or_else(|| LOOPBACK.to_owned()),
                port: self.port?,
            },
            ProbeKind::Http => Question::Http { url: self.url.clone()?, status: self.status },
            ProbeKind::Dbus => Question::Dbus { name: self.name.clone()? },
            ProbeKind::Command => Question::Command { arguments: self.command.clone()? },
        })
    }

    fn complaint(&self) -> Option<String> {
        let kind = match self.kind {
            ProbeKind::Tcp => "tcp",
            ProbeKind::Http => "http",
            ProbeKind::Dbus => "dbus",
            ProbeKind::Command => "command",
        };
        if let Some(other) = self.of_another_kind() {
            return Some(format!("a {kind} probe has no {other}"));
        }
        let what = match self.question() {
            None => Some(match self.kind {
                ProbeKind::Tcp => "needs a port",
                ProbeKind::Http => "needs a url",
                ProbeKind::Dbus => "needs a name",
                ProbeKind::Command => "needs a command",
            }),
            Some(question) => wrong_with(&question),
        };
        if let Some(what) = what {
            return Some(format!("a {kind} probe {what}"));
        }
        self.wrong_number()
    }

    fn of_another_kind(&self) -> Option<&'static str> {
        use ProbeKind::{Command, Dbus, Http, Tcp};
        [
            ("address", self.address.is_some(), Tcp),
            ("port", self.port.is_some(), Tcp),
            ("url", self.url.is_some(), Http),
            ("status", self.status.is_some(), Http),
            ("name", self.name.is_some(), Dbus),
            ("command", self.command.is_some(), Command),
        ]
        .into_iter()
        .find(|(_, is_there, kind)| *is_there && *kind != self.kind)
        .map(|(name, ..)| name)
    }

    fn wrong_number(&self) -> Option<String> {
        let successes = (u64::from(self.successes), u64::from(MOST_SUCCESSES));
        [
            ("timeout-seconds", 1, self.timeout_seconds, LONGEST_PROBE.as_secs()),
            ("interval-seconds", 1, self.interval_seconds, LONGEST_INTERVAL_SECONDS),
            ("successes", 1, successes.0, successes.1),
            ("settle-seconds", 0, self.settle_seconds, LONGEST_SETTLE.as_secs()),
        ]
        .into_iter()
        .find(|(_, least, value, most)| !(*least..=*most).contains(value))
        .map(|(name, least, value, most)| {
            format!("a probe's {name} must be {least} to {most}; it is {value}")
        })
    }
}

fn wrong_with(question: &Question) -> Option<&'static str> {
    match question {
        Question::Tcp { port: 0, .. } => Some("cannot connect to port 0"),
        Question::Tcp { address, .. } if address.is_empty() => Some("needs an address, or none"),
        Question::Http { url, status } => {
            let is_usable = Url::parse(url)
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            if !is_usable {
                Some("needs a url with a host that begins with http:// or https://")
            } else if status.is_some_and(|status| !(100..600).contains(&status)) {
                Some("needs a status from 100 to 599, or none")
            } else {
                None
            }
        }
        Question::Dbus { name } if WellKnownName::try_from(name.as_str()).is_err() => {
            Some("needs a well-known bus name, such as org.example.Name1")
        }
        Question::Command { arguments } => {
            let is_absolute = arguments.first().is_some_and(|program| program.starts_with('/'));
            let has_nul = arguments.iter().any(|argument| argument.contains('\0'));
            if !is_absolute {
                Some("needs a program with its absolute path")
            } else if has_nul {
                Some("has an argument that no program can be given")
            } else {
                None
            }
        }
        Question::Tcp { .. } | Question::Dbus { .. } => None,
    }
}
