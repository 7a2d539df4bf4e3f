//! The same host under QEMU, with Debian's own kernel: slow, and for what namespaces cannot show.

use std::{
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    Output, Repository,
    scripts::{host_root, run_script, script},
};

/// A running emulator, which ends with this value.
#[derive(Debug)]
pub(crate) struct Emulator {
    name: String,
    process: Child,
}

impl Emulator {
    /// Boots the image with a kernel and waits for its shell.
    pub(crate) fn boot() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let image = run_script("image.sh", [""; 0], &[("KERNEL", "1")]);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("qemu-{}-{number}", std::process::id());
        let process = start(&name, &image);
        let emulator = Self { name, process };
        emulator.wait_for_boot();
        emulator
    }

    #[track_caller]
    fn wait_for_boot(&self) {
        assert_eq!(self.shell("systemctl is-system-running --wait").trim(), "running");
    }

    /// Kills the emulator, so that what the guest had not written is lost, looks whether what is left is
    /// whole, and boots it again.
    pub(crate) fn cut_power(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).expect("a child can be killed");
        let shell = self.run_directory().join("shell.sock");
        std::fs::remove_file(shell).expect("the run directory is writable");
        run_script("qemu/check-disk.sh", [&self.name], &[]);
        self.process = start(&self.name, "--again");
        self.wait_for_boot();
    }

    fn run_directory(&self) -> PathBuf {
        host_root().join("run").join(&self.name)
    }

    /// Runs a shell script inside, as root, to its end.
    pub(crate) fn run(&self, text: &str) -> Output {
        let output = Command::new(script("qemu/enter"))
            .args([&self.name, text])
            .output()
            .expect("enter can be run");
        Output {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Offers these packages to its apt as the one repository there is. There is no network inside, so
    /// the repository, a few dozen kilobytes, goes over the console.
    pub(crate) fn publish(&self, repository: &Repository) {
        let directory = tempfile::tempdir().expect("there is room for a repository");
        repository.write(&directory.path().join("toys"));
        let archive = Command::new("sh")
            .args(["-ec", "tar -C \"$1\" -c toys | gzip -9 | base64 -w 0", "-"])
            .arg(directory.path())
            .output()
            .expect("tar can be run");
        assert!(archive.status.success(), "{archive:?}");
        let archive = String::from_utf8_lossy(&archive.stdout);
        self.shell(&format!(
            "set -e; rm -rf /var/tmp/toys /etc/apt/sources.list.d/debian.list
            echo {archive} | base64 -d | tar -C /var/tmp -xz
            echo 'deb [signed-by=/usr/share/keyrings/toys.gpg] file:/var/tmp/toys stable main' \
                > /etc/apt/sources.list.d/toys.list"
        ));
    }

    /// Runs a shell script inside and returns its output; it must succeed.
    #[track_caller]
    pub(crate) fn shell(&self, text: &str) -> String {
        self.run(text).success()
    }
}

/// Runs the emulator on a copy of an image, or `--again` on its own disk. The kernel ends it when this
/// thread, which owns it, is gone.
fn start(name: &str, image: &str) -> Child {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(script("qemu/start.sh"))
        .args([name, image])
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("setpriv can be run")
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let run = self.run_directory();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(run.join("console.log")).unwrap_or_default());
        }
        let ended = self.process.kill().and_then(|()| self.process.wait().map(drop));
        if let Err(error) = ended.and_then(|()| std::fs::remove_dir_all(&run)) {
            eprintln!("{}: {error}", self.name);
        }
    }
}
