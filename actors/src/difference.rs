//! What differs between two trees, for people: counted, bounded, and told by unit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use apt_ostree_proto::difference::{Change, ChangedFile, ChangedUnit, Counts, TreeDifference};

use crate::service::Described;

/// How many files, and how many units, one answer lists: more than any upgrade within a release
/// changes, and about a megabyte on the bus.
pub const MOST_LISTED: usize = 10_000;

/// Describes the difference. `old` and `new` are paths that are different or only in that tree,
/// `changed` such as are in both; all without the leading `/`.
pub fn describe(
    old: BTreeSet<PathBuf>,
    new: BTreeSet<PathBuf>,
    changed: BTreeSet<PathBuf>,
) -> TreeDifference {
    let mut changes: BTreeMap<PathBuf, Change> = BTreeMap::new();
    let with = |change| move |path| (path, change);
    changes.extend(old.into_iter().map(with(Change::Removed)));
    for path in new {
        let change = if changes.contains_key(&path) { Change::Changed } else { Change::Added };
        changes.insert(path, change);
    }
    changes.extend(changed.into_iter().map(with(Change::Changed)));
    let mut units = units(&changes);
    let units_left_out = units.len().saturating_sub(MOST_LISTED) as u64;
    units.truncate(MOST_LISTED);
    let files_left_out = changes.len().saturating_sub(MOST_LISTED) as u64;
    let counts = count(changes.values());
    let listed = |(path, change)| ChangedFile { path: Path::new("/").join(path), change };
    let files = changes.into_iter().take(MOST_LISTED).map(listed).collect();
    TreeDifference { files, counts, files_left_out, units, units_left_out }
}

fn count<'a>(changes: impl Iterator<Item = &'a Change>) -> Counts {
    let mut counts = Counts::default();
    for change in changes {
        match change {
            Change::Added => counts.added += 1,
            Change::Removed => counts.removed += 1,
            Change::Changed => counts.changed += 1,
        }
    }
    counts
}

/// The units that the paths describe: a unit comes and goes with its own file, and is changed by a
/// drop-in.
fn units(changes: &BTreeMap<PathBuf, Change>) -> Vec<ChangedUnit> {
    let mut units: BTreeMap<String, Change> = BTreeMap::new();
    for (path, change) in changes {
        // The defaults of /etc are where a new host has them.
        let live = path.strip_prefix("usr/etc").map(|rest| Path::new("etc").join(rest));
        let live = live.as_deref().unwrap_or(path);
        let Some(described) = Described::by(live) else { continue };
        let unit = described.name();
        let is_its_own = live.file_name().is_some_and(|name| *name == *unit);
        if is_its_own {
            units.insert(unit, *change);
        } else {
            units.entry(unit).or_insert(Change::Changed);
        }
    }
    units.into_iter().map(|(unit, change)| ChangedUnit { unit, change }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[&str]) -> BTreeSet<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn what_came_went_and_changed_is_told_apart() {
        let told = describe(
            paths(&["usr/bin/gone", "usr/bin/same-name"]),
            paths(&["usr/bin/same-name", "usr/etc/new.conf"]),
            paths(&["usr/share"]),
        );
        let files: Vec<_> =
            told.files.iter().map(|file| (file.path.to_str().unwrap(), file.change)).collect();
        assert_eq!(
            files,
            [
                ("/usr/bin/gone", Change::Removed),
                ("/usr/bin/same-name", Change::Changed),
                ("/usr/etc/new.conf", Change::Added),
                ("/usr/share", Change::Changed),
            ]
        );
        assert_eq!(told.counts, Counts { added: 1, removed: 1, changed: 2 });
        assert_eq!((told.files_left_out, told.units.len()), (0, 0));
        assert_eq!(describe(paths(&[]), paths(&[]), paths(&[])), TreeDifference::default());
    }

    #[test]
    fn a_unit_comes_with_its_file_and_changes_with_a_drop_in() {
        let told = describe(
            paths(&["usr/lib/systemd/system/old.service", "usr/lib/systemd/system/x.timer"]),
            paths(&[
                "usr/lib/systemd/system/a@.service",
                "usr/lib/systemd/system/b.service.d/10.conf",
                "usr/etc/systemd/system/c.socket",
                "usr/etc/systemd/system/multi-user.target.wants/d.service",
                "usr/lib/systemd/system/x.timer",
                "usr/lib/systemd/system/x.timer.d/1.conf",
            ]),
            paths(&[]),
        );
        let units: Vec<_> = told.units.iter().map(|u| (u.unit.as_str(), u.change)).collect();
        assert_eq!(
            units,
            [
                ("a@.service", Change::Added),
                ("b.service", Change::Changed),
                ("c.socket", Change::Added),
                ("old.service", Change::Removed),
                ("x.timer", Change::Changed),
            ]
        );
    }

    #[test]
    fn what_is_not_listed_is_counted() {
        let many = (0..MOST_LISTED + 5).map(|n| PathBuf::from(format!("usr/{n}"))).collect();
        let told = describe(BTreeSet::new(), many, BTreeSet::new());
        assert_eq!((told.files.len(), told.files_left_out), (MOST_LISTED, 5));
        assert_eq!(told.counts.added, MOST_LISTED as u64 + 5);
    }
}
