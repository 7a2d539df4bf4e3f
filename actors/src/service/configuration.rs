//! Which running units read configuration that changed.
//!
//! Four things tell: the file goes by the unit's name; the package that ships the file ships the unit;
//! the unit names the file (`EnvironmentFile=`, a path in `ExecStart=`) or was generated from it; the
//! admin says so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use apt_ostree_proto::service::{Reason, UnitState};
use apt_ostree_proto::{UnitName, UnitPattern};

use super::DetermineEffects;
use super::unit_files::{Described, configures, stem};
use crate::port::{PortResult, Systemd};

/// Directories of `/etc` that packages put files into which programs of other packages read, each time
/// they need them.
const READ_BY_OTHERS: &[&str] = &[
    "apparmor.d",
    "apt",
    "bash_completion.d",
    "cron.d",
    "cron.daily",
    "cron.hourly",
    "cron.monthly",
    "cron.weekly",
    "dbus-1",
    "dpkg",
    "init.d",
    "insserv.conf.d",
    "logcheck",
    "logrotate.d",
    "modprobe.d",
    "pam.d",
    "polkit-1",
    "ppp",
    "profile.d",
    "resolvconf",
    "security",
    "sudoers.d",
    "sysctl.d",
    "systemd",
    "sysusers.d",
    "tmpfiles.d",
    "udev",
    "ufw",
    "xdg",
    "X11",
];

/// What is found by a generator of units that changed.
const GENERATORS: &str = "/usr/lib/systemd/system-generators";

/// The running services that are affected, each with its reason.
pub(super) async fn reasons(
    systemd: &dyn Systemd,
    request: &DetermineEffects,
    loaded: &BTreeMap<UnitName, UnitState>,
) -> PortResult<Vec<(UnitName, Reason)>> {
    let is_running =
        |(unit, state): &(&UnitName, &UnitState)| unit.kind() == "service" && state.is_up();
    let running: Vec<UnitName> =
        loaded.iter().filter(is_running).map(|(unit, _)| unit.clone()).collect();
    let changed: Vec<PathBuf> =
        request.etc_changed.iter().chain(&request.changed).map(|path| absolute(path)).collect();
    let mut found = by_name(&request.etc_changed, &running);
    found.extend(by_package(&request.configured, &running));
    found.extend(by_admin(&request.reads, &changed, &running));
    let is_asked = |path: &PathBuf| path.starts_with("/etc") || path.starts_with(GENERATORS);
    let changed: Vec<&PathBuf> = changed.iter().filter(|path| is_asked(path)).collect();
    if !changed.is_empty() {
        let reads = systemd.reads(&running).await?;
        found.extend(by_units(&reads, &changed));
    }
    Ok(found)
}

fn by_name(etc_changed: &[PathBuf], running: &[UnitName]) -> Vec<(UnitName, Reason)> {
    let mut services = BTreeMap::<&str, Vec<&UnitName>>::new();
    for unit in running {
        services.entry(stem(unit)).or_default().push(unit);
    }
    let mut found = Vec::new();
    for path in etc_changed {
        let named = configures(path).and_then(|name| services.get(name));
        found.extend(named.into_iter().flatten().map(|unit| ((*unit).clone(), reason(path))));
    }
    found
}

fn by_package(
    configured: &BTreeMap<PathBuf, Vec<UnitName>>,
    running: &[UnitName],
) -> Vec<(UnitName, Reason)> {
    let mut found = Vec::new();
    for (path, units) in configured.iter().filter(|(path, _)| !is_read_by_others(path)) {
        let covered = running.iter().filter(|unit| units.iter().any(|own| means_unit(own, unit)));
        found.extend(covered.map(|unit| (unit.clone(), reason(path))));
    }
    found
}

fn by_admin(
    reads: &BTreeMap<UnitPattern, Vec<PathBuf>>,
    changed: &[PathBuf],
    running: &[UnitName],
) -> Vec<(UnitName, Reason)> {
    let mut found = Vec::new();
    for (named, listed) in reads {
        for unit in running.iter().filter(|unit| named.matches(unit)) {
            let read = changed.iter().filter(|path| listed.iter().any(|one| means(one, path)));
            found.extend(read.map(|path| (unit.clone(), reason(path))));
        }
    }
    found
}

fn by_units(
    reads: &BTreeMap<UnitName, Vec<PathBuf>>,
    changed: &[&PathBuf],
) -> Vec<(UnitName, Reason)> {
    let mut found = Vec::new();
    for (unit, listed) in reads {
        let read = changed.iter().filter(|path| listed.iter().any(|one| means(one, path)));
        found.extend(read.map(|path| (unit.clone(), reason(path))));
    }
    found
}

fn reason(path: &Path) -> Reason {
    let path = absolute(path);
    // What a unit is generated from is as good as its file.
    if path.starts_with(GENERATORS) || Described::by(&path).is_some() {
        return Reason::UnitFile { path };
    }
    Reason::Configuration { path }
}

fn is_read_by_others(path: &Path) -> bool {
    let first = absolute(path).components().nth(2).map(|part| part.as_os_str().to_owned());
    first.is_some_and(|first| READ_BY_OTHERS.iter().any(|known| first == *known))
}

/// Whether a name means the unit: its own, or that of its template.
fn means_unit(name: &UnitName, unit: &UnitName) -> bool {
    name == unit || UnitPattern::parse(name.as_str()).is_ok_and(|name| name.matches(unit))
}

/// Whether a listed path means the one that changed: itself, the directory that it is in, or, as
/// `EnvironmentFile=` may have it, a pattern of names.
fn means(listed: &Path, changed: &Path) -> bool {
    if changed.starts_with(listed) {
        return true;
    }
    let (Some(listed), Some(changed)) = (listed.to_str(), changed.to_str()) else { return false };
    let Some((before, after)) = listed.split_once('*') else { return false };
    changed.strip_prefix(before).is_some_and(|rest| {
        let name = rest.strip_suffix(after);
        name.is_some_and(|name| !name.contains('/'))
    })
}

fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str) -> UnitName {
        UnitName::parse(name).unwrap()
    }

    fn pattern(name: &str) -> UnitPattern {
        UnitPattern::parse(name).unwrap()
    }

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    fn told(found: Vec<(UnitName, Reason)>) -> Vec<(String, String)> {
        let path = |reason| match reason {
            Reason::Configuration { path } | Reason::UnitFile { path } => path,
            other => panic!("{other:?}"),
        };
        let told = found.into_iter().map(|(unit, reason)| (unit, path(reason)));
        told.map(|(unit, path)| (unit.to_string(), path.display().to_string())).collect()
    }

    #[test]
    fn a_listed_path_means_itself_what_is_in_it_and_its_pattern() {
        for (listed, changed, expected) in [
            ("/etc/default/x", "/etc/default/x", true),
            ("/etc/default/x", "/etc/default/xy", false),
            ("/etc/ssl/private", "/etc/ssl/private/key.pem", true),
            ("/etc/default/x*", "/etc/default/x-local", true),
            ("/etc/default/x*", "/etc/default/x/y", false),
            ("/etc/x/*.env", "/etc/x/a.env", true),
            ("/etc/x/*.env", "/etc/x/a.conf", false),
        ] {
            assert_eq!(
                means(Path::new(listed), Path::new(changed)),
                expected,
                "{listed} {changed}"
            );
        }
    }

    #[test]
    fn a_packages_file_is_its_services_own_unless_others_read_it() {
        let running = [unit("app@a.service"), unit("other.service")];
        let own = || vec![unit("app@.service"), unit("app.service")];
        let configured = BTreeMap::from([
            (PathBuf::from("/etc/shared/app.conf"), own()),
            (PathBuf::from("/etc/logrotate.d/app"), own()),
            (PathBuf::from("/etc/pam.d/app"), own()),
        ]);
        let found = told(by_package(&configured, &running));
        assert_eq!(found, [("app@a.service".to_owned(), "/etc/shared/app.conf".to_owned())]);
    }

    #[test]
    fn the_admins_map_names_units_and_templates_by_files_and_directories() {
        let running = [unit("app@a.service"), unit("db.service")];
        let reads = BTreeMap::from([
            (pattern("app@.service"), paths(&["/etc/shared"])),
            (pattern("d*.service"), paths(&["/etc/db/one.conf", "/usr/share/db"])),
            (pattern("gone.service"), paths(&["/etc"])),
        ]);
        let changed = paths(&["/etc/shared/x", "/usr/share/db/schema", "/etc/db/other.conf"]);
        let expected = [("app@a.service", "/etc/shared/x"), ("db.service", "/usr/share/db/schema")];
        let expected = expected.map(|(unit, path)| (unit.to_owned(), path.to_owned()));
        assert_eq!(told(by_admin(&reads, &changed, &running)), expected);
    }

    #[test]
    fn what_a_unit_is_generated_from_and_by_counts_as_its_file() {
        for (path, is_unit_file) in [
            ("/usr/lib/systemd/system-generators/systemd-sysv-generator", true),
            ("/etc/init.d/x", true),
            ("etc/default/x", false),
        ] {
            let is = matches!(reason(Path::new(path)), Reason::UnitFile { .. });
            assert_eq!(is, is_unit_file, "{path}");
        }
    }
}
