//! Files and packages.

use std::collections::BTreeMap;

use apt_ostree_proto::inspection::FindingKind;

use super::{Found, Record, Sight};
use crate::port::{FileDifferenceKind, FileIdentity};

/// Files of the running tree against its commit, installed packages against the record, and what was
/// edited in `/etc`.
pub(super) fn examine(record: &Record, sight: &Sight) -> Vec<Found> {
    let mut found = of_files(sight);
    let newest = record.newest().and_then(|update| update.record.commit.as_ref());
    if newest == Some(&sight.host.running) {
        found.extend(of_packages(record, sight));
        found.extend(edited(record, sight));
    }
    found
}

fn of_files(sight: &Sight) -> Vec<Found> {
    let Some(comparison) = &sight.comparison else { return Vec::new() };
    let mut found = Vec::new();
    if let Some(why) = &comparison.not_compared {
        let expected = "its files compared with its commit";
        found.push(Found::new(FindingKind::FilesNotCompared, "/usr", expected, why.as_str()));
    }
    found.extend(comparison.differences.iter().map(|difference| {
        let kind = match difference.kind {
            FileDifferenceKind::Changed => FindingKind::FileChanged,
            FileDifferenceKind::Missing => FindingKind::FileMissing,
            FileDifferenceKind::Unknown => FindingKind::FileUnknown,
            FileDifferenceKind::Object => FindingKind::ObjectDamaged,
        };
        let (expected, is) = (difference.expected.as_str(), difference.found.as_str());
        Found::new(kind, difference.path.as_str(), expected, is)
    }));
    found
}

/// The newest update that names a package has the last word on its version.
fn of_packages(record: &Record, sight: &Sight) -> Vec<Found> {
    let mut expected: BTreeMap<(String, String), Option<String>> = BTreeMap::new();
    for update in record.chain() {
        for change in &update.record.changes {
            let name = (change.name.to_string(), change.architecture.to_string());
            let version = change.new_version.as_ref().map(ToString::to_string);
            expected.entry(name).or_insert(version);
        }
    }
    let mut found = Vec::new();
    for ((name, architecture), wanted) in expected {
        let key = (name, architecture);
        let is = sight.packages.get(&key);
        if is == wanted.as_ref() {
            continue;
        }
        let told = |version: Option<&String>| {
            version
                .map_or_else(|| "not installed".to_owned(), |version| format!("version {version}"))
        };
        let subject = format!("{}:{}", key.0, key.1);
        let (wanted, is) = (told(wanted.as_ref()), told(is));
        found.push(Found::new(FindingKind::PackageVersion, subject, wanted, is));
    }
    found
}

fn edited(record: &Record, sight: &Sight) -> Vec<Found> {
    let mut found = Vec::new();
    for (path, written) in &record.etc {
        let is = sight.etc.get(path).cloned().flatten();
        if is == *written {
            continue;
        }
        let subject = format!("/etc/{}", path.display());
        let told = |file: Option<&FileIdentity>| file.map_or_else(|| "gone".to_owned(), describe);
        let (wanted, is) = (told(written.as_ref()), told(is.as_ref()));
        found.push(Found::new(FindingKind::EtcEdited, subject, wanted, is));
    }
    found
}

fn describe(file: &FileIdentity) -> String {
    let FileIdentity { mode, uid, gid, sha256 } = file;
    let digest = sha256.as_ref().map(|digest| format!(", digest {}", &digest.as_str()[..12]));
    format!("mode {mode:o}, owner {uid}:{gid}{}", digest.unwrap_or_default())
}
