//! The real process port: reads `/proc`.

mod cgroup;
mod effort;
mod interpreted;
mod interpreters;
mod kernel;
mod maps;
mod mountinfo;
mod outdated;
mod present;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use apt_ostree_actors::port::{
    Manner, PortResult, ProcessUse, Processes, ReplacedFile, Sighting, TreeChange,
};
use apt_ostree_proto::outdated::Place;
use apt_ostree_proto::{ErrorCode, Failure, UnitName};
use async_trait::async_trait;

use cgroup::Owner;
use effort::Stop;
use interpreted::Interpreted;
use maps::Replaced;

/// The buffer that one process's files are read into. The kernel hands out a page at a time; the
/// buffer only grows to the largest maps file, some hundred kilobytes.
const FIRST_BUFFER_BYTES: usize = 256 * 1024;

/// The same for a process's control groups, of which the kernel tells a few hundred bytes.
const CONTROL_GROUPS_BYTES: usize = 4 * 1024;

/// The most that is read of one file in `/proc`: above the maps of a process with 65,530 mappings,
/// the kernel's own default limit, each with a long path.
const LARGEST_FILE_BYTES: u64 = 32 * 1024 * 1024;

/// How many files of one process are told: of a unit's, far more than anybody reads; of any other's, whose
/// number nobody limits, those that come first.
const MOST_FILES_OF_UNITS: usize = 64;
const MOST_FILES_OF_OTHERS: usize = 8;

/// The process that tells what the host's own namespaces, root and control groups are.
const HOST_INIT: &str = "1";

/// The host's processes, as `/proc` shows them.
#[derive(Clone, Debug)]
pub struct ProcProcesses {
    proc: PathBuf,
}

impl Default for ProcProcesses {
    fn default() -> Self {
        Self::new()
    }
}

impl ProcProcesses {
    /// The processes of this host.
    pub fn new() -> Self {
        Self { proc: PathBuf::from("/proc") }
    }
}

#[async_trait(?Send)]
impl Processes for ProcProcesses {
    async fn users_of(&self, replaced: &[ReplacedFile]) -> PortResult<Vec<ProcessUse>> {
        if replaced.is_empty() {
            return Ok(Vec::new());
        }
        let (proc, replaced) = (self.proc.clone(), replaced.to_vec());
        scan(move |stop| Host::open(&proc, HOST_INIT)?.users_of(&replaced, stop)).await
    }

    async fn own_mounts(&self) -> PortResult<Vec<(UnitName, PathBuf)>> {
        let proc = self.proc.clone();
        scan(move |_| Host::open(&proc, HOST_INIT)?.own_mounts()).await
    }

    async fn outdated(&self, changes: &[TreeChange]) -> PortResult<Sighting> {
        let (proc, changes) = (self.proc.clone(), changes.to_vec());
        scan(move |stop| Host::open(&proc, HOST_INIT)?.outdated(&changes, stop)).await
    }
}

/// Runs a scan where it may block; it stops when nobody waits for it any more.
async fn scan<T: Send + 'static>(
    work: impl FnOnce(&Stop) -> std::io::Result<T> + Send + 'static,
) -> PortResult<T> {
    let stop = Stop::default();
    let _waiting = stop.on_drop();
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::caused(ErrorCode::Internal, "the running processes cannot be read", error)
    };
    match tokio::task::spawn_blocking(move || work(&stop)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

/// What tells the host's own processes from those of containers.
struct Host {
    proc: PathBuf,
    /// The directory of the process that tells it.
    init: PathBuf,
    control_groups: cgroup::Root,
    pid_namespace: OsString,
    mount_namespace: u64,
    root: (u64, u64),
}

/// Whose a process is.
struct Whose {
    /// The unit of the system manager that it belongs to, also below another root.
    unit: Option<UnitName>,
    /// The host, a user or a container.
    place: Place,
}

impl Whose {
    /// How many files of one process are told.
    fn most_files(&self) -> usize {
        let is_of_unit = self.place == Place::Host && self.unit.is_some();
        if is_of_unit { MOST_FILES_OF_UNITS } else { MOST_FILES_OF_OTHERS }
    }
}

/// A directory of `/proc`. Whatever it lacks, the process has ended meanwhile or is a kernel thread.
struct Process {
    pid: u32,
    directory: PathBuf,
}

impl Host {
    /// Takes the process `init` for one that is surely the host's own.
    fn open(proc: &Path, init: &str) -> std::io::Result<Self> {
        let init = proc.join(init);
        let root = fs::metadata(init.join("root"))?;
        Ok(Self {
            proc: proc.to_owned(),
            control_groups: cgroup::Root::of(&fs::read_to_string(init.join("cgroup"))?),
            pid_namespace: fs::read_link(init.join("ns/pid"))?.into_os_string(),
            mount_namespace: fs::metadata(init.join("ns/mnt"))?.ino(),
            root: (root.dev(), root.ino()),
            init,
        })
    }

    /// Where this process finds what the host has at an absolute path.
    fn path(&self, path: &Path) -> PathBuf {
        self.init.join("root").join(path.strip_prefix("/").unwrap_or(path))
    }

    fn processes(&self) -> std::io::Result<Vec<Process>> {
        let mut processes = Vec::new();
        for entry in fs::read_dir(&self.proc)? {
            let entry = entry?;
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            processes.extend(pid.map(|pid| Process { pid, directory: entry.path() }));
        }
        processes.sort_by_key(|process| process.pid);
        Ok(processes)
    }

    fn users_of(&self, replaced: &[ReplacedFile], stop: &Stop) -> std::io::Result<Vec<ProcessUse>> {
        let with_modules = replaced.iter().any(|file| is_module(&file.path));
        let replaced = Replaced::new(replaced);
        let mut interpreted = Interpreted::new(stop);
        let own_pid = std::process::id();
        let mut buffer = Vec::with_capacity(FIRST_BUFFER_BYTES);
        let mut found = Vec::new();
        for process in self.processes()? {
            stop.check()?;
            // This daemon asks; it takes its new code when it next starts.
            if process.pid == own_pid {
                continue;
            }
            let Ok(program) = fs::read_link(process.directory.join("exe")) else { continue };
            let mut used: BTreeSet<&Path> = BTreeSet::new();
            if process.read("maps", &mut buffer) {
                used.extend(replaced.in_maps(&buffer));
            }
            // A program whose text was moved to huge pages is in no line of its maps.
            if let Ok(file) = fs::metadata(process.directory.join("exe")) {
                used.extend(replaced.by_identity(file.dev(), file.ino()));
            }
            if interpreted::keeps_files_open(&program) {
                used.extend(replaced.open_in(&process));
            }
            let read = interpreted.files(self, &process, &program, with_modules);
            let read: BTreeSet<&Path> = read
                .iter()
                .flat_map(|files| files.iter())
                .filter_map(|f| replaced.file(f))
                .collect();
            if used.is_empty() && read.is_empty() {
                continue;
            }
            let Some(whose) = self.whose(&process) else { continue };
            let most = whose.most_files();
            let Whose { unit, place } = whose;
            let mapped = used.iter().map(|path| (*path, Manner::Maps));
            let read = read.difference(&used).map(|path| (*path, Manner::Interprets));
            found.extend(mapped.chain(read).take(most).map(|(path, manner)| ProcessUse {
                pid: process.pid,
                unit: unit.clone().filter(|_| place == Place::Host),
                place: place.clone(),
                path: path.to_owned(),
                manner,
            }));
        }
        Ok(found)
    }

    /// Whose the process is by its control group; none for one that has ended.
    fn owner(&self, process: &Process) -> Option<Owner> {
        let mut text = Vec::with_capacity(CONTROL_GROUPS_BYTES);
        if !process.read("cgroup", &mut text) {
            return None;
        }
        Some(cgroup::owner(&String::from_utf8_lossy(&text), &self.control_groups))
    }

    /// Whose the process is; none for one that has ended.
    fn whose(&self, process: &Process) -> Option<Whose> {
        let (unit, place) = match self.owner(process)? {
            Owner::Container(name) => (None, Place::Container { name }),
            // A browser's own sandbox is a user's process too.
            Owner::User(uid, unit) => (None, Place::User { uid, unit }),
            Owner::Unit(unit) if self.is_in_container(process)? => {
                let name = unit.to_string();
                (Some(unit), Place::Container { name })
            }
            Owner::Nobody if self.is_in_container(process)? => {
                (None, Place::Container { name: format!("process {}", process.pid) })
            }
            Owner::Unit(unit) => (Some(unit), Place::Host),
            Owner::Nobody => (None, Place::Host),
        };
        Some(Whose { unit, place })
    }

    /// Whether a process sees other processes and another root than the host does; one of the two
    /// alone is only a sandboxed service.
    fn is_in_container(&self, process: &Process) -> Option<bool> {
        let namespace = fs::read_link(process.directory.join("ns/pid")).ok()?;
        if namespace.as_os_str() == self.pid_namespace {
            return Some(false);
        }
        let root = fs::metadata(process.directory.join("root")).ok()?;
        Some((root.dev(), root.ino()) != self.root)
    }

    fn own_mounts(&self) -> std::io::Result<Vec<(UnitName, PathBuf)>> {
        let of_host: BTreeSet<PathBuf> =
            mountinfo::below_usr(&fs::read(self.proc.join("1/mountinfo"))?).collect();
        let own_namespace =
            |process: &Process| fs::read_link(process.directory.join("ns/mnt")).ok();
        let mut namespaces: HashMap<PathBuf, Vec<PathBuf>> = HashMap::new();
        let mut found: BTreeMap<UnitName, BTreeSet<PathBuf>> = BTreeMap::new();
        for process in self.processes()? {
            let Some(namespace) = own_namespace(&process) else { continue };
            let mounts = if let Some(mounts) = namespaces.get(&namespace) {
                mounts
            } else {
                // Each namespace once: services are many, namespaces few.
                let Ok(text) = fs::read(process.directory.join("mountinfo")) else { continue };
                let own = mountinfo::below_usr(&text).filter(|path| !of_host.contains(path));
                namespaces.entry(namespace).or_insert(own.collect())
            };
            if mounts.is_empty() {
                continue;
            }
            if let Some(Whose { unit: Some(unit), place: Place::Host }) = self.whose(&process) {
                found.entry(unit).or_default().extend(mounts.iter().cloned());
            }
        }
        Ok(found
            .into_iter()
            .flat_map(|(unit, paths)| paths.into_iter().map(move |path| (unit.clone(), path)))
            .collect())
    }
}

/// Whether an interpreter may read the file on behalf of another one.
fn is_module(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("py" | "pm" | "pl" | "rb" | "js" | "mjs" | "cjs" | "json"))
}

impl Process {
    /// The archives of Java that it has open: the descriptor, and where it leads.
    fn open_archives(&self) -> Vec<(OsString, PathBuf)> {
        let descriptors = fs::read_dir(self.directory.join("fd"));
        let entries = descriptors.into_iter().flatten().flatten();
        let archive = |entry: fs::DirEntry| {
            let target = fs::read_link(entry.path()).ok()?;
            let name = target.to_str()?;
            let name = name.strip_suffix(" (deleted)").unwrap_or(name);
            name.strip_suffix(".jar").is_some().then(|| (entry.file_name(), target))
        };
        entries.filter_map(archive).collect()
    }

    /// Reads one of its files whole. False when there is nothing to read: it has ended, or is a
    /// kernel thread.
    fn read(&self, name: &str, buffer: &mut Vec<u8>) -> bool {
        buffer.clear();
        let file = fs::File::open(self.directory.join(name));
        file.and_then(|file| file.take(LARGEST_FILE_BYTES).read_to_end(buffer)).is_ok()
            && !buffer.is_empty()
    }
}

/// Reads these bytes as each of the files that are read of a process.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let file = ReplacedFile { device: 0x103, inode: 1, path: PathBuf::from("/usr/bin/a") };
    let files = [file];
    let replaced = Replaced::new(&files);
    assert!(replaced.in_maps(data).iter().all(|path| **path == files[0].path));
    interpreters::fuzz(data);
    assert!(mountinfo::below_usr(data).all(|path| path.starts_with("/usr")));
    let text = String::from_utf8_lossy(data);
    let (init, other) = text.split_once('\0').unwrap_or((&text, &text));
    drop(cgroup::owner(other, &cgroup::Root::of(init)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_scan_that_nobody_waits_for_any_more_stops() {
        let (told, heard) = std::sync::mpsc::channel();
        let scan = scan(move |stop| {
            while stop.check().is_ok() {
                std::thread::yield_now();
            }
            told.send(()).map_err(std::io::Error::other)
        });
        assert!(tokio::time::timeout(std::time::Duration::from_millis(10), scan).await.is_err());
        heard.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn this_test_finds_a_child_of_its_own_by_the_program_that_it_runs() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let directory = PathBuf::from(format!("/proc/{}", child.id()));
        // Until exec, the child is still this program.
        let program = loop {
            let program = fs::read_link(directory.join("exe")).unwrap();
            if program != std::env::current_exe().unwrap() {
                break program;
            }
            std::thread::yield_now();
        };
        let metadata = fs::metadata(&program).unwrap();
        let replaced =
            [ReplacedFile { path: program, device: metadata.dev(), inode: metadata.ino() }];
        // PID 1's root is not for everybody to read; this process shares what counts with its child.
        let found = Host::open(Path::new("/proc"), "self")
            .and_then(|host| host.users_of(&replaced, &Stop::default()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.unwrap().iter().any(|found| found.pid == child.id()));
    }
}
