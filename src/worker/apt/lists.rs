//! apt's package lists on the disk. libapt renames new ones into place without a sync: after a power
//! cut they are empty, libapt takes their names for proof that they are there, and no update is ever
//! seen again until the repository changes.

use std::fs::{self, DirEntry, File};
use std::io;
use std::path::Path;

use apt_ostree_proto::{ErrorCode, Failure};

/// Less than this for users other than root, and a signature cannot be looked at: libapt's methods run
/// as `_apt`, and take a signed file of some hundred kilobytes apart in the directory for temporary files.
const LEAST_BYTES: u64 = 1 << 20;

/// Removes lists that a power cut emptied, so that the next refresh fetches them. One that is empty
/// in its repository costs a request. Without lists there is nothing to do.
pub(super) fn remove_empty(directory: &Path) -> io::Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    for entry in files(directory)? {
        if entry.metadata()?.len() == 0 && entry.file_name() != "lock" {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Returns when the lists are on the disk. What is there already costs nothing.
pub(super) fn make_durable(directory: &Path) -> io::Result<()> {
    for entry in files(directory)? {
        File::open(entry.path())?.sync_all()?;
    }
    File::open(directory)?.sync_all()
}

/// What to tell of a refresh that failed while one of these places was full. libapt takes that for a bad
/// signature.
pub(super) fn without_room(places: &[&Path]) -> Option<Failure> {
    places.iter().find_map(|place| {
        let room = rustix::fs::statvfs(*place).ok()?;
        let bytes = room.f_bavail.saturating_mul(room.f_frsize);
        let has_no_inode = room.f_files > 0 && room.f_favail == 0;
        let what = match (bytes < LEAST_BYTES, has_no_inode) {
            (true, _) => format!("{bytes} bytes available to users, and at least {LEAST_BYTES}"),
            (false, true) => "no inode available to users, and some".to_owned(),
            (false, false) => return None,
        };
        let place = place.display();
        let text = format!("{place} has {what} are needed to fetch the package lists");
        Some(Failure::new(ErrorCode::NoSpace, text))
    })
}

fn files(directory: &Path) -> io::Result<Vec<DirEntry>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push(entry);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_lists_go_and_all_else_stays() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [("lock", ""), ("a_InRelease", "signed"), ("a_Packages", "")] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        fs::create_dir(directory.path().join("partial")).unwrap();
        remove_empty(directory.path()).unwrap();
        make_durable(directory.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["a_InRelease", "lock", "partial"]);
    }
}
