//! Finds hooks, and says which of them must not be run.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use apt_ostree_actors::port::{Hook, HookKind};

use super::DIRECTORIES;

/// How many of a kind are run: a directory with more was filled by mistake.
const MOST_HOOKS: usize = 64;

/// A link to this takes a hook away.
const NOWHERE: &str = "/dev/null";

/// What dpkg, ucf and editors leave beside a file that they change.
const LEFTOVERS: &[&str] = &[
    "~",
    ".bak",
    ".swp",
    ".dpkg-old",
    ".dpkg-dist",
    ".dpkg-new",
    ".dpkg-tmp",
    ".dpkg-bak",
    ".ucf-old",
    ".ucf-dist",
    ".ucf-new",
];

/// The hooks of a kind below `root`, by name. One of the admin's takes the place of a package's with the
/// same name; a link to `/dev/null` takes it away.
pub fn find(root: &Path, kind: HookKind) -> io::Result<Vec<Hook>> {
    let mut found: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for directory in DIRECTORIES {
        let entries = match fs::read_dir(root.join(directory).join(kind.directory())) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if !is_leftover(&entry.file_name()) {
                found.insert(entry.file_name(), entry.path());
            }
        }
    }
    found.retain(|_, path| fs::read_link(path).map_or(true, |to| to != Path::new(NOWHERE)));
    let hook = |(index, (name, path)): (usize, (OsString, PathBuf))| {
        let too_many = format!("is one of more than {MOST_HOOKS}");
        let refused = if index < MOST_HOOKS { judge(&path).err() } else { Some(too_many) };
        Hook { kind, name: name.to_string_lossy().into_owned(), path, refused }
    };
    Ok(found.into_iter().enumerate().map(hook).collect())
}

fn is_leftover(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.') || LEFTOVERS.iter().any(|suffix| name.ends_with(suffix))
}

/// Why it must not be run, if it must not. It runs as root, so nobody else may be able to change it, nor
/// what leads to it.
pub(super) fn judge(path: &Path) -> Result<(), String> {
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err("leads to a file that is not there".to_owned());
        }
        Err(error) => return Err(format!("cannot be looked at: {error}")),
    };
    if target.to_str().is_none() || path.to_str().is_none() {
        return Err("has a name that is no text".to_owned());
    }
    let looked =
        |path: &Path| fs::metadata(path).map_err(|error| format!("cannot be looked at: {error}"));
    let file = looked(&target)?;
    if !file.is_file() {
        return Err("is no file".to_owned());
    }
    if file.mode() & 0o100 == 0 {
        return Err("is not executable".to_owned());
    }
    let own = path.parent().into_iter().flat_map(Path::ancestors);
    for place in std::iter::once(target.as_path()).chain(target.ancestors().skip(1)).chain(own) {
        if let Some(why) = changeable(&looked(place)?) {
            let place = if place == target {
                String::new()
            } else {
                format!("stands below \"{}\", which ", place.display())
            };
            return Err(format!("{place}{why}"));
        }
    }
    Ok(())
}

/// How somebody else than root could change a file or directory.
fn changeable(status: &fs::Metadata) -> Option<String> {
    let is_group_writable = status.mode() & 0o020 != 0 && status.gid() != 0;
    if status.uid() != 0 {
        Some(format!("belongs to user {} and not to root", status.uid()))
    } else if status.mode() & 0o002 != 0 || is_group_writable {
        Some("is writable by others than root".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn put(root: &Path, path: &str, mode: u32) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn found(root: &Path) -> Vec<(String, PathBuf, Option<String>)> {
        let hooks = find(root, HookKind::Required).unwrap();
        hooks.into_iter().map(|hook| (hook.name, hook.path, hook.refused)).collect()
    }

    const VENDOR: &str = "usr/lib/apt-ostree/check/required.d";
    const ADMIN: &str = "etc/apt-ostree/check/required.d";

    #[test]
    fn an_admins_hook_takes_the_place_of_a_packages_and_null_masks_it() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        assert!(found(root).is_empty());
        for name in ["20-same", "10-first", "30-masked", ".hidden", "x~", "x.dpkg-dist"] {
            put(root, &format!("{VENDOR}/{name}"), 0o755);
        }
        put(root, &format!("{ADMIN}/20-same"), 0o755);
        put(root, &format!("{ADMIN}/40-own"), 0o755);
        symlink(NOWHERE, root.join(ADMIN).join("30-masked")).unwrap();
        let paths: Vec<PathBuf> = found(root).into_iter().map(|(_, path, _)| path).collect();
        let expected =
            [format!("{VENDOR}/10-first"), format!("{ADMIN}/20-same"), format!("{ADMIN}/40-own")];
        assert_eq!(paths, expected.map(|path| root.join(path)));
    }

    #[test]
    fn what_is_not_executable_or_no_file_or_gone_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        put(root, &format!("{ADMIN}/a-not-executable"), 0o644);
        fs::create_dir(root.join(ADMIN).join("b-directory")).unwrap();
        symlink("nowhere", root.join(ADMIN).join("c-dangling")).unwrap();
        let refused: Vec<String> = found(root).into_iter().filter_map(|(_, _, why)| why).collect();
        let expected = ["is not executable", "is no file", "leads to a file that is not there"];
        assert_eq!(refused, expected);
    }

    /// By numbers: a test need not run as root.
    #[test]
    fn what_somebody_else_could_change_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), &format!("{ADMIN}/x"), 0o757);
        let status = fs::metadata(directory.path().join(ADMIN).join("x")).unwrap();
        let why = changeable(&status).unwrap();
        let expected = match status.uid() {
            0 => "is writable by others than root".to_owned(),
            uid => format!("belongs to user {uid} and not to root"),
        };
        assert_eq!(why, expected);
    }
}
