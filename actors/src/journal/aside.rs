//! Keeping aside what cannot be used.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use apt_ostree_proto::{ErrorCode, Failure};

use super::{DATABASE, seconds_now};

/// What SQLite keeps beside a database: <https://sqlite.org/tempfiles.html>.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// How many are kept at the most, some 20 MB each; the oldest go.
const MOST_KEPT: usize = 5;

/// How often a free name is looked for within one second.
const MOST_NAMES: usize = 100;

/// Gives the database and what belongs to it other names, durably, and answers the database's.
///
/// The database goes first. What is interrupted leaves companions without one, which
/// [`keep_orphans`] finds: a new database must never take them for its own.
pub(super) fn keep(directory: &Path, why: &str) -> Result<String, Failure> {
    let kept = || -> io::Result<String> {
        let name = free_name(directory, why)?;
        rename(directory, "", &name)?;
        keep_companions(directory, &name)?;
        drop_oldest(directory)?;
        fs::File::open(directory)?.sync_all()?;
        Ok(name)
    };
    kept().map_err(|error| unkept(directory, &error))
}

/// Copies nothing: keeps companions aside whose database is gone.
pub(super) fn keep_orphans(directory: &Path) -> Result<(), Failure> {
    let kept = || -> io::Result<()> {
        if directory.join(DATABASE).try_exists()? {
            return Ok(());
        }
        let mut orphans = Vec::new();
        for companion in COMPANIONS {
            if directory.join(format!("{DATABASE}{companion}")).try_exists()? {
                orphans.push(companion);
            }
        }
        if orphans.is_empty() {
            return Ok(());
        }
        let name = free_name(directory, "unreadable")?;
        keep_companions(directory, &name)?;
        fs::File::open(directory)?.sync_all()
    };
    kept().map_err(|error| unkept(directory, &error))
}

/// Whether there is a file with anything in it. An empty one is what a crash leaves of a new database.
pub(super) fn holds_something(path: &Path) -> Result<bool, Failure> {
    match fs::symlink_metadata(path) {
        Ok(status) => Ok(status.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failure::caused(
            ErrorCode::StateUnreadable,
            &format!("cannot look at {}", path.display()),
            &error,
        )),
    }
}

/// A name for a copy of the database, which is not there yet.
pub(super) fn free_name(directory: &Path, why: &str) -> io::Result<String> {
    let now = seconds_now();
    for number in 0..MOST_NAMES {
        let more = if number == 0 { String::new() } else { format!(".{number}") };
        let name = format!("{DATABASE}.{why}-{now}{more}");
        if !directory.join(&name).try_exists()? {
            return Ok(name);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn keep_companions(directory: &Path, name: &str) -> io::Result<()> {
    COMPANIONS.into_iter().try_for_each(|companion| rename(directory, companion, name))
}

fn rename(directory: &Path, companion: &str, name: &str) -> io::Result<()> {
    let from = directory.join(format!("{DATABASE}{companion}"));
    match fs::rename(from, directory.join(format!("{name}{companion}"))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes all but the newest that were kept, with what belongs to them.
fn drop_oldest(directory: &Path) -> io::Result<()> {
    let mut kept: Vec<(i64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Some(seconds) = entry.file_name().to_str().and_then(kept_at) else { continue };
        kept.push((seconds, entry.path()));
    }
    let mut times: Vec<i64> = kept.iter().map(|(seconds, _)| *seconds).collect();
    times.sort_unstable();
    times.dedup();
    let gone = times.len().saturating_sub(MOST_KEPT);
    let old = |seconds: &i64| times[..gone].contains(seconds);
    kept.iter().filter(|(seconds, _)| old(seconds)).try_for_each(|(_, path)| fs::remove_file(path))
}

/// When a file of this name was kept aside.
fn kept_at(name: &str) -> Option<i64> {
    let (_, rest) = name.strip_prefix(DATABASE)?.strip_prefix('.')?.split_once('-')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

fn unkept(directory: &Path, error: &io::Error) -> Failure {
    let what = format!("what cannot be read in {} cannot be kept aside", directory.display());
    Failure::caused(ErrorCode::StateUnreadable, &what, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_five_that_were_kept_stay_with_what_belongs_to_them() {
        let directory = tempfile::tempdir().unwrap();
        for number in 1..=7 {
            for end in ["", "-wal"] {
                let name = format!("state.db.unreadable-{number}{end}");
                fs::write(directory.path().join(name), "x").unwrap();
            }
        }
        for other in ["state.db", "state.db-wal", "state.db.mine", "ballast"] {
            fs::write(directory.path().join(other), "x").unwrap();
        }
        drop_oldest(directory.path()).unwrap();
        let mut left: Vec<String> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let kept = (3..=7).flat_map(|number| {
            ["", "-wal"].map(|end| format!("state.db.unreadable-{number}{end}"))
        });
        let mut expected: Vec<String> = ["ballast", "state.db", "state.db-wal", "state.db.mine"]
            .map(str::to_owned)
            .into_iter()
            .chain(kept)
            .collect();
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn a_log_without_its_database_is_kept_from_the_next_database() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("state.db-wal"), "an orphan").unwrap();
        keep_orphans(directory.path()).unwrap();
        let names: Vec<String> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names.len(), 1);
        assert!(names[0].starts_with("state.db.unreadable-") && names[0].ends_with("-wal"));
        keep_orphans(directory.path()).unwrap();
    }
}
