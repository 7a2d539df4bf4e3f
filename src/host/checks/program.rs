//! One program in a transient unit: limited, and ended with all that it started.

use std::io::pipe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use apt_ostree_actors::port::{CheckAnswer, PortResult};
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use zbus::zvariant::{Fd, Value};

use super::unit_names;
use crate::host::transient::TransientUnit;

/// How much of the end of a program's output is kept.
const KEPT_BYTES: usize = 16 * 1024;
/// How many lines of that.
const KEPT_LINES: usize = 100;
/// The longest of these lines, in characters.
const LONGEST_LINE: usize = 500;

/// How long a program that was told to end may take.
const STOP_TIME: Duration = Duration::from_secs(1);
/// How much longer than its time the manager may take to say that it was ended.
const GRACE: Duration = Duration::from_secs(10);

/// A check needs little; one that runs wild must leave the host's services enough to live.
const MOST_MEMORY_BYTES: u64 = 512 << 20;
const MOST_TASKS: u64 = 512;

/// What the manager answers for a program that it could not execute: systemd.exec(5).
const EXIT_EXEC: i32 = 203;

/// What is to be run.
pub(super) struct Program<'a> {
    pub(super) arguments: &'a [String],
    pub(super) environment: Vec<String>,
    pub(super) description: String,
    pub(super) limit: Duration,
}

impl Program<'_> {
    /// Runs it to its end.
    pub(super) async fn run(
        &self,
        bus: &zbus::Connection,
        transaction: TransactionId,
    ) -> PortResult<CheckAnswer> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let (names, process) = (unit_names(transaction), std::process::id());
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let unit = TransientUnit::named(bus, format!("{names}{process}-{number}.service"));
        let broken = |error: std::io::Error| {
            Failure::caused(ErrorCode::Internal, "a check's pipe cannot be used", &error)
        };
        let (output, input) = pipe().map_err(broken)?;
        let output = Receiver::from_owned_fd(output.into()).map_err(broken)?;
        let ended = async {
            let properties = self.properties(&input);
            let run = unit.run_to_end(&properties);
            let ended = tokio::time::timeout(self.limit + GRACE, run).await;
            // Whatever it left running ends here, and with it the output.
            drop(properties);
            drop(input);
            unit.kill().await?;
            ended.unwrap_or_else(|_| Ok(("timeout".to_owned(), 0)))
        };
        let (ended, output) = tokio::join!(ended, keep_end(output));
        Ok(CheckAnswer { failure: self.failure(ended?), output })
    }

    fn properties<'v>(&'v self, output: &'v impl std::os::fd::AsFd) -> Vec<(&'v str, Value<'v>)> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let program = arguments.first().copied().unwrap_or_default();
        let environment: Vec<&str> = self.environment.iter().map(String::as_str).collect();
        vec![
            ("Description", Value::from(self.description.as_str())),
            ("Slice", Value::from("apt-ostree.slice")),
            ("Type", Value::from("oneshot")),
            // So that its result can still be read.
            ("RemainAfterExit", Value::from(true)),
            // As they are: `$` is nobody's but the program's.
            ("ExecStartEx", Value::from(vec![(program, arguments, vec!["no-env-expand"])])),
            ("Environment", Value::from(environment)),
            ("StandardInput", Value::from("null")),
            ("StandardOutputFileDescriptor", Value::from(Fd::from(output.as_fd()))),
            ("StandardErrorFileDescriptor", Value::from(Fd::from(output.as_fd()))),
            ("KillMode", Value::from("control-group")),
            ("SendSIGKILL", Value::from(true)),
            ("TimeoutStartUSec", Value::from(micros(self.limit))),
            ("TimeoutStopUSec", Value::from(micros(STOP_TIME))),
            ("OOMPolicy", Value::from("kill")),
            ("MemoryMax", Value::from(MOST_MEMORY_BYTES)),
            ("TasksMax", Value::from(MOST_TASKS)),
        ]
    }

    /// What its unit's result means.
    fn failure(&self, (result, status): (String, i32)) -> Option<String> {
        Some(match (result.as_str(), status) {
            ("success", _) => return None,
            ("timeout", _) => format!("it did not end within {} s", self.limit.as_secs_f64()),
            ("exit-code", EXIT_EXEC) => "it cannot be executed".to_owned(),
            ("exit-code", status) => format!("exit status {status}"),
            ("signal" | "core-dump", signal) => format!("signal {signal}"),
            ("job-canceled", _) => "its job was cancelled".to_owned(),
            (other, _) => format!("its unit ended with {other}"),
        })
    }
}

/// Reads to the end, and keeps the last lines.
async fn keep_end(mut output: Receiver) -> Vec<String> {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match output.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => {
                kept.extend_from_slice(&buffer[..count]);
                let surplus = kept.len().saturating_sub(KEPT_BYTES);
                kept.drain(..surplus);
            }
            Err(error) => {
                tracing::warn!(%error, "the output of a check cannot be read");
                break;
            }
        }
    }
    lines_of(&kept)
}

fn lines_of(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.chars().filter(|c| !c.is_control()).take(LONGEST_LINE).collect())
        .collect();
    let surplus = lines.len().saturating_sub(KEPT_LINES);
    lines.into_iter().skip(surplus).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Program<'static> {
        let (environment, description) = (Vec::new(), String::new());
        Program { arguments: &[], environment, description, limit: Duration::from_millis(1500) }
    }

    #[test]
    fn how_a_program_ended_is_said_in_words() {
        for (result, status, told) in [
            ("success", 0, None),
            ("exit-code", 3, Some("exit status 3")),
            ("exit-code", 203, Some("it cannot be executed")),
            ("signal", 9, Some("signal 9")),
            ("timeout", 0, Some("it did not end within 1.5 s")),
            ("job-canceled", 0, Some("its job was cancelled")),
            ("oom-kill", 9, Some("its unit ended with oom-kill")),
        ] {
            let failure = program().failure((result.to_owned(), status));
            assert_eq!(failure.as_deref(), told, "{result}");
        }
    }

    #[tokio::test]
    async fn of_a_program_that_prints_without_end_the_end_is_kept() {
        let (reader, mut writer) = pipe().unwrap();
        let output = Receiver::from_owned_fd(reader.into()).unwrap();
        let print = tokio::task::spawn_blocking(move || {
            use std::io::Write;
            for number in 0..10_000 {
                writeln!(writer, "line {number}\u{1b}[2J {}", "x".repeat(50)).unwrap();
            }
            writeln!(writer, "{}", "y".repeat(10_000)).unwrap();
        });
        let lines = keep_end(output).await;
        print.await.unwrap();
        assert!(lines.len() <= KEPT_LINES && lines.len() > 10, "{}", lines.len());
        assert_eq!(lines.last().unwrap().len(), LONGEST_LINE);
        assert!(!lines.concat().contains(char::is_control));
        assert!(lines[lines.len() - 2].starts_with("line 9999"), "{lines:?}");
    }
}
