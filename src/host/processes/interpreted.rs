//! Which files a process has read as an interpreter, and which of them changed since it began.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use apt_ostree_actors::port::TreeChange;

use super::effort::{Efforts, Stop};
use super::interpreters::{Language, Resolved, Root, Sources, Started};
use super::{Host, Process};

/// How many clock ticks the kernel counts in a second for `/proc`, on every architecture of Debian's:
/// proc(5), `starttime`.
const TICKS_IN_A_SECOND: i64 = 100;

/// How much later than the process's begin a file must have changed. A process begins within a tick of
/// what the kernel says, and a file's time is as coarse.
const TOLERANCE_MILLISECONDS: i64 = 50;

/// What is no part of an installed program, but for what these places hold of it.
const NOT_INSTALLED: &[&str] = &["/tmp", "/run", "/var"];
/// Where `/usr/local` and `/opt` are where `/usr` is read-only.
const INSTALLED: &[&str] = &["/var/usrlocal", "/var/opt"];

/// Reads processes of interpreters.
#[derive(Debug)]
pub(super) struct Interpreted {
    sources: Sources,
    efforts: Efforts,
    command_line: Vec<u8>,
    environment: Vec<u8>,
}

impl Interpreted {
    pub(super) fn new(stop: &Stop) -> Self {
        Self {
            sources: Sources::default(),
            efforts: Efforts::new(stop),
            command_line: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// The files of the program that a process interprets; none for one that is no interpreter, or
    /// whose arguments name no file. `program` is what it executes.
    pub(super) fn files(
        &mut self,
        host: &Host,
        process: &Process,
        program: &Path,
        with_modules: bool,
    ) -> Option<Rc<[Rc<Resolved>]>> {
        let language = Language::of(program)?;
        if !process.read("cmdline", &mut self.command_line) {
            return None;
        }
        // A process without an environment has none to tell.
        process.read("environ", &mut self.environment);
        let effort = self.efforts.of(host.owner(process)?);
        let read = self.command_line.len() + self.environment.len();
        effort.read(u64::try_from(read).unwrap_or(u64::MAX)).ok()?;
        let root = Root::of(&process.directory)?;
        let directory = root.directory_of(&process.directory).unwrap_or_else(|| "/".into());
        let (command_line, environment) = (&self.command_line, &self.environment);
        let started = Started::read(language, program, directory, command_line, environment)?;
        Some(self.sources.of(&root, &started, with_modules, effort))
    }
}

/// Whether the process's language keeps its files open, so that they are found among its descriptors.
pub(super) fn keeps_files_open(program: &Path) -> bool {
    Language::of(program) == Some(Language::Java)
}

/// By path: when it changed, and the device and inode of what was there before.
type Changed = HashMap<PathBuf, Vec<(i64, Option<(u64, u64)>)>>;

/// Tells which files changed since a process began.
#[derive(Debug)]
pub(super) struct Changes {
    /// When updates changed a path, in milliseconds since 1970, and the file that was there before;
    /// oldest first.
    changed: Changed,
    /// When the host booted.
    booted_milliseconds: i64,
}

impl Changes {
    pub(super) fn new(changes: &[TreeChange]) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let up = up.tv_sec * 1_000 + up.tv_nsec / 1_000_000;
        Self { changed: by_path(changes), booted_milliseconds: now - up }
    }

    /// When the process began, in milliseconds since 1970, by today's clock.
    pub(super) fn begin_of(&self, process: &Process, buffer: &mut Vec<u8>) -> Option<i64> {
        if !process.read("stat", buffer) {
            return None;
        }
        let ticks = start_ticks(buffer)?;
        Some(self.booted_milliseconds + ticks.saturating_mul(1_000) / TICKS_IN_A_SECOND)
    }

    /// Whether the file changed after `begin`.
    ///
    /// A file that OSTree checked out has no time of its own, and every checkout of the same file
    /// changes its inode's time; of an empty one each checkout makes another. There, what updates have changed tells, and whether the file that was there
    /// when the process began is there again. Any other file has changed when its inode
    /// has: it is written anew, or another is put in its place.
    pub(super) fn is_since(&self, file: &Resolved, begin: i64) -> bool {
        let is_below = |places: &[&str]| places.iter().any(|place| file.path.starts_with(place));
        if is_below(NOT_INSTALLED) && !is_below(INSTALLED) {
            return false;
        }
        if file.modified == 0 || file.is_empty {
            let changes = self.changed.get(&file.path).into_iter().flatten();
            let first = changes.into_iter().find(|(at, _)| *at > begin);
            return first.is_some_and(|(_, before)| *before != Some((file.device, file.inode)));
        }
        file.changed_milliseconds > begin + TOLERANCE_MILLISECONDS
    }
}

fn by_path(changes: &[TreeChange]) -> Changed {
    let mut changed = Changed::new();
    for change in changes {
        for (path, before) in &change.paths {
            changed.entry(path.clone()).or_default().push((change.at_milliseconds, *before));
        }
    }
    for changes in changed.values_mut() {
        changes.sort_unstable();
    }
    changed
}

/// When the process began, in ticks since the boot: field 22 of `/proc/PID/stat`. The second one, the
/// name, may hold anything, parentheses included.
fn start_ticks(stat: &[u8]) -> Option<i64> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    text.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_begins_at_the_22nd_field_whatever_its_name_is() {
        let fields = "S 1 2 3 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4242 99 100";
        for name in ["nginx", "a b", "x) S 1 (y", ""] {
            let stat = format!("17 ({name}) {fields}\n");
            assert_eq!(start_ticks(stat.as_bytes()), Some(4242), "{stat}");
        }
        for stat in ["", "17 nginx S", "17 (x) S 1"] {
            assert_eq!(start_ticks(stat.as_bytes()), None, "{stat}");
        }
    }

    #[test]
    fn a_file_of_the_tree_changes_with_updates_and_any_other_with_its_inode() {
        let change = |at_milliseconds, path: &str, before| TreeChange {
            at_milliseconds,
            paths: [(PathBuf::from(path), before)].into(),
        };
        let changes = Changes {
            changed: by_path(&[
                change(5_000, "/usr/lib/a.py", Some((1, 2))),
                change(3_000, "/usr/lib/a.py", Some((1, 1))),
                change(3_000, "/usr/lib/new.py", None),
            ]),
            booted_milliseconds: 0,
        };
        let file = |name: &str, modified, changed| Resolved {
            path: name.into(),
            device: 1,
            inode: 1,
            is_empty: false,
            modified,
            changed_milliseconds: changed,
        };
        for (found, begin, expected) in [
            // Checked out after the process began, but not changed.
            (file("/usr/lib/other.py", 0, 9_000), 4_000, false),
            (file("/usr/lib/a.py", 0, 0), 4_000, true),
            (file("/usr/lib/a.py", 0, 0), 6_000, false),
            // There again.
            (file("/usr/lib/a.py", 0, 0), 2_000, false),
            (file("/usr/lib/new.py", 0, 0), 2_000, true),
            (Resolved { is_empty: true, ..file("/usr/lib/__init__.py", 9, 9_000) }, 4_000, false),
            // Put there by dpkg.
            (file("/usr/lib/a.py", 7, 7_000), 6_000, true),
            (file("/usr/lib/a.py", 7, 6_010), 6_000, false),
            (file("/var/usrlocal/bin/x.py", 7, 7_000), 6_000, true),
            (file("/var/lib/x.py", 7, 7_000), 6_000, false),
            (file("/tmp/x.py", 7, 7_000), 6_000, false),
        ] {
            assert_eq!(changes.is_since(&found, begin), expected, "{found:?} {begin}");
        }
    }
}
