//! What values can be.

use std::ops::RangeInclusive;

use apt_ostree_actors::health::LONGEST_DWELL;
use apt_ostree_actors::journal::UPDATES_KEPT;
use apt_ostree_proto::request::{
    LONGEST_CONFIRM_TIMEOUT_SECONDS, SHORTEST_CONFIRM_TIMEOUT_SECONDS, is_confirm_timeout,
};

use super::{Config, Download, Test};

/// What is wrong with a value, and which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// The way to it: names of tables, and numbers within arrays.
    pub(super) key: Vec<String>,
    /// What is wrong.
    pub(super) text: String,
}

impl Complaint {
    pub(super) fn new(key: &[&str], text: impl Into<String>) -> Self {
        Self { key: key.iter().map(|part| (*part).to_owned()).collect(), text: text.into() }
    }
}

/// Everything that is wrong with a configuration.
pub(super) fn complaints(config: &Config) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    download(config, &mut complaints);
    let mut number = |key: [&str; 2], value: u64, range: RangeInclusive<u64>| {
        if !range.contains(&value) {
            let (name, first, last) = (key.join("."), range.start(), range.end());
            let range =
                if *first == 0 { format!("at most {last}") } else { format!("{first} to {last}") };
            complaints.push(Complaint::new(&key, format!("{name} must be {range}; it is {value}")));
        }
    };
    number(["install", "longest-seconds"], config.install.longest_seconds, 1..=3 * 60 * 60);
    number(["health", "dwell-seconds"], config.health.dwell_seconds, 0..=LONGEST_DWELL.as_secs());
    number(["health", "hook-timeout-seconds"], config.health.hook_timeout_seconds, 1..=120);
    let kept = u64::from(config.rollback.keep_updates);
    number(["rollback", "keep-updates"], kept, 1..=u64::from(UPDATES_KEPT - 1));
    if !is_confirm_timeout(config.rollback.confirm_timeout_seconds) {
        let text = format!(
            "rollback.confirm-timeout-seconds must be {SHORTEST_CONFIRM_TIMEOUT_SECONDS} to \
             {LONGEST_CONFIRM_TIMEOUT_SECONDS}, or 0 for no confirmation"
        );
        complaints.push(Complaint::new(&["rollback", "confirm-timeout-seconds"], text));
    }
    for (units, paths) in &config.services.reads {
        if let Some(path) = paths.iter().find(|path| !path.is_absolute()) {
            let text =
                format!("services.reads must be absolute paths; \"{}\" is none", path.display());
            complaints.push(Complaint::new(&["services", "reads", units.as_str()], text));
        }
    }
    for (name, test) in &config.install.test {
        complaints.extend(install_test(name, test));
    }
    for (units, service) in &config.service {
        complaints.extend(service.complaints(units));
    }
    complaints
}

fn install_test(name: &str, test: &Test) -> Option<Complaint> {
    let complain = |key: &str, text: &str| {
        let key = ["install", "test", name, key];
        Some(Complaint::new(&key, format!("install.test.{name} {text}")))
    };
    if !(1..=600).contains(&test.timeout_seconds()) {
        return complain("timeout-seconds", "must have timeout-seconds of 1 to 600");
    }
    let program = test.command.first()?;
    if !program.starts_with('/') || test.command.iter().any(|argument| argument.contains('\0')) {
        return complain("command", "needs a program with its absolute path");
    }
    if test.packages.is_empty() {
        return complain("packages", "needs packages, whose changes it is run for");
    }
    None
}

fn download(config: &Config, complaints: &mut Vec<Complaint>) {
    let Download { connections, connections_per_host, stall_seconds, attempts } = config.download;
    if !(1..=64).contains(&connections) || !(1..=connections).contains(&connections_per_host) {
        let text = format!(
            "download.connections must be 1 to 64 and download.connections-per-host 1 to \
             connections; they are {connections} and {connections_per_host}"
        );
        complaints.push(Complaint::new(&["download", "connections"], text));
    }
    if !(1..=600).contains(&stall_seconds) || !(1..=100).contains(&attempts) {
        let text = format!(
            "download.stall-seconds must be 1 to 600 and download.attempts 1 to 100; they are \
             {stall_seconds} and {attempts}"
        );
        complaints.push(Complaint::new(&["download", "stall-seconds"], text));
    }
}
