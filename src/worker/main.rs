//! `apt-ostree-worker TASK`: one task of libapt or libostree, in a process of its own.
//!
//! Reads one JSON document from standard input and writes JSON lines to standard output, as
//! [`apt_ostree::host::worker::protocol`] says. Exit status 0 with an answer, 1 with a failure.

mod apt;
mod ostree;
mod output;
mod sandbox;
mod trial;

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use apt_ostree::host::sandbox::task as sandbox_task;
use apt_ostree::host::tree::task as tree_task;
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
        tasks::INSTALL => perform(&output, |request, output| apt::install(&request, output)),
        tasks::TEST => perform(&output, |request, output| trial::run(&request, output)),
        tasks::TRANSPORT => perform(&output, apt::transport),
        sandbox_task::SANDBOX => perform(&output, |request, output| {
            sandbox::enter(&request, output).map(|_: std::convert::Infallible| ())
        }),
        tree_task::STAGE => perform(&output, |request, _| ostree::stage(&request)),
        tree_task::PREPARE => perform(&output, |request, _| ostree::prepare(&request)),
        tree_task::COMMIT => perform(&output, |request, _| ostree::commit(&request)),
        tree_task::CHECK_OUT => perform(&output, |request, _| ostree::check_out(&request)),
        tree_task::DEPLOY => perform(&output, |request, _| ostree::deploy(&request)),
        tree_task::UNDEPLOY => perform(&output, |request, _| ostree::undeploy(&request)),
        tree_task::STAGE_DEPLOYMENT => perform(&output, |r, _| ostree::stage_deployment(&r)),
        tree_task::SWEEP => perform(&output, |(), _| ostree::sweep()),
        tree_task::CLEAN_UP => perform(&output, |request, _| ostree::clean_up(&request)),
        tree_task::HOLD => perform(&output, |request, _| ostree::hold(&request)),
        tree_task::COMPARE => perform(&output, |request, _| ostree::describe_difference(&request)),
        tree_task::FIND_TARGET => perform(&output, |request, _| ostree::find_target(&request)),
        tree_task::LOOK => perform(&output, |request, _| ostree::look(&request)),
        tree_task::VERIFY => perform(&output, |(), _| ostree::compare_running()),
        tree_task::RESTORE_REF => perform(&output, |request, _| ostree::restore_ref(&request)),
        tree_task::READ_FILE => perform(&output, |request, _| ostree::read_file(&request)),
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
