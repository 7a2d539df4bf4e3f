//! Configuration: TOML fragments, merged in order, checked whole.
//!
//! Read are `/usr/lib/apt-ostree/config.d/*.toml`, `/etc/apt-ostree/config.toml` and
//! `/etc/apt-ostree/config.d/*.toml`, in this order and by name; a later value wins. An unknown key
//! is an error, for a setting that is silently ignored is worse than one that is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use apt_ostree_actors::journal::UPDATES_KEPT;
use apt_ostree_actors::service::{Strategies, StrategyRule};
use apt_ostree_proto::request::{
    LONGEST_CONFIRM_TIMEOUT_SECONDS, SHORTEST_CONFIRM_TIMEOUT_SECONDS, is_confirm_timeout,
};
use apt_ostree_proto::strategy::Strategy;
use apt_ostree_proto::{ErrorCode, Failure, UnitPattern};
use serde::Deserialize;
use toml::{Table, Value};

/// Where fragments are, below the root.
const DIRECTORIES: &[&str] = &["usr/lib/apt-ostree/config.d", "etc/apt-ostree/config.d"];
/// The admin's main file; read between the two directories.
const MAIN_FILE: &str = "etc/apt-ostree/config.toml";

/// The longest explanation of what is not usable: a line of it and what is wrong there.
const LONGEST_REASON: usize = 600;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Downloads.
    pub download: Download,
    /// Installations.
    pub install: Install,
    /// Health checks.
    pub health: Health,
    /// Services.
    pub services: Services,
    /// `[service."NAME"]`: what holds for some units.
    pub service: BTreeMap<UnitPattern, Service>,
    /// Rollbacks.
    pub rollback: Rollback,
    /// The daemon itself.
    pub daemon: Daemon,
}

/// `[download]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Download {
    /// Connections in all.
    pub connections: u16,
    /// Connections to one host.
    pub connections_per_host: u16,
    /// After how many seconds without a byte a mirror is given up, or asked again.
    pub stall_seconds: u64,
    /// How often all mirrors are asked in vain before a package is given up.
    pub attempts: u32,
}

impl Default for Download {
    fn default() -> Self {
        Self { connections: 16, connections_per_host: 16, stall_seconds: 20, attempts: 5 }
    }
}

/// `[install]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Install {
    /// After how many seconds an installation that is not done is ended and put back: the largest
    /// updates take minutes on slow disks, and a script that waits for ever takes this long.
    pub longest_seconds: u64,
}

impl Default for Install {
    fn default() -> Self {
        Self { longest_seconds: 2 * 60 * 60 }
    }
}

/// `[health]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Health {
    /// How long touched units must stay healthy, in seconds.
    pub dwell_seconds: u64,
}

impl Default for Health {
    fn default() -> Self {
        Self { dwell_seconds: 5 }
    }
}

/// `[services]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Services {
    /// Units that no update and no rollback restarts, whatever asks for it: `db.service`, or all
    /// instances of a template, `db@.service`. They run on with the code that they have, are
    /// reported as left, and take the new code at the next boot.
    pub never_restart: Vec<UnitPattern>,
    /// What units read besides what is known of them, by unit, template or pattern: absolute paths of
    /// files, and of directories with all that is in them.
    pub reads: BTreeMap<UnitPattern, Vec<PathBuf>>,
}

/// `[service."NAME"]`, where NAME is a unit, a template or a pattern; the most precise counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Service {
    /// How the units get their new code.
    pub strategy: Strategy,
    /// With `rolling`: units of one group go one by one. By default the instances of a template.
    pub group: Option<String>,
}

/// `[rollback]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rollback {
    /// How many updates can be undone; their trees stay on the disk, where they take the space of
    /// the files in which they differ.
    pub keep_updates: u32,
    /// How many bytes these trees may occupy beside what is deployed and what has a name; the oldest
    /// go first, and the newest update can be undone in any case. Without it there is no limit.
    pub keep_bytes: Option<u64>,
    /// For how many seconds every update waits for `apt-ostree confirm` before it is put back; 0: none
    /// does, unless `--confirm-timeout` asks for it.
    pub confirm_timeout_seconds: u32,
}

impl Default for Rollback {
    fn default() -> Self {
        Self { keep_updates: 5, keep_bytes: None, confirm_timeout_seconds: 0 }
    }
}

/// `[daemon]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Daemon {
    /// After how many seconds without a call the daemon exits; the bus starts it again.
    pub idle_exit_seconds: u64,
}

impl Default for Daemon {
    fn default() -> Self {
        Self { idle_exit_seconds: 60 }
    }
}

impl Config {
    /// Loads the configuration of the host whose root is `root`. `InvalidConfiguration` when a fragment
    /// cannot be read or used; it is named, with the line where there is one.
    pub fn load(root: &Path) -> Result<Self, Failure> {
        Self::read(root).map_err(|error| {
            let text = format!("the configuration is not usable: {}", one_line(&error));
            Failure::new(ErrorCode::InvalidConfiguration, text)
        })
    }

    fn read(root: &Path) -> anyhow::Result<Self> {
        let mut merged = Table::new();
        for path in fragments(root)? {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            // Each fragment is checked by itself first, so that an error names its file and line.
            parse(&text).with_context(|| path.display().to_string())?;
            merge(&mut merged, toml::from_str(&text)?);
        }
        let config: Self = Value::Table(merged).try_into()?;
        config.check()?;
        Ok(config)
    }

    /// How long touched units must stay healthy.
    pub fn dwell(&self) -> Duration {
        Duration::from_secs(self.health.dwell_seconds)
    }

    /// For how long an update waits for its confirmation where nobody says otherwise.
    pub fn confirm_timeout(&self) -> Option<Duration> {
        let seconds = self.rollback.confirm_timeout_seconds;
        (seconds != 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// How units get their new code, where that is set.
    pub fn strategies(&self) -> Strategies {
        let never = |unit: &UnitPattern| StrategyRule {
            units: unit.clone(),
            strategy: Strategy::Never,
            group: None,
        };
        let configured = |(units, service): (&UnitPattern, &Service)| StrategyRule {
            units: units.clone(),
            strategy: service.strategy,
            group: service.group.clone(),
        };
        let vetoes = self.services.never_restart.iter().map(never);
        Strategies::new(vetoes.chain(self.service.iter().map(configured)).collect())
    }

    fn check(&self) -> anyhow::Result<()> {
        let Download { connections, connections_per_host, stall_seconds, attempts } = self.download;
        if !(1..=64).contains(&connections) || !(1..=connections).contains(&connections_per_host) {
            bail!(
                "download.connections must be 1 to 64 and download.connections-per-host 1 to \
                 connections; they are {connections} and {connections_per_host}"
            );
        }
        if !(1..=600).contains(&stall_seconds) || !(1..=100).contains(&attempts) {
            bail!(
                "download.stall-seconds must be 1 to 600 and download.attempts 1 to 100; they are \
                 {stall_seconds} and {attempts}"
            );
        }
        if !(1..=3 * 60 * 60).contains(&self.install.longest_seconds) {
            bail!("install.longest-seconds must be 1 to 10800");
        }
        if let Some(path) = self.services.reads.values().flatten().find(|path| !path.is_absolute())
        {
            bail!("services.reads must be absolute paths; \"{}\" is none", path.display());
        }
        if self.health.dwell_seconds > 3_600 {
            bail!("health.dwell-seconds must be at most 3600");
        }
        if !(1..UPDATES_KEPT).contains(&self.rollback.keep_updates) {
            bail!("rollback.keep-updates must be 1 to {}", UPDATES_KEPT - 1);
        }
        if !is_confirm_timeout(self.rollback.confirm_timeout_seconds) {
            bail!(
                "rollback.confirm-timeout-seconds must be {SHORTEST_CONFIRM_TIMEOUT_SECONDS} to \
                 {LONGEST_CONFIRM_TIMEOUT_SECONDS}, or 0 for no confirmation"
            );
        }
        for (units, service) in &self.service {
            if service.group.is_some() && service.strategy != Strategy::Rolling {
                bail!("service.\"{units}\".group is of use only with strategy = \"rolling\"");
            }
        }
        Ok(())
    }
}

/// The parser draws the line that is wrong, with an arrow below; one line has to do.
fn one_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}").replace(|c: char| c.is_control(), " ");
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(LONGEST_REASON).collect()
}

/// Reads one fragment.
fn parse(text: &str) -> Result<Config, toml::de::Error> {
    toml::from_str(text)
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(more)) => merge(inner, more),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// The fragments that are there, in the order in which they are merged.
fn fragments(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for (index, directory) in DIRECTORIES.iter().enumerate() {
        if index == 1 {
            paths.extend(Some(root.join(MAIN_FILE)).filter(|path| path.exists()));
        }
        let directory = root.join(directory);
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", directory.display()));
            }
        };
        let mut here = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| format!("cannot read {}", directory.display()))?;
        here.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        here.sort();
        paths.append(&mut here);
    }
    Ok(paths)
}

/// Reads these bytes as a fragment, and merges it with itself.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(config) = parse(&text) {
        drop(config.check());
        let table: Table = toml::from_str(&text).expect("it was read before");
        let mut merged = table.clone();
        merge(&mut merged, table.clone());
        assert_eq!(merged, table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn without_a_file_the_defaults_hold() {
        assert_eq!(Config::load(root(&[]).path()).unwrap(), Config::default());
    }

    #[test]
    fn what_is_shipped_defers_what_a_restart_would_hurt() {
        let shipped = include_str!("../debian/services.toml");
        let own = "[service.\"postgresql@main.service\"]\nstrategy = \"automatic\"";
        let root = root(&[
            ("usr/lib/apt-ostree/config.d/10-services.toml", shipped),
            ("etc/apt-ostree/config.toml", own),
        ]);
        let strategies = Config::load(root.path()).unwrap().strategies();
        for (name, expected) in [
            ("postgresql@15.service", Some(Strategy::Defer)),
            ("postgresql@main.service", Some(Strategy::Automatic)),
            ("libvirtd.socket", Some(Strategy::Defer)),
            ("strongswan-starter.service", Some(Strategy::Defer)),
            ("nginx.service", None),
            ("ssh.service", None),
        ] {
            let unit = name.parse().unwrap();
            assert_eq!(strategies.strategy(&unit), expected, "{name}");
        }
    }

    #[test]
    fn a_later_fragment_wins_key_by_key() {
        let root = root(&[
            (
                "usr/lib/apt-ostree/config.d/50.toml",
                "[download]\nconnections = 8\nconnections-per-host = 2",
            ),
            ("etc/apt-ostree/config.toml", "[download]\nconnections = 4"),
            ("etc/apt-ostree/config.d/10.toml", "[health]\ndwell-seconds = 9"),
        ]);
        let config = Config::load(root.path()).unwrap();
        assert_eq!(
            config.download,
            Download { connections: 4, connections_per_host: 2, ..Download::default() }
        );
        assert_eq!(config.dwell(), Duration::from_secs(9));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_file() {
        for text in [
            "[download]\nconections = 3",
            "[health]\ndwell-seconds = \"x\"",
            "[",
            "[download]\nconnections = 0",
            "[download]\nstall-seconds = 0",
            "[services.reads]\n\"a.service\" = [\"etc/a\"]",
            "[services.reads]\nnginx = [\"/etc/a\"]",
            "[rollback]\nkeep-updates = 0",
            "[rollback]\nconfirm-timeout-seconds = 4",
            "[rollback]\nkeep-bytes = -1",
            "[rollback]\nkeep-bytes = \"2 GB\"",
            "[service.\"a.service\"]\nstrategy = \"later\"",
            "[service.\"a\"]\nstrategy = \"never\"",
            "[service.\"*.service\"]\nstrategy = \"never\"",
            "\u{1b}[2J = 3",
            &"x".repeat(10_000),
        ] {
            let root = root(&[("etc/apt-ostree/config.toml", text)]);
            let failure = Config::load(root.path()).unwrap_err();
            assert_eq!(failure.code, ErrorCode::InvalidConfiguration);
            let told = failure.message;
            assert!(told.contains("config.toml") || told.contains(" must be "), "{told}");
            assert!(!told.contains(char::is_control) && told.len() < 1_000, "{told:?}");
        }
    }
}
