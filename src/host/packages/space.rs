//! The space that a transaction takes, by file system: upper bounds from the packages' own sizes.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use apt_ostree_proto::package::PackageChange;
use apt_ostree_proto::plan::SpaceNeed;
use apt_ostree_proto::{ErrorCode, Failure};

use super::super::paths;
use super::status::Status;

/// What a checkout with hard links, the snapshot of `/etc`, the shims and a deployment take besides
/// the packages: directories and metadata of some 50,000 files, measured at 30 MB, doubled.
const TREE_BYTES: u64 = 64 << 20;
/// What the journal, the history and the staged delta of `/var` take at the most.
const STATE_BYTES: u64 = 16 << 20;
/// What the service manager wants to have free before it reads units again, in either direction, and
/// half as much besides: `RELOAD_DISK_SPACE_MIN` of systemd.
const RUNTIME_BYTES: u64 = 24 << 20;
/// How often dpkg's database is there at once while it is rewritten: upper directory, its new and old
/// copies, the commit.
const DATABASE_COPIES: u64 = 4;
/// OSTree's own reserve where its configuration says nothing, in percent: `min-free-space-percent`
/// in ostree.repo-config(5).
const DEFAULT_RESERVE_PERCENT: u64 = 3;

/// Where a transaction takes space.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// apt's archive cache.
    pub(super) archives: PathBuf,
    /// The physical root: staging area, objects, checkout.
    pub(super) sysroot: PathBuf,
    /// OSTree's repository, for its reserve.
    pub(super) repository: PathBuf,
    /// The daemon's state.
    pub(super) state: PathBuf,
    /// The service manager's state.
    pub(super) runtime: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            archives: PathBuf::from(paths::ARCHIVES),
            sysroot: PathBuf::from(paths::SYSROOT),
            repository: PathBuf::from(paths::REPOSITORY),
            state: PathBuf::from(paths::STATE_DIRECTORY),
            runtime: PathBuf::from("/run"),
        }
    }
}

impl Places {
    /// What the changes take at the most on each file system that they touch.
    pub(super) fn needs(
        &self,
        changes: &[PackageChange],
        status: &Status,
        database_bytes: u64,
    ) -> Result<Vec<SpaceNeed>, Failure> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let unpacked = unpacked_bytes(changes, status);
        // Unpacked in the staging area, and once more as objects of the commit.
        let staged = 2 * unpacked + DATABASE_COPIES * database_bytes + TREE_BYTES;
        let mut places = [
            (&self.archives, self.missing_bytes(changes)),
            (&self.sysroot, staged + self.reserve_bytes()),
            (&self.state, STATE_BYTES),
            (&self.runtime, RUNTIME_BYTES),
        ];
        // A file system is called by the place that takes the most of it.
        places.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let mut needs: BTreeMap<u64, SpaceNeed> = BTreeMap::new();
        for (path, bytes) in places {
            let place = existing(path);
            let unreadable = |error: &io::Error| {
                let what = format!("the space at {} is unknown", place.display());
                Failure::caused(ErrorCode::Internal, &what, error)
            };
            let device = place.metadata().map_err(|error| unreadable(&error))?.dev();
            let statistics =
                rustix::fs::statvfs(place).map_err(|error| unreadable(&error.into()))?;
            let need = needs.entry(device).or_insert_with(|| SpaceNeed {
                path: path.clone(),
                needed_bytes: 0,
                available_bytes: statistics.f_bfree.saturating_mul(statistics.f_frsize),
            });
            need.needed_bytes = need.needed_bytes.saturating_add(bytes);
        }
        Ok(needs.into_values().collect())
    }

    /// The bytes that are not in the archive cache yet.
    fn missing_bytes(&self, changes: &[PackageChange]) -> u64 {
        let files = changes.iter().filter_map(|change| change.file.as_ref());
        files
            .filter(|file| {
                let path = self.archives.join(&file.cache_name);
                path.metadata().map_or(true, |found| found.len() != file.size_bytes)
            })
            .map(|file| file.size_bytes)
            .sum()
    }

    /// What OSTree refuses to touch.
    fn reserve_bytes(&self) -> u64 {
        let config = std::fs::read_to_string(self.repository.join("config")).unwrap_or_default();
        match reserve(&config) {
            Reserve::Bytes(bytes) => bytes,
            Reserve::Percent(percent) => rustix::fs::statvfs(existing(&self.sysroot))
                .map_or(0, |all| all.f_blocks.saturating_mul(all.f_frsize) / 100 * percent),
        }
    }
}

/// The unpacked sizes of all new versions.
fn unpacked_bytes(changes: &[PackageChange], status: &Status) -> u64 {
    changes
        .iter()
        .filter(|change| change.new_version.is_some())
        .map(|change| {
            let old = status.installed(change.name.as_str(), change.architecture.as_str());
            let old = if change.old_version.is_some() { old } else { None };
            old.map_or(0, |package| package.installed_bytes)
                .saturating_add_signed(change.installed_growth_bytes)
        })
        .sum()
}

#[derive(Debug, PartialEq)]
enum Reserve {
    Bytes(u64),
    Percent(u64),
}

/// Reads OSTree's reserve from its repository's configuration; a size goes before a percentage.
fn reserve(config: &str) -> Reserve {
    let value = |wanted: &str| {
        config.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == wanted).then(|| value.trim())
        })
    };
    if let Some(bytes) = value("min-free-space-size").and_then(size) {
        return Reserve::Bytes(bytes);
    }
    let percent = value("min-free-space-percent").and_then(|value| value.parse().ok());
    Reserve::Percent(percent.unwrap_or(DEFAULT_RESERVE_PERCENT))
}

/// `500MB`, `2GB`, `1TB`: the only units that OSTree knows.
fn size(text: &str) -> Option<u64> {
    let units = [("MB", 20), ("GB", 30), ("TB", 40)];
    let (unit, shift) = units.into_iter().find(|(unit, _)| text.ends_with(unit))?;
    text.strip_suffix(unit)?.trim().parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The path, or what exists above it.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_of_ostree_is_read_from_its_configuration() {
        for (config, expected) in [
            ("[core]\nrepo_version=1\n", Reserve::Percent(3)),
            ("[core]\nmin-free-space-percent = 0\n", Reserve::Percent(0)),
            ("[core]\nmin-free-space-size=500MB\n", Reserve::Bytes(500 << 20)),
            ("[core]\nmin-free-space-size=nonsense\nmin-free-space-percent=5", Reserve::Percent(5)),
        ] {
            assert_eq!(reserve(config), expected, "{config}");
        }
    }

    #[test]
    fn needs_on_one_file_system_are_added_up() {
        let change = super::super::tests::change("p", Some("1"), Some("2"), 1000);
        let directory = tempfile::tempdir().unwrap();
        let below = |name: &str| directory.path().join(name);
        let places = Places {
            archives: below("archives"),
            sysroot: below("sysroot"),
            repository: below("repo"),
            state: below("state"),
            runtime: below("run"),
        };
        std::fs::create_dir(&places.repository).unwrap();
        let config = "[core]\nmin-free-space-percent=0\n";
        std::fs::write(places.repository.join("config"), config).unwrap();
        let needs = places.needs(&[change], &Status::default(), 10).unwrap();
        assert_eq!(needs.len(), 1);
        let fixed = TREE_BYTES + STATE_BYTES + RUNTIME_BYTES;
        // 500 bytes to fetch, 1000 to unpack twice, the database four times.
        assert_eq!(needs[0].needed_bytes, fixed + 500 + 2000 + 40);
        assert_eq!(needs[0].path, places.sysroot);
        assert!(needs[0].available_bytes > 0);
    }
}
