//! What changes will touch, as the installed packages' file lists, conffiles and the running
//! processes tell before anything is staged.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use apt_ostree_actors::port::{ProcessUse, ReplacedFile};
use apt_ostree_proto::package::{Action, PackageChange};
use apt_ostree_proto::plan::EtcConflict;
use apt_ostree_proto::service::{Reason, UnitAction, UnitEffect};
use apt_ostree_proto::{ErrorCode, Failure, UnitName};
use md5::{Digest, Md5};

use super::status::{Package, Status};

/// Where packages put units of the system manager, with and without the merged `/usr`.
pub(super) const UNIT_DIRECTORIES: &[&str] = &["/usr/lib/systemd/system/", "/lib/systemd/system/"];
/// How many files of one process are named as a reason: the first tells enough.
const MOST_FILES: usize = 3;

/// What the files of the changed packages tell.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// The running services that the packages own, with the package's name and whether it goes.
    pub(super) services: BTreeMap<UnitName, (apt_ostree_proto::PackageName, bool)>,
    /// Their files in `/usr`, as running processes would have them mapped.
    pub(super) files: Vec<ReplacedFile>,
    /// Their configuration files that were edited here.
    pub(super) conflicts: Vec<EtcConflict>,
}

/// Reads the file lists below `database` (dpkg's directory) and the files below `root`.
pub(super) fn touched(
    changes: &[PackageChange],
    status: &Status,
    database: &Path,
    root: &Path,
) -> Result<Touched, Failure> {
    let mut touched = Touched::default();
    for change in changes {
        let Some(installed) = status.installed(change.name.as_str(), change.architecture.as_str())
        else {
            continue;
        };
        let is_removal = change.action == Action::Remove;
        for path in file_list(database, installed)? {
            if let Some(unit) = service_of(&path).filter(|unit| is_active(unit, root)) {
                touched.services.insert(unit, (change.name.clone(), is_removal));
            }
            touched.files.extend(in_usr(&path, root));
        }
        if !is_removal {
            touched.conflicts.extend(edited(installed, root)?);
        }
    }
    Ok(touched)
}

/// Joins what the files tell with the processes that use them: what would be done if nothing forbade
/// it. The policy is applied by whoever makes the plan.
pub(super) fn units(
    services: BTreeMap<UnitName, (apt_ostree_proto::PackageName, bool)>,
    uses: Vec<ProcessUse>,
) -> Vec<UnitEffect> {
    let mut effects: BTreeMap<UnitName, UnitEffect> = BTreeMap::new();
    for (unit, (package, is_removal)) in services {
        let action = if is_removal { UnitAction::Stop } else { UnitAction::Restart };
        let reasons = vec![Reason::Package { package }];
        effects.insert(unit.clone(), UnitEffect::new(unit, action, reasons));
    }
    for used in uses {
        let is_service = |unit: &UnitName| unit.kind() == "service";
        let Some(unit) = used.unit.clone().filter(is_service) else { continue };
        let effect = effects
            .entry(unit.clone())
            .or_insert_with(|| UnitEffect::new(unit, UnitAction::Restart, Vec::new()));
        let of_process = |reason: &&Reason| matches!(reason, Reason::OldCode { pid, .. } | Reason::Interpreted { pid, .. } if *pid == used.pid);
        if effect.reasons.iter().filter(of_process).count() < MOST_FILES {
            effect.reasons.push(used.reason());
        }
    }
    effects.into_values().collect()
}

/// The files of an installed package: `info/NAME.list`, `info/NAME:ARCHITECTURE.list` for packages
/// that may be there for several architectures.
pub(super) fn file_list(database: &Path, package: &Package) -> Result<Vec<String>, Failure> {
    let names = [
        format!("{}.list", package.name),
        format!("{}:{}.list", package.name, package.architecture),
    ];
    for name in names {
        let path = database.join("info").join(name);
        match fs::read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                return Ok(text.lines().map(str::to_owned).collect());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&path, &error)),
        }
    }
    // dpkg itself goes on with a warning when a list is missing.
    tracing::warn!(package = package.name, "the dpkg database has no list of the package's files");
    Ok(Vec::new())
}

/// The service whose unit file this is. Templates are no units; drop-ins are the unit's own business.
fn service_of(path: &str) -> Option<UnitName> {
    let name = UNIT_DIRECTORIES.iter().find_map(|directory| path.strip_prefix(directory))?;
    if name.contains('/') || name.contains("@.") {
        return None;
    }
    UnitName::parse(name).ok().filter(|unit| unit.kind() == "service")
}

/// Whether the service manager has the unit running: it leaves a link with the id of each unit's
/// present run, for the journal.
fn is_active(unit: &UnitName, root: &Path) -> bool {
    let link = root.join(format!("run/systemd/units/invocation:{unit}"));
    fs::symlink_metadata(link).is_ok()
}

/// The file as processes would have it mapped; none for directories, links and what is not there.
fn in_usr(path: &str, root: &Path) -> Option<ReplacedFile> {
    // With the merged /usr, packages may still ship below /lib, /bin and /sbin.
    let path = if path.starts_with("/usr/") { path.to_owned() } else { format!("/usr{path}") };
    let metadata = fs::symlink_metadata(root.join(path.trim_start_matches('/'))).ok()?;
    metadata.is_file().then(|| ReplacedFile {
        path: PathBuf::from(path),
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

/// The configuration files of a package that differ from what it shipped.
fn edited(package: &Package, root: &Path) -> Result<Vec<EtcConflict>, Failure> {
    let mut conflicts = Vec::new();
    for (path, shipped) in &package.conffiles {
        // In the middle of an upgrade dpkg has no digest yet.
        if shipped == "newconffile" {
            continue;
        }
        let place = root.join(path.trim_start_matches('/'));
        let resolution = match fs::read(&place) {
            Ok(bytes) if format!("{:x}", Md5::digest(&bytes)) == *shipped => continue,
            Ok(_) => format!("the local file stays; the package's goes to {path}.dpkg-dist"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                "it was deleted here, and stays so".to_owned()
            }
            Err(error) => return Err(unreadable(&place, &error)),
        };
        let package = package.name.clone();
        conflicts.push(EtcConflict { path: PathBuf::from(path), package, resolution });
    }
    Ok(conflicts)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::caused(ErrorCode::Internal, &format!("{} cannot be read", path.display()), error)
}

#[cfg(test)]
mod tests {
    use apt_ostree_actors::port::Manner;
    use apt_ostree_proto::PackageName;
    use apt_ostree_proto::outdated::Place;

    use super::*;

    #[test]
    fn services_are_known_by_their_files() {
        for (path, service) in [
            ("/usr/lib/systemd/system/nginx.service", Some("nginx.service")),
            ("/lib/systemd/system/ssh.service", Some("ssh.service")),
            ("/lib/systemd/system/ssh.socket", None),
            ("/lib/systemd/system/ssh@.service", None),
            ("/lib/systemd/system/x.service.d/a.conf", None),
            ("/usr/lib/systemd/user/y.service", None),
        ] {
            let found = service_of(path);
            assert_eq!(found.as_ref().map(UnitName::as_str), service, "{path}");
        }
    }

    #[test]
    fn edited_and_deleted_configuration_files_are_conflicts() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        for name in ["same", "edited"] {
            fs::write(root.path().join("etc").join(name), "text\n").unwrap();
        }
        let same = "e1cbb0c3879af8347246f12c559a86b5".to_owned();
        let package = Package {
            name: "p".to_owned(),
            conffiles: vec![
                ("/etc/same".to_owned(), same.clone()),
                ("/etc/edited".to_owned(), "0".repeat(32)),
                ("/etc/gone".to_owned(), same),
                ("/etc/new".to_owned(), "newconffile".to_owned()),
            ],
            ..Package::default()
        };
        let conflicts = edited(&package, root.path()).unwrap();
        let paths: Vec<&Path> = conflicts.iter().map(|conflict| conflict.path.as_path()).collect();
        assert_eq!(paths, [Path::new("/etc/edited"), Path::new("/etc/gone")]);
    }

    #[test]
    fn units_are_joined_from_packages_and_processes() {
        let unit = |name: &str| UnitName::parse(name).unwrap();
        let package = PackageName::parse("nginx").unwrap();
        let services = BTreeMap::from([(unit("nginx.service"), (package, false))]);
        let used = |pid, unit, path: &str| ProcessUse {
            pid,
            unit,
            place: Place::Host,
            path: PathBuf::from(path),
            manner: Manner::Maps,
        };
        let effects = units(
            services,
            vec![
                used(7, Some(unit("nginx.service")), "/usr/lib/libssl.so.3"),
                used(8, Some(unit("ssh.service")), "/usr/lib/libssl.so.3"),
                used(9, None, "/usr/lib/libssl.so.3"),
                used(10, Some(unit("session-1.scope")), "/usr/lib/libssl.so.3"),
            ],
        );
        let told: Vec<(&str, usize)> =
            effects.iter().map(|effect| (effect.unit.as_str(), effect.reasons.len())).collect();
        assert_eq!(told, [("nginx.service", 2), ("ssh.service", 1)]);
    }
}
