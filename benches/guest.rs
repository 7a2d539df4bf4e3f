//! Booted hosts for benchmarks: one of ours and a plain Debian, with the same packages and mirror.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::status::Outcome;

use super::inside;
use super::support::{Host, Image};

/// Where this program is inside.
pub(super) const PROGRAM: &str = "/var/lib/bench";
/// What follows the start of the units; nobody waits for it.
const BEHIND_THE_ANSWER: [&str; 3] = ["check-health", "deploy", "finalize"];

/// A booted host.
pub(super) struct Guest {
    /// The host.
    pub(super) host: Host,
}

/// One transaction of ours, as the command's caller and the history saw it.
pub(super) struct Applied {
    /// From the command's start to its end.
    pub(super) whole: Duration,
    /// What the history says of it.
    pub(super) record: HistoryRecord,
}

impl Guest {
    /// Boots one of ours.
    pub(super) fn boot() -> Result<Self> {
        Self::boot_image(Image::Default)
    }

    /// The image with this program in it.
    fn boot_image(image: Image) -> Result<Self> {
        let host = Host::boot(image);
        let own = std::env::current_exe()?;
        std::fs::copy(own, host.root().join(PROGRAM.trim_start_matches('/')))?;
        Ok(Self { host })
    }

    /// Boots the peer: the same packages as an ordinary Debian on ext4.
    pub(super) fn boot_plain() -> Result<Self> {
        Self::boot_image(Image::Plain)
    }

    /// Runs one of [`inside`]'s tasks in there and reads its answer.
    pub(super) fn inside<T: serde::de::DeserializeOwned>(&self, task: &[&str]) -> Result<T> {
        let command: Vec<&str> =
            [PROGRAM, inside::WORD].into_iter().chain(task.iter().copied()).collect();
        let text = self.host.run(command).success();
        let answer = text.lines().last().context("the task inside said nothing")?;
        serde_json::from_str(answer).with_context(|| format!("not an answer: {text}"))
    }

    /// Runs a command and tells how long it took; its output is shown where it fails.
    pub(super) fn timed(&self, command: &[&str], expected: i32) -> Result<Duration> {
        let mut process = self.host.command(command);
        process.stdout(Stdio::piped()).stderr(Stdio::piped());
        let begun = Instant::now();
        let output = process.output()?;
        let took = begun.elapsed();
        ensure!(
            output.status.code() == Some(expected),
            "{} ended with {}:\n{}{}",
            command.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(took)
    }

    /// Runs `apt-ostree` with these arguments to that exit status and reads what the history says of it.
    pub(super) fn apply(&self, arguments: &[&str], expected: i32) -> Result<Applied> {
        let command: Vec<&str> =
            ["apt-ostree", "--no-progress"].into_iter().chain(arguments.iter().copied()).collect();
        let whole = self.timed(&command, expected)?;
        let text = self.host.shell("apt-ostree --json history --limit=1");
        let [record]: [HistoryRecord; 1] = serde_json::from_str(&text)?;
        ensure!(expected != 0 || record.outcome == Outcome::Committed, "{:?}", record.outcome);
        Ok(Applied { whole, record })
    }

    /// The archive caches of both sides are empty, the lists and libapt's own cache are there, and what
    /// is written so far is on the disk.
    pub(super) fn make_ready(&self) {
        self.host.shell(
            "apt-get --quiet=2 update && apt-get clean && apt-cache stats > /dev/null && sync",
        );
    }
}

impl Applied {
    /// From the command's start to the moment at which the restarted units answered: a little less
    /// than is said here, for the journal's entries behind it count too.
    pub(super) fn until_answer(&self) -> Duration {
        let behind: u64 = BEHIND_THE_ANSWER.iter().map(|step| self.step(step)).sum();
        self.whole.saturating_sub(Duration::from_millis(behind))
    }

    /// A step's time in milliseconds; 0 for one that was not run.
    pub(super) fn step(&self, name: &str) -> u64 {
        self.record.steps.iter().filter(|(step, _)| step == name).map(|(_, took)| took).sum()
    }

    /// Every step with its time, for a note beside the table.
    pub(super) fn profile(&self) -> String {
        let steps = self.record.steps.iter();
        let named: Vec<String> = steps.map(|(step, took)| format!("{step} {took}")).collect();
        format!("whole {} ms: {}", self.whole.as_millis(), named.join(", "))
    }
}
