//! `apt-ostree-worker TASK`: one task of libapt or libostree, in a process of its own.
//!
//! Reads one JSON document from standard input and writes JSON lines to standard output, as
//! [`apt_ostree::host::worker::protocol`] says. Exit status 0 with an answer, 1 with a failure.

mod apt;
mod output;

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use apt_ostree::host::worker::tasks;
use apt_ostree_proto::{ErrorCode, Failure};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::output::Output;

fn main() -> ExitCode {
    // The daemon's death is the task's end; a daemon that is gone already is noticed at the first
    // line of the answer.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("the worker cannot follow its parent: {error}");
        return ExitCode::FAILURE;
    }
    let task = std::env::args().nth(1).unwrap_or_default();
    if task == tasks::INSTALL && !apt::has_script_environment() {
        // Variables cannot be set safely in a running process, so it begins anew.
        let error = Command::new("/proc/self/exe").arg(task).envs(apt::script_environment()).exec();
        eprintln!("the worker cannot begin anew with its environment: {error}");
        return ExitCode::FAILURE;
    }
    let output = match Output::take_stdout() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("the worker has no standard output: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = match task.as_str() {
        tasks::REFRESH => perform(&output, apt::refresh),
        tasks::RESOLVE => perform(&output, apt::resolve),
        tasks::FETCH => perform(&output, apt::fetch),
        tasks::INSTALL => perform(&output, apt::install),
        tasks::TRANSPORT => perform(&output, apt::transport),
        _ => Err(Failure::new(ErrorCode::InvalidArgument, "the worker has no such task")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(failure);
            ExitCode::FAILURE
        }
    }
}

/// Reads the request, does the task, writes its answer.
fn perform<Request: DeserializeOwned, Answer: Serialize>(
    output: &Output,
    task: impl FnOnce(Request, &Output) -> Result<Answer, Failure>,
) -> Result<(), Failure> {
    let mut text = Vec::new();
    std::io::stdin().lock().read_to_end(&mut text).map_err(|error| {
        Failure::caused(ErrorCode::Internal, "the request could not be read", &error)
    })?;
    let request = serde_json::from_slice(&text).map_err(|error| {
        Failure::caused(ErrorCode::InvalidArgument, "the request makes no sense", &error)
    })?;
    let answer = task(request, output)?;
    output.answer(&answer);
    Ok(())
}
