//! Conffiles in their pristine state, for `/usr/etc`: what OSTree's merge of `/etc` compares with.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use ostree::glib::{ChecksumType, compute_checksum_for_data};

/// What happens to one path of `/usr/etc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pristine {
    /// The file `from` of the staged `/etc` is what the package ships as `to`.
    Put {
        /// Path within the upper tree.
        from: PathBuf,
        /// Path within `/usr/etc`.
        to: PathBuf,
    },
    /// The package ships it no more.
    Remove {
        /// Path within `/usr/etc`.
        to: PathBuf,
    },
}

/// The conffiles that a dpkg status file lists, with their MD5: dpkg-query(1) `Conffiles`, paths
/// without the leading `/etc/`.
pub(super) fn parse(status: &str) -> BTreeMap<PathBuf, String> {
    let mut listed = BTreeMap::new();
    let mut inside = false;
    for line in status.lines() {
        inside = if line.starts_with(' ') { inside } else { line.starts_with("Conffiles:") };
        let mut words = line.split(' ').skip(1);
        if let (true, Some(path), Some(md5)) = (inside, words.next(), words.next())
            && let Ok(below) = Path::new(path).strip_prefix("/etc")
        {
            listed.insert(below.to_path_buf(), md5.to_owned());
        }
    }
    listed
}

/// Finds what of the staged `/etc` is pristine. `ld.so.cache` belongs to the libraries of the tree
/// and goes along.
pub(super) fn find(
    upper: &Path,
    old: &BTreeMap<PathBuf, String>,
    new: &BTreeMap<PathBuf, String>,
) -> std::io::Result<Vec<Pristine>> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(upper.join(&directory))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let below = directory.join(entry.file_name());
            if kind.is_dir() {
                directories.push(below);
            } else if kind.is_char_device() && old.contains_key(&below) && !new.contains_key(&below)
            {
                found.push(Pristine::Remove { to: below });
            } else if kind.is_file()
                && let Some(to) = pristine_name(&upper.join(&below), &below, new)?
            {
                found.push(Pristine::Put { from: below, to });
            }
        }
    }
    Ok(found)
}

fn pristine_name(
    file: &Path,
    below: &Path,
    conffiles: &BTreeMap<PathBuf, String>,
) -> std::io::Result<Option<PathBuf>> {
    if below == Path::new("ld.so.cache") {
        return Ok(Some(below.to_path_buf()));
    }
    // dpkg leaves its own version beside a file that the admin has changed.
    let shipped = below.extension().is_some_and(|extension| extension == "dpkg-dist");
    let name = if shipped { below.with_extension("") } else { below.to_path_buf() };
    let Some(wanted) = conffiles.get(&name) else { return Ok(None) };
    let md5 = compute_checksum_for_data(ChecksumType::Md5, &fs::read(file)?);
    Ok(md5.is_some_and(|md5| md5.as_str() == wanted.as_str()).then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\
Package: a
Status: install ok installed
Conffiles:
 /etc/a.conf d41d8cd98f00b204e9800998ecf8427e
 /etc/d/gone 00000000000000000000000000000000 obsolete
Description: x
 /etc/not-a-conffile d41d8cd98f00b204e9800998ecf8427e

Package: b
Conffiles:
 /opt/b.conf d41d8cd98f00b204e9800998ecf8427e
";

    #[test]
    fn only_conffile_lines_below_etc_are_read() {
        let listed = parse(STATUS);
        let names: Vec<&str> = listed.keys().filter_map(|path| path.to_str()).collect();
        assert_eq!(names, ["a.conf", "d/gone"]);
        assert_eq!(listed[Path::new("a.conf")], "d41d8cd98f00b204e9800998ecf8427e");
    }

    #[test]
    fn the_pristine_file_is_found_also_beside_one_that_the_admin_kept() {
        let upper = tempfile::tempdir().unwrap();
        for (name, text) in
            [("a.conf", "edited"), ("a.conf.dpkg-dist", ""), ("ld.so.cache", "x"), ("other", "")]
        {
            fs::write(upper.path().join(name), text).unwrap();
        }
        let conffiles = parse(STATUS);
        let mut found = find(upper.path(), &conffiles, &conffiles).unwrap();
        found.sort_by_key(|pristine| format!("{pristine:?}"));
        let put = |from: &str, to: &str| Pristine::Put { from: from.into(), to: to.into() };
        assert_eq!(found, [put("a.conf.dpkg-dist", "a.conf"), put("ld.so.cache", "ld.so.cache")]);
    }
}
