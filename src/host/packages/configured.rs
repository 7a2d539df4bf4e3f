//! Which services a package ships beside a configuration file of its.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use apt_ostree_proto::{Failure, UnitName};

use super::impact::{UNIT_DIRECTORIES, file_list};
use super::status::{Package, Status};

/// The services, templates included, of the packages that ship these files of `/etc`.
pub(super) fn services(
    paths: &[PathBuf],
    status: &Status,
    database: &Path,
) -> Result<BTreeMap<PathBuf, Vec<UnitName>>, Failure> {
    let wanted: BTreeSet<PathBuf> = paths.iter().map(|path| Path::new("/").join(path)).collect();
    let mut found = BTreeMap::new();
    for package in status.packages().filter(|package| package.is_installed()) {
        let shipped = |(path, _): &(String, String)| wanted.contains(Path::new(path));
        let conffiles: Vec<&(String, String)> =
            package.conffiles.iter().filter(|c| shipped(c)).collect();
        if conffiles.is_empty() {
            continue;
        }
        let services = services_of(package, database)?;
        for (path, _) in conffiles {
            let units: &mut Vec<UnitName> = found.entry(PathBuf::from(path)).or_default();
            units.extend(services.iter().cloned());
        }
    }
    Ok(found)
}

fn services_of(package: &Package, database: &Path) -> Result<Vec<UnitName>, Failure> {
    let files = file_list(database, package)?;
    let name = |path: &String| {
        let name = UNIT_DIRECTORIES.iter().find_map(|directory| path.strip_prefix(directory))?;
        UnitName::parse(name).ok().filter(|unit| unit.kind() == "service")
    };
    Ok(files.iter().filter_map(name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conffile_leads_to_the_services_of_its_package() {
        let database = tempfile::tempdir().unwrap();
        std::fs::create_dir(database.path().join("info")).unwrap();
        let list = "/etc/app.conf\n/lib/systemd/system/app.service\n\
                    /usr/lib/systemd/system/app@.service\n/lib/systemd/system/app.socket\n";
        std::fs::write(database.path().join("info/app.list"), list).unwrap();
        let status = Status::parse(
            "Package: app\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\
             Conffiles:\n /etc/app.conf 0123\n /etc/other.conf 0123\n\n\
             Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\
             Conffiles:\n /etc/app.conf 0123\n",
        );
        let paths = [PathBuf::from("etc/app.conf"), PathBuf::from("/etc/unowned")];
        let found = services(&paths, &status, database.path()).unwrap();
        let names: Vec<&str> =
            found[Path::new("/etc/app.conf")].iter().map(UnitName::as_str).collect();
        assert_eq!((found.len(), names), (1, vec!["app.service", "app@.service"]));
    }
}
