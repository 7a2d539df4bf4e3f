//! Which processes run code that is not what the present tree has in its place.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use apt_ostree_actors::port::{Manner, ProcessUse, Sighting, TreeChange};
use apt_ostree_proto::outdated::Place;

use super::effort::Stop;
use super::interpreted::{self, Changes, Interpreted};
use super::maps::Mapping;
use super::present::{Link, Old, Present, Seen, View};
use super::{FIRST_BUFFER_BYTES, Host, MOST_FILES_OF_UNITS, Process, Whose, kernel};

/// How many threads look at processes: most of that is the kernel's work, which each does on a processor of
/// its own; a few are enough to be done in no time, and leave a large host its others.
const MOST_THREADS: usize = 4;

/// How much of a path is told: one that is longer is cut, and names no file any more.
const LONGEST_TOLD_PATH: usize = 1_024;

impl Host {
    /// Looks at every process.
    pub(super) fn outdated(&self, changes: &[TreeChange], stop: &Stop) -> io::Result<Sighting> {
        let processes = self.processes()?;
        let mut present = Present::new(self);
        let (changes, mut interpreted) = (Changes::new(changes), Interpreted::new(stop));
        let mut buffer = Vec::with_capacity(FIRST_BUFFER_BYTES);
        let mut sighting = Sighting { kernel: kernel::of_host(), ..Sighting::default() };
        for look in self.side_by_side(&processes, stop)? {
            stop.check()?;
            sighting.processes += 1;
            let Look { process, program, seen: Some((view, mut found)) } = look else { continue };
            if let Some(files) = interpreted.files(self, process, &program, true)
                && let Some(begin) = changes.begin_of(process, &mut buffer)
            {
                let is_of_other_root = matches!(view, View::OtherRoot(..));
                for file in files.iter().filter(|file| changes.is_since(file, begin)) {
                    let old = Old { path: file.path.clone(), is_of_other_root };
                    found.add(&old, Manner::Interprets);
                }
            }
            if interpreted::keeps_files_open(&program) {
                found.add_open(process, &view, &mut present);
            }
            if found.0.is_empty() {
                continue;
            }
            let Some(whose) = self.whose(process) else { continue };
            if whose.place == Place::Host {
                found.0.retain(|path, (_, is_of_other_root)| {
                    *is_of_other_root || present.is_the_systems(path)
                });
            }
            sighting.uses.extend(found.uses(process, &view, &whose));
        }
        Ok(sighting)
    }

    /// What the processes execute and map, by several threads, in the order of the processes.
    fn side_by_side<'p>(&self, processes: &'p [Process], stop: &Stop) -> io::Result<Vec<Look<'p>>> {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        let share = processes.len().div_ceil(threads).max(1);
        thread::scope(|scope| {
            let shares: Vec<_> = processes
                .chunks(share)
                .map(|share| scope.spawn(move || self.looks(share, stop)))
                .collect();
            let mut looks = Vec::with_capacity(processes.len());
            for share in shares {
                let ended = share.join();
                looks.extend(ended.map_err(|_| io::Error::other("a look at processes panicked"))??);
            }
            Ok(looks)
        })
    }

    fn looks<'p>(&self, processes: &'p [Process], stop: &Stop) -> io::Result<Vec<Look<'p>>> {
        let own_pid = std::process::id();
        let mut present = Present::new(self);
        let mut buffer = Vec::with_capacity(FIRST_BUFFER_BYTES);
        let mut looks = Vec::with_capacity(processes.len());
        for process in processes {
            stop.check()?;
            // Kernel threads have no program, and what has ended has none any more.
            let Ok(program) = fs::read_link(process.directory.join("exe")) else { continue };
            // This daemon asks; it takes its new code when it next starts.
            let view = if process.pid == own_pid { None } else { self.view_of(process) };
            let seen = view.map(|view| {
                let mut found = Found::default();
                found.add_mapped(process, &view, &program, &mut present, &mut buffer);
                (view, found)
            });
            looks.push(Look { process, program, seen });
        }
        Ok(looks)
    }

    /// What of the files the process sees; none for one that has ended.
    fn view_of(&self, process: &Process) -> Option<View> {
        let root = fs::metadata(process.directory.join("root")).ok()?;
        let root = (root.dev(), root.ino());
        if root != self.root {
            return Some(View::OtherRoot(
                fs::read_link(process.directory.join("root")).ok()?,
                root,
            ));
        }
        let namespace = fs::metadata(process.directory.join("ns/mnt")).ok()?.ino();
        let is_host = namespace == self.mount_namespace;
        Some(if is_host { View::Host } else { View::OwnMounts(namespace) })
    }
}

/// What one process executes.
struct Look<'p> {
    process: &'p Process,
    program: PathBuf,
    /// What it sees, and what of the code that it maps is old; none where that is not looked at.
    seen: Option<(View, Found)>,
}

/// What one process uses that is not the present file, by path.
#[derive(Debug, Default)]
struct Found(BTreeMap<PathBuf, (Manner, bool)>);

impl Found {
    fn add(&mut self, old: &Old, manner: Manner) {
        if self.0.len() < MOST_FILES_OF_UNITS {
            self.0.entry(told(&old.path)).or_insert((manner, old.is_of_other_root));
        }
    }

    /// The program and what is mapped of other files to be executed.
    fn add_mapped(
        &mut self,
        process: &Process,
        view: &View,
        program: &Path,
        present: &mut Present<'_>,
        buffer: &mut Vec<u8>,
    ) {
        // A program whose text was moved to huge pages is in no line of its maps.
        if let Ok(file) = fs::metadata(process.directory.join("exe")) {
            let path = program.as_os_str().as_bytes();
            let link = Link::Program;
            let seen = Seen { device: file.dev(), inode: file.ino(), path, link };
            if let Some(old) = present.judge(process, view, seen) {
                self.add(&old, Manner::Maps);
            }
        }
        if !process.read("maps", buffer) {
            return;
        }
        let mut last = (0, 0);
        for mapping in buffer.split(|byte| *byte == b'\n').filter_map(Mapping::parse) {
            let identity = (mapping.device, mapping.inode);
            // A file has several lines in a row.
            if identity == last || !mapping.is_code() {
                continue;
            }
            last = identity;
            let Mapping { device, inode, path, range, .. } = mapping;
            let seen = Seen { device, inode, path, link: Link::Mapping(range) };
            if let Some(old) = present.judge(process, view, seen) {
                self.add(&old, Manner::Maps);
            }
        }
    }

    /// The archives that the process has open.
    fn add_open(&mut self, process: &Process, view: &View, present: &mut Present<'_>) {
        for (name, path) in process.open_archives() {
            let Ok(file) = fs::metadata(process.directory.join("fd").join(&name)) else { continue };
            let link = Link::Descriptor(&name);
            let path = path.as_os_str().as_bytes();
            let seen = Seen { device: file.dev(), inode: file.ino(), path, link };
            if let Some(old) = present.judge(process, view, seen) {
                self.add(&old, Manner::Maps);
            }
        }
    }

    fn uses<'a>(
        self,
        process: &'a Process,
        view: &'a View,
        whose: &'a Whose,
    ) -> impl Iterator<Item = ProcessUse> + 'a {
        let files = self.0.into_iter().take(whose.most_files());
        files.map(move |(path, (manner, is_of_other_root))| {
            let place = match (view, &whose.place) {
                (View::OtherRoot(root, _), Place::Host) if is_of_other_root => {
                    Place::Chroot { root: told(root), unit: whose.unit.clone() }
                }
                (_, place) => place.clone(),
            };
            let unit = whose.unit.clone().filter(|_| place == Place::Host);
            ProcessUse { pid: process.pid, unit, place, path, manner }
        })
    }
}

/// A path for an answer: what can be written there, and no more than that of it.
fn told(path: &Path) -> PathBuf {
    path.to_string_lossy().chars().take(LONGEST_TOLD_PATH).collect::<String>().into()
}
