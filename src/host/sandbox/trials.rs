//! Which tests an update concerns.

use std::collections::BTreeSet;

use apt_ostree_actors::port::{InstallTest, PortResult};
use apt_ostree_proto::package::{Action, PackageChange};
use apt_ostree_proto::{ErrorCode, Failure};

/// dpkg's database of the running tree.
const STATUS: &str = "/var/lib/dpkg/status";

/// The tests of packages that change, or that need a package which does: its library, or its configuration.
pub(super) fn concerned(
    tests: Vec<InstallTest>,
    changes: &[PackageChange],
) -> PortResult<Vec<InstallTest>> {
    let text = std::fs::read_to_string(STATUS).map_err(|error| {
        Failure::caused(ErrorCode::TestFailed, &format!("{STATUS} cannot be read"), &error)
    })?;
    Ok(select(tests, changes, &text))
}

fn select(
    mut tests: Vec<InstallTest>,
    changes: &[PackageChange],
    status: &str,
) -> Vec<InstallTest> {
    let staying = changes.iter().filter(|change| change.action != Action::Remove);
    let changed: BTreeSet<&str> = staying.map(|change| change.name.as_str()).collect();
    tests.retain(|test| {
        test.packages.iter().any(|package| {
            let package = package.as_str();
            changed.contains(package) || needs(status, package).any(|other| changed.contains(other))
        })
    });
    tests
}

/// What an entry of the database depends on directly: deb-control(5). The database has a megabyte or
/// more, of which one entry is read.
fn needs<'s>(status: &'s str, package: &str) -> impl Iterator<Item = &'s str> {
    let head = format!("Package: {package}\n");
    let is_begin = |at: &usize| *at == 0 || status.as_bytes()[at - 1] == b'\n';
    let mut found = status.match_indices(&head).map(|(at, _)| at).filter(is_begin);
    let entry = found.next().map_or("", |at| &status[at..]);
    let entry = entry.split("\n\n").next().unwrap_or_default();
    let lines = entry.lines().filter_map(|line| line.split_once(':'));
    let depends = lines.filter(|(field, _)| matches!(*field, "Depends" | "Pre-Depends"));
    depends
        .flat_map(|(_, value)| value.split([',', '|']))
        .filter_map(|one| one.trim().split([' ', ':', '(']).next())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use apt_ostree_proto::PackageName;

    use super::*;

    const STATUS: &str = "Package: lib-nginx\nStatus: install ok installed\nDepends: libx\n\n\
        Package: nginx\nStatus: install ok installed\nVersion: 1\n\
        Depends: libc6 (>= 2.34), libssl3:amd64 (>= 3) | libssl-dev,\n iproute2\n\
        Pre-Depends: init-system-helpers\nDescription: x\n\nPackage: other\nDepends: libz\n";

    fn change(name: &str, action: &str) -> PackageChange {
        serde_json::from_value(serde_json::json!({
            "name": name, "architecture": "amd64", "action": action, "old_version": "1",
            "new_version": "2", "source": "x", "automatic": false, "installed_growth_bytes": 0,
            "origin": { "origin": "", "label": "", "codename": "", "component": "", "site": "",
                "trusted": true },
            "class": "live", "class_reason": null, "file": null
        }))
        .unwrap()
    }

    #[test]
    fn a_test_is_for_its_packages_and_for_what_they_need() {
        let test = InstallTest {
            name: "nginx".to_owned(),
            packages: vec![PackageName::parse("nginx").unwrap()],
            arguments: vec!["/usr/sbin/nginx".to_owned()],
            timeout: Duration::from_secs(1),
        };
        for (name, action, is_wanted) in [
            ("nginx", "upgrade", true),
            ("nginx", "install", true),
            ("nginx", "remove", false),
            ("libssl3", "upgrade", true),
            ("init-system-helpers", "upgrade", true),
            ("libz", "upgrade", false),
            ("libx", "upgrade", false),
        ] {
            let selected = select(vec![test.clone()], &[change(name, action)], STATUS);
            assert_eq!(!selected.is_empty(), is_wanted, "{action} {name}");
        }
    }
}
