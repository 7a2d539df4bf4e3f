//! Worker processes: the wire format, and how the daemon runs one.
//!
//! A task is one process. It gets one JSON document on standard input and answers with JSON lines
//! on standard output: any number of reports, then one result or failure. Killing it cancels it.
//!
//! Architecture invariant: the daemon's address space holds neither libapt nor libostree; a crash
//! in either is a failed task here, with the signal's name.

pub mod protocol;
pub mod tasks;
pub mod transport;

mod lines;

use std::process::Stdio;

use apt_ostree_actors::context::StepContext;
use apt_ostree_actors::port::PortResult;
use apt_ostree_proto::{ErrorCode, Failure};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use self::lines::read_line;
use self::protocol::Line;
use super::programs;

/// How much of a worker's standard error is kept for the message about a crash: enough for an
/// assertion's text with a few lines before it.
const KEPT_STDERR_BYTES: usize = 4096;

/// What a worker says happens to a package, as the reports know it. A text that is not listed here
/// is reported as the first.
const ITEM_STATES: &[&str] = &[
    "working",
    "fetching",
    "fetched",
    "unpacking",
    "unpacked",
    "configuring",
    "installed",
    "removing",
    "removed",
    "running triggers",
    "committing",
    "checked out",
    "failed",
];

/// Runs one task of the worker that the daemon began with: `apt-ostree-worker TASK`. Reports go to `context.report`.
/// When `context.cancel` trips, or the future is dropped, the worker and every process of its group
/// are killed, and the answer is `Cancelled`. A worker that crashes or answers nonsense is an
/// `Internal` failure which names the signal.
pub async fn run<Request, Answer>(
    task: &str,
    request: &Request,
    context: &StepContext,
) -> PortResult<Answer>
where
    Request: Serialize,
    Answer: DeserializeOwned,
{
    let worker = programs::worker().map_err(|error| {
        Failure::caused(ErrorCode::Internal, "the worker cannot be opened", &error)
    })?;
    let mut command = worker.command();
    command.arg(task);
    converse(command, task, request, context).await
}

/// The same with a command of the caller's, for a worker that runs inside of something (a sandbox, a
/// transient unit) or stands elsewhere. The command's last process must be the worker: it gets the
/// request on standard input and answers on standard output.
pub async fn converse<Request, Answer>(
    mut command: Command,
    task: &str,
    request: &Request,
    context: &StepContext,
) -> PortResult<Answer>
where
    Request: Serialize,
    Answer: DeserializeOwned,
{
    let request = serde_json::to_vec(request).map_err(|error| {
        Failure::caused(ErrorCode::Internal, "the worker's request could not be written", &error)
    })?;
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its own group: helpers of libapt and scripts of dpkg end with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            let program = command.as_std().get_program().to_string_lossy();
            let what = format!("the worker \"{program}\" could not be started");
            Failure::caused(ErrorCode::Internal, &what, &error)
        })?;
    let mut worker = Worker::new(child);
    tokio::select! {
        biased;
        () = context.cancel.cancelled() => {
            worker.kill().await;
            Err(Failure::new(ErrorCode::Cancelled, format!("the {task} task was cancelled")))
        }
        answer = worker.attend(task, &request, context) => answer,
    }
}

/// A running worker, killed with its process group when it is dropped.
struct Worker {
    child: Child,
    group: Option<Pid>,
}

impl Worker {
    fn new(child: Child) -> Self {
        let group = child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        Self { child, group }
    }

    async fn attend<Answer: DeserializeOwned>(
        &mut self,
        task: &str,
        request: &[u8],
        context: &StepContext,
    ) -> PortResult<Answer> {
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take())
        else {
            return Err(Failure::new(ErrorCode::Internal, "the worker has no pipes"));
        };
        let ask = async move {
            // A worker that dies before it has read everything is told by its exit status.
            if let Err(error) = stdin.write_all(request).await {
                tracing::debug!(%error, "the worker did not take its request");
            }
        };
        let ((), answer, complaint) =
            tokio::join!(ask, read_answer(stdout, context), keep_tail(stderr));
        let answer = answer?;
        let status = self.child.wait().await.map_err(|error| {
            Failure::caused(ErrorCode::Internal, "the worker could not be waited for", &error)
        })?;
        // Reaped: the number may belong to somebody else from now on.
        self.group = None;
        for line in complaint.lines() {
            tracing::info!(task, "the worker's {task} task says: {line}");
        }
        match answer {
            Some(answer) => answer,
            None => Err(Failure::new(
                ErrorCode::Internal,
                format!("the {task} task ended without an answer ({status}){}", quoted(&complaint)),
            )),
        }
    }

    async fn kill(&mut self) {
        self.kill_group();
        match self.child.wait().await {
            Ok(_) => self.group = None,
            Err(error) => tracing::warn!(%error, "a killed worker could not be waited for"),
        }
    }

    fn kill_group(&self) {
        if let Some(group) = self.group
            && let Err(error) = kill_process_group(group, Signal::KILL)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(%error, "a worker could not be killed");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// Reads lines until the end of the stream, and answers the last word, if there was one.
pub(super) async fn read_answer<Answer: DeserializeOwned>(
    stdout: impl AsyncRead + Unpin,
    context: &StepContext,
) -> PortResult<Option<PortResult<Answer>>> {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    let mut answer = None;
    while read_line(&mut reader, &mut line).await? {
        let line: Line<Answer> = serde_json::from_slice(&line).map_err(|error| {
            Failure::caused(ErrorCode::Internal, "the worker's answer makes no sense", &error)
        })?;
        match line {
            Line::Fraction(fraction) => context.report.fraction(fraction),
            Line::Item(item, status, percentage) => {
                context.report.item(item, item_state(&status), percentage);
            }
            Line::Transfer(done, total) => context.report.transfer(done, total),
            Line::Log(text) => context.report.log(text),
            Line::Warning(text) => context.report.warning(text),
            Line::Answer(value) => answer = Some(Ok(value)),
            Line::Failure(failure) => answer = Some(Err(failure)),
        }
    }
    Ok(answer)
}

fn item_state(status: &str) -> &'static str {
    ITEM_STATES.iter().copied().find(|state| *state == status).unwrap_or(ITEM_STATES[0])
}

/// Reads a stream to its end and keeps the last of it, as text without control characters.
pub(super) async fn keep_tail(mut stream: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                kept.extend_from_slice(&buffer[..count]);
                let surplus = kept.len().saturating_sub(KEPT_STDERR_BYTES);
                kept.drain(..surplus);
            }
        }
    }
    let text = String::from_utf8_lossy(&kept);
    text.trim().chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

fn quoted(complaint: &str) -> String {
    if complaint.is_empty() { String::new() } else { format!(": {complaint}") }
}

/// Reads these bytes as a worker's answer.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    use apt_ostree_actors::context::Reporter;
    use apt_ostree_actors::port::Resolution;

    let context = StepContext {
        transaction: apt_ostree_proto::TransactionId(1),
        cancel: tokio_util::sync::CancellationToken::new(),
        report: Reporter::silent(),
    };
    // It waits for nothing but the bytes, which are there.
    let answer = futures_util::FutureExt::now_or_never(read_answer::<Resolution>(data, &context));
    drop(answer.expect("bytes in memory are there"));
}

#[cfg(test)]
mod tests;
