//! Which members a package may have.
//!
//! dpkg unpacks as root and follows what is there, so a package must not place anything outside of
//! what a commit holds: `/usr`, `/etc` and `/var`, and the names in `/` that merged-usr makes links
//! into `/usr`.

use std::collections::HashMap;

use super::DebError;
use super::tarball::{Kind, Member};
use crate::host::tree::layout::KERNEL_FILES;

/// How many members a package may have; Debian's largest has some 200,000.
const MOST_MEMBERS: usize = 1_000_000;
/// How much the names of all members may take together.
const LONGEST_NAMES_BYTES: usize = 128 << 20;
/// How many objections are kept.
const OBJECTIONS_KEPT: usize = 20;
/// How many links are followed for one path, as in the kernel.
const MOST_LINKS: usize = 40;
/// How much of a name is shown to people.
const SHOWN_CHARACTERS: usize = 120;

/// Names in `/` that merged-usr makes links to the same name in `/usr`.
const ALIASES: &[&[u8]] = &[b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"libo32", b"libx32"];
/// What a commit holds.
const TREES: &[&[u8]] = &[b"usr", b"etc", b"var"];

/// Judges the members of one package.
#[derive(Debug, Default)]
pub(super) struct Judge {
    seen: HashMap<Vec<u8>, Seen>,
    names_bytes: usize,
    objections: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Directory,
    File,
    Symlink(Vec<u8>),
}

impl Judge {
    /// Looks at one member.
    pub(super) fn add(&mut self, member: &Member) -> Result<(), DebError> {
        if self.seen.len() >= MOST_MEMBERS || self.names_bytes > LONGEST_NAMES_BYTES {
            return Err(DebError::malformed("it has too many members"));
        }
        let name = &member.name;
        self.names_bytes += name.len();
        if name.is_empty() || name.contains(&0) {
            return Err(DebError::malformed("a member has no usable name"));
        }
        if name.starts_with(b"/") {
            // dpkg would take the slash off; dpkg-deb never writes one.
            self.object(name, "its path is absolute");
            return Ok(());
        }
        let Some(path) = normalize(name) else {
            self.object(name, "its path leaves the root");
            return Ok(());
        };
        if let Kind::Special(what) = member.kind {
            self.object(name, &format!("it is {what}"));
            return Ok(());
        }
        if let Some(reason) = outside(&path, &member.kind) {
            self.object(name, reason);
            return Ok(());
        }
        let seen = match &member.kind {
            Kind::Directory => Seen::Directory,
            Kind::Symlink(target) => {
                self.names_bytes += target.len();
                Seen::Symlink(target.clone())
            }
            Kind::HardLink(target) => {
                let known = normalize(target).and_then(|target| self.seen.get(&target));
                if known != Some(&Seen::File) {
                    self.object(
                        name,
                        "it is a hard link to something that is no file of the package",
                    );
                }
                Seen::File
            }
            Kind::File | Kind::Special(_) => Seen::File,
        };
        match self.seen.insert(path, seen.clone()) {
            Some(earlier) if !(earlier == Seen::Directory && seen == Seen::Directory) => {
                self.object(name, "the package has it twice");
            }
            _ => {}
        }
        Ok(())
    }

    /// What no package may have, each with the reason; the first few.
    pub(super) fn finish(mut self) -> Vec<String> {
        if self.seen.values().any(|seen| matches!(seen, Seen::Symlink(_))) {
            let mut through: Vec<_> = self
                .seen
                .keys()
                .filter(|path| self.passes_outside(path))
                .take(OBJECTIONS_KEPT)
                .cloned()
                .collect();
            through.sort();
            for path in through {
                self.object(
                    &path,
                    "it lies behind a symbolic link of the package that leads elsewhere",
                );
            }
        }
        self.objections
    }

    /// Whether a path goes through a link of the package that leads to none of its directories.
    fn passes_outside(&self, path: &[u8]) -> bool {
        let parents = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        parents.map(|(at, _)| &path[..at]).any(|parent| {
            matches!(self.seen.get(parent), Some(Seen::Symlink(_)))
                && !self.leads_to_own_directory(parent)
        })
    }

    /// Follows a link of the package as far as it leads.
    fn leads_to_own_directory(&self, link: &[u8]) -> bool {
        let mut path = link.to_vec();
        for _ in 0..MOST_LINKS {
            match self.seen.get(&path) {
                Some(Seen::Directory) => return true,
                Some(Seen::Symlink(target)) => {
                    let joined = if target.starts_with(b"/") {
                        target.clone()
                    } else {
                        let parent = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                        [&path[..parent], b"/", target].concat()
                    };
                    let Some(next) = resolve_dots(&joined) else { return false };
                    path = next;
                }
                Some(Seen::File) | None => return false,
            }
        }
        false
    }

    fn object(&mut self, name: &[u8], reason: &str) {
        if self.objections.len() < OBJECTIONS_KEPT {
            let text = String::from_utf8_lossy(name);
            let mut shown: String =
                text.chars().take(SHOWN_CHARACTERS).flat_map(char::escape_debug).collect();
            if text.chars().count() > SHOWN_CHARACTERS {
                shown.push('…');
            }
            self.objections.push(format!("\"{shown}\": {reason}"));
        }
    }
}

/// A member's path as dpkg takes it: without leading `./`, and with `/lib` as `/usr/lib`; none
/// if it has `..` in it. The root itself is empty.
fn normalize(name: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            part => parts.push(part),
        }
    }
    Some(join_merged(&parts))
}

/// The same for a link's target, where `..` is taken literally; none above the root.
fn resolve_dots(target: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(join_merged(&parts))
}

fn join_merged(parts: &[&[u8]]) -> Vec<u8> {
    let path = parts.join(&b'/');
    match parts {
        [first, _, ..] if ALIASES.contains(first) => [b"usr/", path.as_slice()].concat(),
        _ => path,
    }
}

/// Whether a name in `/boot` is one that the tree has beside the kernel's modules.
fn is_of_kernel(name: &[u8]) -> bool {
    let begins = |(prefix, _): &(&str, &str)| name.starts_with(prefix.as_bytes());
    !name.contains(&b'/') && KERNEL_FILES.iter().any(begins)
}

/// Why a path is outside of the tree; none if it is inside.
fn outside(path: &[u8], kind: &Kind) -> Option<&'static str> {
    let (first, rest) = match path.iter().position(|byte| *byte == b'/') {
        Some(at) => (&path[..at], Some(&path[at..])),
        None => (path, None),
    };
    match (rest, kind) {
        // base-files brings the root's own directories, and their merged-usr links.
        (None, Kind::Directory) => None,
        (None, Kind::Symlink(target)) if ALIASES.contains(&first) => {
            let merged = [b"usr/", first].concat();
            let leads_there = resolve_dots(target).is_some_and(|target| target == merged);
            (!leads_there).then_some("it is a link in the root directory that leads elsewhere")
        }
        (None, _) => Some("it is a file in the root directory, which is not part of the tree"),
        (Some(_), _) if TREES.contains(&first) => None,
        (Some(name), Kind::File) if first == b"boot" && is_of_kernel(&name[1..]) => None,
        (Some(_), _) => {
            Some("it is outside of /usr, /etc and /var, which are all that a tree holds")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(members: &[(&str, Kind)]) -> Vec<String> {
        let mut judge = Judge::default();
        for (name, kind) in members {
            let member =
                Member { name: name.as_bytes().to_vec(), kind: kind.clone(), size_bytes: 0 };
            judge.add(&member).unwrap();
        }
        judge.finish()
    }

    fn link(target: &str) -> Kind {
        Kind::Symlink(target.as_bytes().to_vec())
    }

    fn hard(target: &str) -> Kind {
        Kind::HardLink(target.as_bytes().to_vec())
    }

    #[test]
    fn ordinary_packages_have_nothing_forbidden() {
        use Kind::{Directory, File};
        let members = [
            ("./", Directory),
            ("./lib64", link("usr/lib64")),
            ("./boot/", Directory),
            ("./lib/", Directory),
            ("./lib/x.so.1.0", File),
            ("./lib/x.so.1", link("x.so.1.0")),
            ("./usr/", Directory),
            ("./usr/lib/", Directory),
            ("./usr/share/doc/a/", Directory),
            ("./usr/share/doc/a/copyright", File),
            ("./usr/share/doc/b", link("a")),
            ("./usr/share/doc/b/in-own-directory", File),
            ("./usr/bin/a", File),
            ("./usr/bin/b", hard("./usr/bin/a")),
            ("etc/plain", File),
            ("./etc/mtab", link("../proc/self/mounts")),
            ("./var/lib/a/", Directory),
            ("./boot/vmlinuz-6.1.0-9-amd64", File),
        ];
        assert_eq!(judge(&members), Vec::<String>::new());
    }

    #[test]
    fn each_way_out_of_the_tree_is_named() {
        use Kind::{Directory, File, Special};
        for (members, part) in [
            (vec![("./usr/../../x", File)], "leaves the root"),
            (vec![("../x", File)], "leaves the root"),
            (vec![("/etc/x", File)], "absolute"),
            (vec![("./opt/x", File)], "outside of /usr"),
            (vec![("./boot/vmlinuz", File)], "outside of /usr"),
            (vec![("./boot/vmlinuz-1/x", File)], "outside of /usr"),
            (vec![("./boot/vmlinuz-1", link("../x"))], "outside of /usr"),
            (vec![("./boot/grub/grub.cfg", File)], "outside of /usr"),
            (vec![("./home/me/", Directory)], "outside of /usr"),
            (vec![("./x", File)], "root directory"),
            (vec![("./lib", link("/tmp"))], "leads elsewhere"),
            (vec![("./usr", link("/tmp"))], "root directory"),
            (vec![("./dev/sda", Special("a block device"))], "a block device"),
            (vec![("./usr/a", link("/root")), ("./usr/a/b", File)], "behind a symbolic link"),
            (vec![("./usr/a/b", File), ("./usr/a", link("../root"))], "behind a symbolic link"),
            (vec![("./usr/a", link("a")), ("./usr/a/b", File)], "behind a symbolic link"),
            (vec![("./usr/a", link("../../../..")), ("./usr/a/b", File)], "behind a symbolic link"),
            (vec![("./usr/a", hard("/etc/shadow"))], "hard link"),
            (vec![("./usr/a", hard("../etc/shadow"))], "hard link"),
            (vec![("./usr/b", link("/etc/shadow")), ("./usr/a", hard("usr/b"))], "hard link"),
            (vec![("./usr/a", File), ("usr//./a", File)], "twice"),
            (vec![("./lib/a", File), ("./usr/lib/a", link("x"))], "twice"),
        ] {
            let objections = judge(&members);
            assert!(objections.iter().any(|o| o.contains(part)), "{members:?}: {objections:?}");
        }
    }

    #[test]
    fn objections_are_bounded_and_their_names_quoted() {
        let name = format!("opt/\u{1b}[2J\n{}", "x".repeat(1000));
        let mut judge = Judge::default();
        for _ in 0..100 {
            let member = Member { name: name.as_bytes().to_vec(), kind: Kind::File, size_bytes: 0 };
            judge.add(&member).unwrap();
        }
        let objections = judge.finish();
        assert_eq!(objections.len(), OBJECTIONS_KEPT);
        assert!(objections.iter().all(|o| o.len() < 300 && !o.contains(['\u{1b}', '\n'])));
    }
}
