//! Configuration: TOML fragments, merged in order, checked whole.
//!
//! Read are `/usr/lib/apt-ostree/config.d/*.toml`, `/etc/apt-ostree/config.toml` and
//! `/etc/apt-ostree/config.d/*.toml`, in this order and by name; a later value wins. An unknown key
//! is an error, for a setting that is silently ignored is worse than one that is refused.
//!
//! `fragments` finds and merges the files, `rules` says what values can be, `service` what can be said of
//! one unit, and `problem` where something is wrong. `keeper` keeps the last one that could be used.

mod fragments;
mod keeper;
mod problem;
mod rules;
mod service;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use apt_ostree_actors::port::{InstallTest, Probes};
use apt_ostree_actors::service::{Strategies, StrategyRule};
use apt_ostree_proto::{ErrorCode, Failure, PackageName, UnitName, UnitPattern};
use serde::{Deserialize, Serialize};

pub use keeper::Keeper;
pub use problem::{Problem, Severity};
pub use service::{ProbeKind, ProbeSettings, Service};

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Install {
    /// After how many seconds an installation that is not done is ended and put back: the largest
    /// updates take minutes on slow disks, and a script that waits for ever takes this long.
    pub longest_seconds: u64,
    /// What is run in the staged tree before anything of it reaches the host, by name.
    pub test: BTreeMap<String, Test>,
}

/// `[install.test.NAME]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Test {
    /// It runs when one of these changes, or needs a package that does.
    pub packages: Vec<PackageName>,
    /// The program's whole path, and its arguments; empty: there is no such test.
    pub command: Vec<String>,
    /// How long it may take; 30 seconds without it.
    pub timeout_seconds: Option<u64>,
}

impl Test {
    fn timeout_seconds(&self) -> u64 {
        self.timeout_seconds.unwrap_or(30)
    }
}

impl Default for Install {
    fn default() -> Self {
        Self { longest_seconds: 2 * 60 * 60, test: BTreeMap::new() }
    }
}

/// `[health]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Health {
    /// How long touched units must stay healthy, in seconds.
    pub dwell_seconds: u64,
    /// How long one hook may take, in seconds.
    pub hook_timeout_seconds: u64,
}

impl Default for Health {
    fn default() -> Self {
        Self { dwell_seconds: 5, hook_timeout_seconds: 30 }
    }
}

/// `[services]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// `[rollback]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        Self::read(root).map_err(|problems| unusable(&problems))
    }

    /// The same, with everything that is wrong.
    pub fn read(root: &Path) -> Result<Self, Vec<Problem>> {
        let fragments = fragments::Fragments::read(root)?;
        let config = fragments.merged()?;
        let complaints = rules::complaints(&config);
        if complaints.is_empty() {
            return Ok(config);
        }
        Err(complaints.into_iter().map(|complaint| fragments.locate(complaint)).collect())
    }

    /// How long touched units must stay healthy.
    pub fn dwell(&self) -> Duration {
        Duration::from_secs(self.health.dwell_seconds)
    }

    /// How long a hook may take.
    pub fn hook_timeout(&self) -> Duration {
        Duration::from_secs(self.health.hook_timeout_seconds)
    }

    /// The units that are named, each with the way to its name. Templates and patterns are no units.
    pub fn named_units(&self) -> Vec<(Vec<String>, UnitName)> {
        let key = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect();
        let vetoes =
            self.services.never_restart.iter().enumerate().map(|(index, units)| {
                (key(&["services", "never-restart", &index.to_string()]), units)
            });
        let own = self.service.keys().map(|units| (key(&["service", units.as_str()]), units));
        vetoes.chain(own).filter_map(|(key, units)| Some((key, unit_of(units)?))).collect()
    }

    /// The tests of what is installed.
    pub fn tests(&self) -> Vec<InstallTest> {
        let wanted = self.install.test.iter().filter(|(_, test)| !test.command.is_empty());
        wanted
            .map(|(name, test)| InstallTest {
                name: name.clone(),
                packages: test.packages.clone(),
                arguments: test.command.clone(),
                timeout: Duration::from_secs(test.timeout_seconds()),
            })
            .collect()
    }

    /// The units' probes.
    pub fn probes(&self) -> Probes {
        let of = |(units, service): (&UnitPattern, &Service)| {
            let probes: Vec<_> = service.probes.iter().filter_map(ProbeSettings::probe).collect();
            Some((unit_of(units)?, probes)).filter(|(_, probes)| !probes.is_empty())
        };
        self.service.iter().filter_map(of).collect()
    }

    /// For how long an update waits for its confirmation where nobody says otherwise.
    pub fn confirm_timeout(&self) -> Option<Duration> {
        let seconds = self.rollback.confirm_timeout_seconds;
        (seconds != 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// How units get their new code, where that is set.
    pub fn strategies(&self) -> Strategies {
        let configured = |(units, service): (&UnitPattern, &Service)| {
            let (units, group) = (units.clone(), service.group.clone());
            service.strategy.map(|strategy| StrategyRule { units, strategy, group })
        };
        let rules = self.service.iter().filter_map(configured).collect();
        Strategies::new(rules).vetoed(self.services.never_restart.iter().cloned())
    }
}

/// The one unit that is meant, unless it is a template or a pattern.
fn unit_of(units: &UnitPattern) -> Option<UnitName> {
    let is_template = units.as_str().contains("@.");
    UnitName::parse(units.as_str()).ok().filter(|_| !is_template)
}

/// A warning about what `key` leads to in the fragments below `root`.
pub fn warning(root: &Path, key: Vec<String>, text: String) -> Problem {
    match fragments::Fragments::read(root) {
        Ok(fragments) => Problem {
            severity: Severity::Warning,
            ..fragments.locate(rules::Complaint { key, text })
        },
        Err(mut problems) => problems.swap_remove(0),
    }
}

/// Why the daemon cannot serve: the first problem, and how many more there are.
fn unusable(problems: &[Problem]) -> Failure {
    let first = problems.first().map(Problem::sentence).unwrap_or_default();
    let more = match problems.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more: see apt-ostree config check)", count - 1),
    };
    let text = format!("the configuration is not usable: {first}{more}");
    Failure::new(ErrorCode::InvalidConfiguration, text)
}

/// Reads these bytes as a fragment, and merges it with itself.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    fragments::fuzz(&String::from_utf8_lossy(data));
}

#[cfg(test)]
mod tests {
    use apt_ostree_proto::strategy::Strategy;

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
        let own = "[service.\"postgresql@main.service\"]\nstrategy = \"automatic\"\n\
                   [service.\"mariadb@*.service\"]\nstrategy = \"restart\"";
        let root = root(&[
            ("usr/lib/apt-ostree/config.d/10-services.toml", shipped),
            ("etc/apt-ostree/config.toml", own),
        ]);
        let strategies = Config::load(root.path()).unwrap().strategies();
        for (name, expected) in [
            ("postgresql@15.service", Some(Strategy::Defer)),
            ("postgresql@main.service", Some(Strategy::Automatic)),
            // Another name for the same units.
            ("mariadb@main.service", Some(Strategy::Restart)),
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
    fn what_says_nothing_of_restarts_changes_nothing_about_them_and_a_veto_holds() {
        let probes = "probes = [{ kind = \"tcp\", port = 5432 }]";
        let own = format!(
            "[services]\nnever-restart = [\"web*.service\"]\n\
             [service.\"postgresql@15.service\"]\n{probes}\n\
             [service.\"web.service\"]\nstrategy = \"restart\"\n{probes}"
        );
        let root = root(&[
            (
                "usr/lib/apt-ostree/config.d/10-services.toml",
                include_str!("../debian/services.toml"),
            ),
            ("etc/apt-ostree/config.toml", &own),
        ]);
        let config = Config::load(root.path()).unwrap();
        assert_eq!(config.probes().len(), 2);
        for (name, expected) in
            [("postgresql@15.service", Strategy::Defer), ("web.service", Strategy::Never)]
        {
            let found = config.strategies().strategy(&name.parse().unwrap());
            assert_eq!(found, Some(expected), "{name}");
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
    fn a_file_that_leads_nowhere_is_not_taken_for_none() {
        let root = root(&[("etc/apt-ostree/config.d/10.toml", "")]);
        let main = root.path().join("etc/apt-ostree/config.toml");
        std::os::unix::fs::symlink("/nowhere/config.toml", main).unwrap();
        let failure = Config::load(root.path()).unwrap_err();
        assert!(failure.message.contains("config.toml"), "{failure}");
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
            assert!(told.contains("config.toml, line "), "{told}");
            assert!(!told.contains(char::is_control) && told.len() < 1_000, "{told:?}");
        }
    }

    const PROBES: &str = "\
        [service.\"nginx.service\"]
        probes = [
            { kind = \"http\", url = \"http://127.0.0.1/\", status = 200 },
            { kind = \"tcp\", port = 80, level = \"wanted\", settle-seconds = 5 },
        ]
        [service.\"polkit.service\"]
        probes = [{ kind = \"dbus\", name = \"org.freedesktop.PolicyKit1\" }]
        [service.\"x.service\"]
        probes = [{ kind = \"command\", command = [\"/bin/x\", \"-y\"], timeout-seconds = 9 }]";

    #[test]
    fn probes_of_all_kinds_are_read() {
        let root = root(&[("etc/apt-ostree/config.toml", PROBES)]);
        let probes = Config::load(root.path()).unwrap().probes();
        let told: Vec<String> = probes.values().flatten().map(ToString::to_string).collect();
        let expected = [
            "http http://127.0.0.1/ (200)",
            "tcp 127.0.0.1 port 80",
            "dbus org.freedesktop.PolicyKit1",
            "command /bin/x -y",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn every_problem_is_told_with_its_file_and_line() {
        let table = "[service.\"x.service\"]\nprobes = [\n";
        for (text, line, told) in [
            ("[health]\n\ndwell-seconds = 4000", 3, "at most 180"),
            ("[health]\nhook-timeout-seconds = 0", 2, "health.hook-timeout-seconds"),
            ("[services]\nnever-restart = [\"x\"]", 2, "type suffix"),
            (&format!("{table}{{ kind = \"tcp\" }}]"), 3, "a tcp probe needs a port"),
            (&format!("{table}{{ kind = \"tcp\", port = 0 }}]"), 3, "port"),
            (&format!("{table}\n{{ kind = \"http\", url = \"ftp://x\" }}]"), 4, "url"),
            (&format!("{table}{{ kind = \"http\", port = 80, url = \"http://x\" }}]"), 3, "port"),
            (&format!("{table}{{ kind = \"dbus\", name = \"x\" }}]"), 3, "bus name"),
            (&format!("{table}{{ kind = \"command\", command = [\"x\"] }}]"), 3, "absolute"),
            (&format!("{table}{{ kind = \"smtp\" }}]"), 3, "smtp"),
            (&format!("{table}{{ kind = \"tcp\", prot = 3 }}]"), 3, "prot"),
            (&format!("{table}{{ kind = \"tcp\", port = 1, level = \"x\" }}]"), 3, "wanted"),
            ("[service.\"x@.service\"]\nprobes = [{ kind = \"tcp\", port = 1 }]", 2, "single unit"),
            ("[install.test.x]\npackages = [\"aa\"]\ncommand = [\"a\"]", 3, "absolute"),
            ("[install.test.x]\ncommand = [\"/a\"]", 1, "packages"),
            ("[install.test.x]\ntimeout-seconds = 0", 2, "1 to 600"),
            ("[service.\"x y.service\"]\nprobes = []", 1, "pattern of unit names"),
        ] {
            let root = root(&[
                ("etc/apt-ostree/config.toml", text),
                ("etc/apt-ostree/config.d/10.toml", "[download]\nattempts = 3"),
            ]);
            let problems = Config::read(root.path()).unwrap_err();
            let problem = problems.first().unwrap();
            assert_eq!(problem.line, Some(line), "{text}: {problem}");
            assert!(problem.text.contains(told), "{text}: {problem}");
            assert!(problem.to_string().contains(&format!("config.toml:{line}: error: ")));
        }
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        let root = root(&[("etc/apt-ostree/config.toml", PROBES)]);
        let config = Config::load(root.path()).unwrap();
        let shown = toml::to_string_pretty(&config).unwrap();
        assert_eq!(toml::from_str::<Config>(&shown).unwrap(), config, "{shown}");
    }
}
