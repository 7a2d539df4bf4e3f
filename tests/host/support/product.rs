//! What tests ask of `apt-ostree` on a host.

use std::{
    io::{BufRead as _, BufReader, Lines},
    process::{Child, ChildStdout, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{Host, Image, Output, scripts::wait_for};

/// Enough for the units of the test host; the dwell itself is the subject of its own tests.
const SHORT_DWELL: &str = "[health]\ndwell-seconds = 1\n";
/// A daemon that was killed in mid-update has more to do than any update.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
/// For a tree on a busy disk.
const SWEEP_LIMIT: Duration = Duration::from_secs(60);

/// All steps of an update that waits for no confirmation, in their order.
pub(crate) const STEPS: [&str; 12] = [
    "plan",
    "download",
    "verify",
    "stage",
    "install",
    "commit",
    "stop-units",
    "switch",
    "start-units",
    "check-health",
    "deploy",
    "finalize",
];

/// The arguments that address the daemon's manager object.
pub(crate) const MANAGER: [&str; 3] =
    ["org.aptostree1", "/org/aptostree1", "org.aptostree1.Manager"];

impl Host {
    /// Boots a host whose updates dwell for a second only.
    pub(crate) fn boot_to_update() -> Self {
        let host = Self::boot(Image::Default);
        host.shorten_the_dwell();
        host
    }

    /// Has updates dwell for a second only.
    pub(crate) fn shorten_the_dwell(&self) {
        self.configure(SHORT_DWELL);
    }

    /// Replaces the admin's configuration; the daemon that serves the next call reads it.
    pub(crate) fn configure(&self, text: &str) {
        let script = "mkdir -p /etc/apt-ostree; printf %s \"$1\" > /etc/apt-ostree/config.toml; \
                      systemctl stop apt-ostreed";
        self.run(["sh", "-ec", script, "-", text]).success();
    }

    /// Runs `apt-ostree` to its end.
    pub(crate) fn apt_ostree<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Output {
        self.run(std::iter::once("apt-ostree").chain(arguments))
    }

    /// Runs `apt-ostree --json`, which must end with `status`, and reads its answer.
    #[track_caller]
    pub(crate) fn json<'a>(
        &self,
        status: i32,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Value {
        let output = self.apt_ostree(std::iter::once("--json").chain(arguments));
        assert_eq!(output.code, Some(status), "{}\n{}", output.stdout, output.stderr);
        serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", output.stdout))
    }

    /// The newest transaction, as the history has it.
    pub(crate) fn newest_record(&self) -> Value {
        self.json(0, ["history", "--limit=1"])[0].take()
    }

    /// Waits until a daemon that was killed has put the host in order, and answers the record.
    pub(crate) fn recovered_record(&self) -> Value {
        wait_for("the daemon's recovery", RECOVERY_LIMIT, || {
            let state: Value =
                serde_json::from_str(&self.apt_ostree(["--json", "status"]).stdout).ok()?;
            state["transaction"].is_null().then(|| self.newest_record())
        })
    }

    /// What transactions keep beside the deployments, once nothing waits to be removed any more.
    pub(crate) fn live_trees(&self) -> String {
        wait_for("the sweep of what was moved aside", SWEEP_LIMIT, || {
            let listed = self.shell(
                "cd /sysroot/ostree/live 2> /dev/null || exit 0
                ls -A trash 2> /dev/null | sed 's:^:trash/:'; ls -I trash",
            );
            (!listed.contains("trash/")).then_some(listed)
        })
    }

    /// What hello-svc answers, such as `version=1 disk=1 conf=hi-1 pid=42`.
    pub(crate) fn hello(&self) -> String {
        self.shell("curl -s --max-time 5 http://127.0.0.1:9000/").trim().to_owned()
    }

    /// The version of an installed package.
    pub(crate) fn version_of(&self, package: &str) -> String {
        self.run(["dpkg-query", "--show", "--showformat=${Version}", package]).success()
    }

    /// Fails the test unless `/usr` is one read-only mount and no unit has failed.
    #[track_caller]
    pub(crate) fn assert_in_order(&self) {
        let mounts = self.shell("awk '$5 == \"/usr\" { print $6 }' /proc/1/mountinfo");
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
        assert!(mounts.starts_with("ro,"), "{mounts}");
        assert_eq!(self.shell("systemctl --failed --no-legend --plain"), "");
    }

    /// Begins to listen to the daemon, as `busctl monitor` does.
    pub(crate) fn listen(&self) -> Listener {
        Listener::start(self)
    }
}

/// One signal of a transaction.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) path: String,
    pub(crate) member: String,
    pub(crate) arguments: Vec<Value>,
}

impl Told {
    /// Its argument number `index` as text.
    pub(crate) fn text(&self, index: usize) -> &str {
        self.arguments[index].as_str().unwrap_or_default()
    }

    /// Its argument number `index` as a number.
    pub(crate) fn number(&self, index: usize) -> u64 {
        self.arguments[index].as_u64().expect("an unsigned number")
    }

    /// Whether a step of this name begins.
    pub(crate) fn begins(&self, step: &str) -> bool {
        self.member == "PhaseChanged" && self.text(0) == "running" && self.text(1) == step
    }
}

/// Everything that transactions tell on the bus from the moment on when this was made.
#[derive(Debug)]
pub(crate) struct Listener {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub(crate) heard: Vec<Told>,
}

impl Listener {
    fn start(host: &Host) -> Self {
        let mut command =
            host.command(["busctl", "--system", "--json=short", "monitor", "org.aptostree1"]);
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("enter can be run");
        // It says so when the bus has made it a monitor.
        let mut greeting = String::new();
        let errors = process.stderr.take().expect("piped");
        BufReader::new(errors).read_line(&mut greeting).expect("a pipe can be read");
        assert!(greeting.starts_with("Monitoring"), "{greeting}");
        let output = process.stdout.take().expect("piped");
        Self { process, lines: BufReader::new(output).lines(), heard: Vec::new() }
    }

    /// Waits for the first signal that `wanted` accepts; the end of the transaction fails the test.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, wanted: impl Fn(&Told) -> bool) -> Told {
        loop {
            let told = self.next();
            if wanted(&told) {
                return told;
            }
            assert_ne!(told.member, "Finished", "it ended before that: {:#?}", self.heard);
        }
    }

    /// Calls `hear` for every signal up to the end of the transaction.
    pub(crate) fn follow(&mut self, mut hear: impl FnMut(&Told)) {
        loop {
            let told = self.next();
            hear(&told);
            if told.member == "Finished" {
                return;
            }
        }
    }

    /// Waits for the end of a transaction and answers its outcome.
    pub(crate) fn outcome(&mut self) -> String {
        self.wait_until(|told| told.member == "Finished").text(0).to_owned()
    }

    fn next(&mut self) -> Told {
        loop {
            let line = self.lines.next().expect("the bus lives").expect("a pipe can be read");
            let message: Value =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if message["type"] == "signal" && message["interface"] == "org.aptostree1.Transaction" {
                let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
                let arguments = message["payload"]["data"].as_array().cloned().unwrap_or_default();
                let told = Told { path: text("path"), member: text("member"), arguments };
                self.heard.push(told.clone());
                return told;
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The process inside ends when it next writes, or with the host.
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait().map(drop)) {
            eprintln!("busctl monitor: {error}");
        }
    }
}
