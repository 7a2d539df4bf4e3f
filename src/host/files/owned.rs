//! Which files of `/var` packages own, by dpkg's file lists.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::changes::ends_with;

/// Paths within `/var` that the lists in `directory` (`/var/lib/dpkg/info`) name.
pub(super) fn below_var(directory: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut owned = BTreeSet::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if !ends_with(&path, ".list") {
            continue;
        }
        let list = std::fs::read(&path)?;
        for line in String::from_utf8_lossy(&list).lines() {
            if let Some(path) = line.strip_prefix("/var/") {
                owned.insert(PathBuf::from(path));
            }
        }
    }
    Ok(owned)
}
