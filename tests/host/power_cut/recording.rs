//! One good update and one that is put back, on a disk that remembers every write.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::write_log::WriteLog;
use crate::support::{Host, Image, Repository, Snapshot, host_root, look, run_script};

const UPDATE: [&str; 3] = ["apply-live", "--restart-services", "--packages=hello-svc"];
/// Recordings made in another way than this are of no use.
const HOW_IT_IS_MADE: &str =
    concat!(include_str!("recording.rs"), include_str!("../support/look.sh"));

/// Which part of the recording a write belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Phase {
    /// Such as `update running deploy` or `rolled-back update undoing switch`.
    pub(crate) name: String,
    /// How many writes came before.
    pub(crate) from: usize,
}

/// What is kept of a recording beside its log.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Script {
    /// In order; the last one is the end.
    pub(crate) phases: Vec<Phase>,
    /// The host before the update, after a clean reboot.
    pub(crate) old: Snapshot,
    /// The host with the update, after a clean reboot.
    pub(crate) new: Snapshot,
}

/// The disk that the recording began with, what was written, and what the host is to be.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) disk: PathBuf,
    pub(crate) log: WriteLog,
    pub(crate) script: Script,
}

impl Recording {
    /// The recording of the image as it is now: made anew only when the image is another one, so
    /// that a cut keeps its number.
    pub(crate) fn of_image() -> Self {
        let disk = Image::Default.build();
        run_script("upgrades.sh", [""; 0], &[]);
        let key = fs::read_to_string(disk.with_extension("ext4.key")).expect("image.sh writes it");
        let digest = Sha256::digest(key + HOW_IT_IS_MADE);
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let root = host_root().join("power-cut");
        let (directory, new) = (root.join(&name), root.join("new"));
        if !directory.exists() {
            if root.exists() {
                fs::remove_dir_all(&root).expect("target/ is writable");
            }
            fs::create_dir_all(&new).expect("target/ is writable");
            // The image itself may be built anew while its recording is in use.
            fs::hard_link(&disk, new.join("disk")).expect("target/ is one file system");
            let script = record(&disk, &new.join("log"));
            let text = serde_json::to_vec(&script).expect("snapshots are text");
            fs::write(new.join("script.json"), text)
                .and_then(|()| fs::rename(&new, &directory))
                .expect("target/ is writable");
        }
        let script = fs::read(directory.join("script.json")).expect("the recording is complete");
        Self {
            disk: directory.join("disk"),
            log: WriteLog::open(&directory.join("log")).expect("the recording is complete"),
            script: serde_json::from_slice(&script).expect("the recording is complete"),
        }
    }
}

impl Script {
    /// The phase that write number `writes` would have been in.
    pub(crate) fn phase(&self, writes: usize) -> &str {
        let begun = self.phases.iter().take_while(|phase| phase.from <= writes);
        begun.last().map_or("before all", |phase| &phase.name)
    }

    /// Where a phase begins.
    pub(crate) fn start(&self, name: &str) -> usize {
        let phase = self.phases.iter().find(|phase| phase.name == name);
        phase.unwrap_or_else(|| panic!("no {name} in {:?}", self.phases)).from
    }
}

fn record(disk: &Path, log: &Path) -> Script {
    fs::write(log, "").expect("target/ is writable");
    let host = Host::boot_from(disk, |run| {
        let name = log.to_str().expect("target/ has a sane name");
        fs::write(run.join("record"), name).expect("the run directory is writable");
    });
    host.shorten_the_dwell();
    // What only a first boot does is done, and no transaction has left anything yet.
    host.reboot();
    let old = look(&host);
    host.shell("sync");
    let log = WriteLog::open(log).expect("the recorder makes it");
    let mut recorder = Recorder { log, phases: Vec::new() };
    recorder.update(&host, 2, "update", 0);
    recorder.update(&host, 3, "rolled-back update", 3);
    recorder.enter("reboot".to_owned());
    host.reboot();
    let new = look(&host);
    recorder.enter("end".to_owned());
    Script { phases: recorder.phases, old, new }
}

struct Recorder {
    log: WriteLog,
    phases: Vec<Phase>,
}

impl Recorder {
    fn enter(&mut self, name: String) {
        let from = self.log.catch_up().expect("the log can be read");
        self.phases.push(Phase { name, from });
    }

    /// Runs the update to `version`, whose client must end with `status`.
    fn update(&mut self, host: &Host, version: u32, name: &str, status: i32) {
        host.mirror().publish(&Repository::hello(version));
        self.enter(format!("{name} begins"));
        let mut listener = host.listen();
        let mut client = host.command(std::iter::once("apt-ostree").chain(UPDATE));
        let client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        listener.follow(|told| {
            if told.member == "PhaseChanged" {
                self.enter(format!("{name} {} {}", told.text(0), told.text(1)));
            }
        });
        let output = client.and_then(std::process::Child::wait_with_output).expect("it ran");
        assert_eq!(
            output.status.code(),
            Some(status),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        self.enter(format!("{name} was told"));
    }
}
