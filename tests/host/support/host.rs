//! One booted host, which goes with its value: whatever ends the test, nothing of the host stays.

use std::{
    ffi::OsStr,
    fs::File,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::{
    Poller, Snapshot,
    mirror::Mirror,
    scripts::{host_root, run_script, script, wait_for},
};

/// A boot takes a second on an idle machine.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// Hosts at a time, also where the test runner knows no groups.
const HOSTS_AT_A_TIME: u32 = 2;
/// Longer than the other tests in the queue can take.
const SLOT_LIMIT: Duration = Duration::from_secs(3600);

/// Which disk a host boots from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Image {
    /// As real hosts are: `/sysroot` is read-only.
    Default,
    /// `sysroot.readonly=false`.
    WritableSysroot,
    /// The same packages on an ordinary root file system.
    Plain,
}

impl Image {
    /// Builds it unless it is up to date, and answers where it is.
    pub(crate) fn build(self) -> PathBuf {
        let environment: &[(&str, &str)] = match self {
            Self::Default => &[],
            Self::WritableSysroot => &[("READONLY", "false")],
            Self::Plain => &[("LAYOUT", "plain")],
        };
        PathBuf::from(run_script("image.sh", [""; 0], environment))
    }
}

/// What a command inside the host did.
#[derive(Debug)]
pub(crate) struct Output {
    /// The exit status; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// The standard output of a command that must have succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert_eq!(self.code, Some(0), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// A running host.
#[derive(Debug)]
pub(crate) struct Host {
    name: String,
    run: PathBuf,
    supervisor: Child,
    /// The supervisor ends the host when this closes, which the kernel does even for a killed test.
    lifeline: Option<ChildStdin>,
    _slot: File,
}

impl Host {
    /// Boots a host from `image`, built first where it is not up to date.
    pub(crate) fn boot(image: Image) -> Self {
        let disk = image.build();
        run_script("upgrades.sh", [""; 0], &[]);
        Self::boot_from(&disk, |_| {})
    }

    /// Boots a host from a copy of `disk`, once `prepare` has done its work in the host's run
    /// directory, where the copy is `disk.ext4`.
    pub(crate) fn boot_from(disk: &Path, prepare: impl FnOnce(&Path)) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let slot = take_slot();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{}-{number}", std::process::id());
        run_script("boot/make-run.sh", [OsStr::new(&name), disk.as_os_str()], &[]);
        let run = host_root().join("run").join(&name);
        File::create(run.join("disposable")).expect("the run directory is writable");
        prepare(&run);
        let console = File::create(run.join("console.log")).expect("the run directory is writable");
        let mut supervisor = Command::new("unshare")
            .args(["--net", "--mount", "--"])
            .arg(script("boot/supervise.sh"))
            .arg(&name)
            .stdin(Stdio::piped())
            .stdout(console.try_clone().expect("a file can be cloned"))
            .stderr(console)
            // An interrupt at the terminal must reach the test, which then ends the host in order.
            .process_group(0)
            .spawn()
            .expect("unshare can be run");
        let lifeline = supervisor.stdin.take();
        let host = Self { name, run, supervisor, lifeline, _slot: slot };
        host.wait_for_boot(1);
        host
    }

    /// Waits until boot number `boot` is complete.
    fn wait_for_boot(&self, boot: u32) {
        run_script("wait", [&self.name, &boot.to_string()], &[]);
    }

    /// How often the host has booted.
    pub(crate) fn boots(&self) -> u32 {
        self.read("boots").parse().expect("the supervisor writes a number")
    }

    /// Runs a command inside, as root, to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Output {
        let output = self.command(command).output().expect("enter can be run");
        Output {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a shell script inside and returns its output; it must succeed.
    #[track_caller]
    pub(crate) fn shell(&self, text: &str) -> String {
        self.run(["sh", "-ec", text]).success()
    }

    /// A command inside that is not started yet, for whoever wants its pipes.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Command {
        let mut enter = Command::new(script("enter"));
        enter.arg(&self.name).args(command).stdin(Stdio::null());
        enter
    }

    /// Calls `busctl --json=short` with these arguments on the system bus; `Err` is its message.
    pub(crate) fn busctl<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<serde_json::Value, String> {
        let mut command = self.command(["busctl", "--system", "--json=short"]);
        let output = command.args(arguments).output().expect("enter can be run");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        if text.trim().is_empty() {
            return Ok(serde_json::Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// Reboots in order, into the default deployment, and waits for it.
    pub(crate) fn reboot(&self) {
        let boot = self.boots() + 1;
        // The connection goes with the host, so the command's own end says nothing.
        self.run(["systemctl", "reboot"]);
        self.wait_for_boot(boot);
    }

    /// Reboots in order, into the entry of the boot menu in this place; the default is the first.
    pub(crate) fn reboot_into(&self, place: u32) {
        std::fs::write(self.run.join("boot-entry"), place.to_string())
            .expect("the run directory is writable");
        self.reboot();
    }

    /// Takes the power away, so that what was not synced is lost, gives it back, and waits.
    pub(crate) fn power_cut(&self) {
        let boot = self.boots() + 1;
        run_script("power-cut", [&self.name], &[]);
        self.wait_for_boot(boot);
    }

    /// The machine's number of the host's PID 1.
    pub(crate) fn leader(&self) -> u32 {
        self.read("leader").parse().expect("the host runs")
    }

    /// The host's root directory as the machine sees it.
    pub(crate) fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.leader()))
    }

    /// The mirror that the host's apt uses.
    pub(crate) fn mirror(&self) -> Mirror<'_> {
        Mirror::new(&self.run)
    }

    /// Everything that a refused or undone update must leave as it was.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.name)
    }

    /// Asks `http://127.0.0.1:PORT/` inside the host again and again until it is told to stop.
    pub(crate) fn poll(&self, port: u16) -> Poller {
        Poller::start(Path::new(&format!("/proc/{}/ns/net", self.leader())), port)
    }

    fn read(&self, file: &str) -> String {
        let path = self.run.join(file);
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .trim()
            .to_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let console = std::fs::read_to_string(self.run.join("console.log")).unwrap_or_default();
            let journal =
                self.run(["journalctl", "--no-pager", "--lines=60", "--output=short-monotonic"]);
            eprintln!("console of {}:\n{console}\njournal:\n{}", self.name, journal.stdout);
        }
        drop(self.lifeline.take());
        if let Err(error) = self.supervisor.wait() {
            eprintln!("supervisor of {}: {error}", self.name);
        }
    }
}

/// One of the places for a running host; it is free again when the file is closed.
fn take_slot() -> File {
    let directory = host_root().join("slots");
    std::fs::create_dir_all(&directory).expect("target/ is writable");
    wait_for("a free place for a host", SLOT_LIMIT.max(BOOT_LIMIT), || {
        (0..HOSTS_AT_A_TIME).find_map(|slot| {
            let file = File::create(directory.join(slot.to_string())).expect("target/ is writable");
            rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).ok()?;
            Some(file)
        })
    })
}
