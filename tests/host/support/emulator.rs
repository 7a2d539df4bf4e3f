//! The same host under QEMU, with Debian's own kernel: slow, and for what namespaces cannot show.

use std::{
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use super::{
    Output,
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
        let image = PathBuf::from(run_script("image.sh", [""; 0], &[("KERNEL", "1")]));
        let name = format!("qemu-{}", std::process::id());
        // The kernel ends the emulator when this thread, which owns it, is gone.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(script("qemu/start.sh"))
            .arg(&name)
            .arg(image)
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("setpriv can be run");
        let emulator = Self { name, process };
        assert_eq!(emulator.shell("systemctl is-system-running --wait").trim(), "running");
        emulator
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

    /// Runs a shell script inside and returns its output; it must succeed.
    #[track_caller]
    pub(crate) fn shell(&self, text: &str) -> String {
        self.run(text).success()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let run = host_root().join("run").join(&self.name);
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(run.join("console.log")).unwrap_or_default());
        }
        let ended = self.process.kill().and_then(|()| self.process.wait().map(drop));
        if let Err(error) = ended.and_then(|()| std::fs::remove_dir_all(&run)) {
            eprintln!("{}: {error}", self.name);
        }
    }
}
