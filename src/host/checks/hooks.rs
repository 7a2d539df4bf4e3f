//! Finds hooks, and says which of them must not be run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use apt_ostree_actors::port::{Hook, HookKind};

use rustix::io::Errno;

use super::DIRECTORIES;

/// How many of a kind are run: a directory with more was filled by mistake.
const MOST_HOOKS: usize = 64;

/// A link to this takes a hook away.
const NOWHERE: &str = "/dev/null";

/// How many links may lead from one to the next, as in the kernel: `path_resolution(7)`.
const MOST_LINKS: usize = 40;

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

/// The file that it leads to, or why it must not be run. It runs as root, so nobody else may be able to
/// change it, nor what leads to it: what is judged is to be run, and not what the path leads to later.
pub(super) fn judge(path: &Path) -> Result<PathBuf, String> {
    let (target, passed) = match follow(path) {
        Ok(found) => found,
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
    if let Some(why) = changeable(&file, has_list(&target)) {
        return Err(why);
    }
    for place in passed {
        if let Some(why) = changeable(&looked(&place)?, has_list(&place)) {
            return Err(format!("stands below \"{}\", which {why}", place.display()));
        }
    }
    Ok(target)
}

/// The file that an absolute path leads to, and every directory in which a name was looked up on the way,
/// those that links lead through included.
fn follow(path: &Path) -> io::Result<(PathBuf, BTreeSet<PathBuf>)> {
    let parts = |path: &Path| -> VecDeque<PathBuf> {
        path.components().map(|part| PathBuf::from(part.as_os_str())).collect()
    };
    let (mut open, mut at, mut passed, mut links) =
        (parts(path), PathBuf::from("/"), BTreeSet::new(), 0);
    while let Some(part) = open.pop_front() {
        match part.components().next() {
            Some(Component::ParentDir) => {
                at.pop();
            }
            Some(Component::Normal(name)) => {
                passed.insert(at.clone());
                let next = at.join(name);
                if !next.symlink_metadata()?.is_symlink() {
                    at = next;
                    continue;
                }
                links += 1;
                if links > MOST_LINKS {
                    return Err(io::Error::from_raw_os_error(Errno::LOOP.raw_os_error()));
                }
                let mut more = parts(&fs::read_link(&next)?);
                more.append(&mut open);
                open = more;
            }
            Some(Component::RootDir) => at = PathBuf::from("/"),
            _ => {}
        }
    }
    Ok((at, passed))
}

/// Whether it has an access control list, acl(5); also where that cannot be told.
fn has_list(path: &Path) -> bool {
    let none: &mut [u8] = &mut [];
    match rustix::fs::getxattr(path, "system.posix_acl_access", none) {
        Ok(length) => length > 0,
        Err(error) => !matches!(error, Errno::NODATA | Errno::OPNOTSUPP),
    }
}

/// How somebody else than root could change a file or directory. With a list, the mode's bits for the
/// group are the most that anybody in the list may do.
fn changeable(status: &fs::Metadata, has_list: bool) -> Option<String> {
    let is_group_writable = status.mode() & 0o020 != 0 && (status.gid() != 0 || has_list);
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

    #[test]
    fn every_directory_on_the_way_to_the_file_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        put(&root, "c/d/real", 0o755);
        for name in ["a", "b"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        symlink("../b/middle", root.join("a/first")).unwrap();
        symlink(root.join("c/d/../d/real"), root.join("b/middle")).unwrap();
        let (target, passed) = follow(&root.join("a/first")).unwrap();
        assert_eq!(target, root.join("c/d/real"));
        for place in ["", "a", "b", "c", "c/d"] {
            assert!(passed.contains(&root.join(place)), "{place} in {passed:?}");
        }
        assert!(passed.contains(Path::new("/")));
        symlink("loop", root.join("a/loop")).unwrap();
        assert!(follow(&root.join("a/loop")).is_err());

        // Whoever may write there may put another link there.
        fs::set_permissions(root.join("b"), fs::Permissions::from_mode(0o777)).unwrap();
        let why = judge(&root.join("a/first")).unwrap_err();
        assert!(why.contains("which is writable") || why.contains("belongs to user"), "{why}");
    }

    /// By numbers: a test need not run as root.
    #[test]
    fn what_somebody_else_could_change_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), &format!("{ADMIN}/x"), 0o757);
        let status = fs::metadata(directory.path().join(ADMIN).join("x")).unwrap();
        let why = changeable(&status, false).unwrap();
        let expected = match status.uid() {
            0 => "is writable by others than root".to_owned(),
            uid => format!("belongs to user {uid} and not to root"),
        };
        assert_eq!(why, expected);
        if (status.uid(), status.gid()) == (0, 0) {
            put(directory.path(), &format!("{ADMIN}/of-group"), 0o775);
            let path = directory.path().join(ADMIN).join("of-group");
            let status = fs::metadata(&path).unwrap();
            assert_eq!((changeable(&status, false), has_list(&path)), (None, false));
            assert_eq!(changeable(&status, true), Some(expected));
        }
    }
}
