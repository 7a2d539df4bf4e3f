//! The packages that differ between two dpkg databases.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use apt_ostree_proto::id::Architecture;
use apt_ostree_proto::package::{Action, Origin, PackageChange};
use apt_ostree_proto::{ErrorCode, Failure, PackageName, Version};

use super::class::classify;
use super::status::{Package, Status};
use super::version;

/// What changes from the `old` database's text to the `new` one's, by name. There are no files to
/// fetch in it, and no origins: dpkg does not know them.
pub fn difference(old: &str, new: &str) -> Result<Vec<PackageChange>, Failure> {
    let (old, new) = (Status::parse(old), Status::parse(new));
    let installed = |status: &Status| -> BTreeSet<(String, String)> {
        status
            .packages()
            .filter(|package| package.is_installed())
            .map(|package| (package.name.clone(), package.architecture.clone()))
            .collect()
    };
    let mut changes = Vec::new();
    for (name, architecture) in installed(&old).union(&installed(&new)) {
        let before = old.installed(name, architecture);
        let after = new.installed(name, architecture);
        if before.map(|package| &package.version) != after.map(|package| &package.version) {
            changes.push(change(before, after)?);
        }
    }
    Ok(changes)
}

fn change(old: Option<&Package>, new: Option<&Package>) -> Result<PackageChange, Failure> {
    let Some(shown) = new.or(old) else {
        return Err(Failure::new(ErrorCode::Internal, "a change from nothing to nothing"));
    };
    let action = match (old, new) {
        (None, _) => Action::Install,
        (_, None) => Action::Remove,
        (Some(old), Some(new)) => match version::compare(&old.version, &new.version) {
            Ordering::Less => Action::Upgrade,
            Ordering::Equal => Action::Reinstall,
            Ordering::Greater => Action::Downgrade,
        },
    };
    let malformed = |error: apt_ostree_proto::id::InvalidName| {
        Failure::caused(ErrorCode::Internal, "the dpkg database is malformed", &error)
    };
    let version_of = |package: Option<&Package>| {
        package.map(|package| Version::parse(package.version.as_str())).transpose()
    };
    let size = |package: Option<&Package>| {
        package.map_or(0, |package| i64::try_from(package.installed_bytes).unwrap_or(i64::MAX))
    };
    let versions = [old, new].map(|package| package.map(|package| package.version.as_str()));
    let (class, class_reason) = classify(&shown.name, versions[0], versions[1]);
    Ok(PackageChange {
        name: PackageName::parse(shown.name.as_str()).map_err(malformed)?,
        architecture: Architecture::parse(shown.architecture.as_str()).map_err(malformed)?,
        action,
        old_version: version_of(old).map_err(malformed)?,
        new_version: version_of(new).map_err(malformed)?,
        source: shown.source.clone(),
        automatic: false,
        origin: Origin::default(),
        installed_growth_bytes: size(new).saturating_sub(size(old)),
        class,
        class_reason,
        file: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(packages: &[(&str, &str)]) -> String {
        packages
            .iter()
            .map(|(name, version)| {
                format!(
                    "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\n\
                     Installed-Size: 1\nVersion: {version}\n\n"
                )
            })
            .collect()
    }

    #[test]
    fn every_kind_of_change_is_told() {
        let old = database(&[("same", "1"), ("up", "1.9"), ("down", "2"), ("gone", "1")]);
        let new = database(&[("same", "1"), ("up", "1.10"), ("down", "2~rc1"), ("come", "1")]);
        let changes = difference(&old, &new).unwrap();
        let told: Vec<(&str, Action, i64)> = changes
            .iter()
            .map(|change| (change.name.as_str(), change.action, change.installed_growth_bytes))
            .collect();
        assert_eq!(
            told,
            [
                ("come", Action::Install, 1024),
                ("down", Action::Downgrade, 0),
                ("gone", Action::Remove, -1024),
                ("up", Action::Upgrade, 0),
            ]
        );
    }
}
