//! Services, and the kernel, that keep in memory what was once read, and do not see a switch: whoever
//! watches a directory hears nothing when another one is mounted over it (inotify(7)).

use std::path::{Path, PathBuf};
use std::time::Duration;

use apt_ostree_proto::request::RestartPolicy;
use apt_ostree_proto::service::UnitState;
use apt_ostree_proto::strategy::Strategy;
use apt_ostree_proto::{ErrorCode, Failure, UnitName};

use super::{ServicePlan, Strategies, describe};
use crate::port::{JobOutcome, PortResult, Systemd};

/// Far above what reading some hundred files takes.
const READING_TIMEOUT: Duration = Duration::from_secs(60);

/// A service, and what it has to read again.
struct Reader {
    unit: &'static str,
    /// Parts of the paths.
    files: &'static [&'static str],
    /// Whether it is restarted where it cannot reload: it keeps nothing that anybody would miss.
    restarts: bool,
}

/// In the order in which they read: rules of devices, then who may do what, for which the bus must know
/// its policies.
const READERS: &[Reader] = &[
    // udev(7): it looks by itself, but not again within three seconds.
    Reader {
        unit: "systemd-udevd.service",
        files: &["/udev/rules.d/", "/udev/hwdb.bin"],
        restarts: false,
    },
    // polkit(8): the one of Debian 12 cannot reload.
    Reader {
        unit: "polkit.service",
        files: &["/polkit-1/actions/", "/polkit-1/rules.d/"],
        restarts: true,
    },
];

impl Reader {
    fn reads(&self, path: &Path) -> bool {
        let path = path.to_string_lossy();
        self.files.iter().any(|part| path.contains(part))
    }
}

/// Where `AppArmor`'s profiles are: apparmor.d(5).
const PROFILES: &str = "/etc/apparmor.d";

/// Whether anybody has to read any of it.
pub(super) fn are_concerned(changed: &[PathBuf]) -> bool {
    let reads = |path: &PathBuf| READERS.iter().any(|reader| reader.reads(path));
    changed.iter().any(|path| path.starts_with(PROFILES) || reads(path))
}

/// Has the kernel take over the profiles among `changed`, before what they confine is started.
pub(super) async fn load_profiles(
    systemd: &dyn Systemd,
    changed: &[PathBuf],
) -> PortResult<Vec<NotRead>> {
    let profiles = changed.iter().filter(|path| path.starts_with(PROFILES));
    let profiles: Vec<PathBuf> = profiles.cloned().collect();
    if profiles.is_empty() {
        return Ok(Vec::new());
    }
    let told = systemd.load_profiles(&profiles).await?.into_iter();
    let failed =
        |text| NotRead { is_down: false, failure: Failure::new(ErrorCode::UnitFailed, text) };
    Ok(told.map(failed).collect())
}

/// What changed and was not read, or the service that has not read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRead {
    /// Whether the service ran, and does not any more.
    pub is_down: bool,
    /// Why.
    pub failure: Failure,
}

/// What decides whether a reader may be restarted.
pub(super) struct Limits<'a> {
    pub(super) plan: &'a ServicePlan,
    pub(super) restart: RestartPolicy,
    pub(super) strategies: &'a Strategies,
}

/// Has those that run read what is theirs of `changed`; one that the plan restarts does so then. Answers
/// who has not.
pub(super) async fn read_again(
    systemd: &dyn Systemd,
    changed: &[PathBuf],
    limits: &Limits<'_>,
) -> PortResult<Vec<NotRead>> {
    let mut not_read = Vec::new();
    for reader in READERS.iter().filter(|one| changed.iter().any(|path| one.reads(path))) {
        let Ok(unit) = UnitName::parse(reader.unit) else { continue };
        if !limits.plan.touched().contains(&unit) {
            not_read.extend(have_read(systemd, reader, &unit, limits).await?);
        }
    }
    Ok(not_read)
}

async fn have_read(
    systemd: &dyn Systemd,
    reader: &Reader,
    unit: &UnitName,
    limits: &Limits<'_>,
) -> PortResult<Option<NotRead>> {
    let units = std::slice::from_ref(unit);
    if !systemd.states(units).await?.get(unit).is_some_and(UnitState::is_up) {
        return Ok(None);
    }
    let own = systemd.dependencies(units).await?.remove(unit).unwrap_or_default();
    let left_because = (!own.can_reload).then(|| limits.forbid_restart(reader, unit)).flatten();
    if let Some(why) = left_because {
        return Ok(Some(NotRead { is_down: false, failure: not_told(unit, why) }));
    }
    let outcome = systemd.reload_or_restart(unit, READING_TIMEOUT).await?;
    let state = systemd.states(units).await?.remove(unit).unwrap_or_default();
    if outcome == JobOutcome::Done && state.is_up() {
        return Ok(None);
    }
    let failure = not_told(unit, &format!("it is {}", describe(&state)));
    Ok(Some(NotRead { is_down: !state.is_up(), failure }))
}

impl Limits<'_> {
    /// Why the reader is not restarted, if it is not.
    fn forbid_restart(&self, reader: &Reader, unit: &UnitName) -> Option<&'static str> {
        if !reader.restarts {
            return Some("it cannot reload");
        }
        if self.restart == RestartPolicy::Never {
            return Some("no unit is restarted, as asked");
        }
        let strategy = self.strategies.strategy(unit);
        matches!(strategy, Some(Strategy::Never | Strategy::Defer | Strategy::Reload))
            .then_some("the configuration does not let it be restarted")
    }
}

fn not_told(unit: &UnitName, why: &str) -> Failure {
    Failure::new(
        ErrorCode::UnitFailed,
        format!("{unit} has not read its changed files again: {why}"),
    )
    .with_hint(format!("See the unit's log: journalctl -u {unit}."))
}

#[cfg(test)]
mod tests {
    use apt_ostree_proto::UnitPattern;
    use apt_ostree_proto::service::{UnitAction, UnitEffect};

    use super::*;
    use crate::port::UnitDependencies;
    use crate::service::StrategyRule;
    use crate::sim::{Behaviour, SimSystemd, SimUnit};

    const RULES: &str = "/usr/lib/udev/rules.d/80-x.rules";
    const ACTIONS: &str = "/usr/share/polkit-1/actions/x.policy";

    fn unit(name: &str) -> UnitName {
        UnitName::parse(name).unwrap()
    }

    fn host(up: &[&str]) -> SimSystemd {
        let systemd = SimSystemd::new();
        for (name, can_reload) in [("systemd-udevd.service", true), ("polkit.service", false)] {
            let dependencies = UnitDependencies { can_reload, ..UnitDependencies::default() };
            systemd.define(&unit(name), SimUnit { dependencies, ..SimUnit::default() });
        }
        for name in up {
            systemd.boot(&unit(name));
        }
        systemd
    }

    async fn read(systemd: &SimSystemd, changed: &[&str], limits: &Limits<'_>) -> Vec<NotRead> {
        let changed: Vec<PathBuf> = changed.iter().map(PathBuf::from).collect();
        read_again(systemd, &changed, limits).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_runs_reads_again_what_is_its_own_and_nothing_else() {
        let (plan, strategies) = (ServicePlan::default(), Strategies::default());
        let limits =
            Limits { plan: &plan, restart: RestartPolicy::AsPackagesAsk, strategies: &strategies };
        let both = ["systemd-udevd.service", "polkit.service"];
        for (up, changed, calls) in [
            (
                &both[..],
                &[RULES, ACTIONS][..],
                "reload-or-restart systemd-udevd.service, reload-or-restart polkit.service",
            ),
            (&both, &["/etc/polkit-1/rules.d/1.rules"], "reload-or-restart polkit.service"),
            (&both, &["/usr/lib/udev/hwdb.bin", RULES], "reload-or-restart systemd-udevd.service"),
            (&both, &["/usr/lib/udev/hwdb.d/x", "/usr/lib/polkit-1/polkitd"], ""),
            (&[], &[RULES, ACTIONS], ""),
        ] {
            let systemd = host(up);
            assert_eq!(read(&systemd, changed, &limits).await, []);
            assert_eq!(systemd.calls().join(", "), calls, "{changed:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_is_left_to_the_plan_and_to_whoever_forbids_it() {
        let rule = StrategyRule {
            units: UnitPattern::parse("polkit.service").unwrap(),
            strategy: Strategy::Never,
            group: None,
        };
        let effect = UnitEffect::new(unit("polkit.service"), UnitAction::Restart, Vec::new());
        let planned = ServicePlan { effects: vec![effect], ..ServicePlan::default() };
        let (plan, strategies) = (ServicePlan::default(), Strategies::default());
        let never = Strategies::new(vec![rule]);
        let usual = RestartPolicy::AsPackagesAsk;
        for (plan, restart, strategies, told) in [
            (&planned, usual, &strategies, None),
            (&plan, RestartPolicy::Never, &strategies, Some("as asked")),
            (&plan, usual, &never, Some("configuration")),
        ] {
            let systemd = host(&["polkit.service"]);
            let limits = Limits { plan, restart, strategies };
            let not_read = read(&systemd, &[ACTIONS], &limits).await;
            assert_eq!(systemd.calls().join(", "), "");
            let text = not_read.first().map(|one| one.failure.message.clone());
            assert_eq!(text.is_some(), told.is_some(), "{text:?}");
            assert!(told.is_none_or(|told| text.unwrap().contains(told)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_come_up_again_is_told_as_down() {
        let systemd = host(&["polkit.service"]);
        let fails = Behaviour { start_fails: Some("exit-code".to_owned()), ..Behaviour::default() };
        systemd.define(&unit("polkit.service"), SimUnit { behaviour: fails, ..SimUnit::default() });
        let (plan, strategies) = (ServicePlan::default(), Strategies::default());
        let limits =
            Limits { plan: &plan, restart: RestartPolicy::Affected, strategies: &strategies };
        let not_read = read(&systemd, &[ACTIONS], &limits).await;
        assert!(not_read[0].is_down && not_read[0].failure.message.contains("polkit.service"));
    }
}
