//! Tests of what was installed, in the root that this process runs in: nothing of it has reached the
//! host yet.

use std::io::{PipeReader, Read, pipe};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use apt_ostree::host::packages::status::Status;
use apt_ostree::host::worker::tasks::TestRequest;
use apt_ostree_actors::port::InstallTest;
use apt_ostree_proto::{ErrorCode, Failure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::output::Output;

/// dpkg's database in this root.
const STATUS: &str = "/var/lib/dpkg/status";
/// How often it is looked whether a test has ended.
const POLL: Duration = Duration::from_millis(10);
/// How much longer output is waited for: a process that a test left behind may hold it open.
const REST: Duration = Duration::from_secs(1);
/// How much of the end of a test's output is kept.
const KEPT_BYTES: usize = 16 * 1024;
/// How many lines of it are in its failure, and how long they are at the most.
const LINES_IN_FAILURE: usize = 10;
const LONGEST_LINE: usize = 500;

/// Runs the tests whose packages are there; the first that fails is the last.
pub(crate) fn run(request: &TestRequest, output: &Output) -> Result<(), Failure> {
    let text = std::fs::read_to_string(STATUS).map_err(|error| {
        Failure::caused(ErrorCode::TestFailed, &format!("{STATUS} cannot be read"), &error)
    })?;
    let database = Status::parse(&text);
    for test in &request.tests {
        let is_there = |name: &str| database.installed_as(name).next().is_some();
        if test.packages.iter().any(|package| is_there(package.as_str())) {
            output.log(&format!("test {}: {}", test.name, test.arguments.join(" ")));
            try_one(test, output)?;
        }
    }
    Ok(())
}

fn try_one(test: &InstallTest, output: &Output) -> Result<(), Failure> {
    let name = &test.name;
    let cannot = |error: std::io::Error| {
        let what = format!("the test \"{name}\" cannot be run");
        Failure::caused(ErrorCode::TestFailed, &what, &error)
    };
    let (mut child, printed) = start(test).map_err(cannot)?;
    let ended = wait(&mut child, test.timeout).map_err(cannot);
    // What it left behind would write into the next one's output.
    end_group(&child);
    let lines = printed.lines();
    for line in &lines {
        output.log(line);
    }
    let what = match ended? {
        Some(status) if status.success() => return Ok(()),
        Some(status) => status.to_string(),
        None => {
            child.wait().map_err(cannot)?;
            format!("it did not end within {} s", test.timeout.as_secs())
        }
    };
    let mut message = format!("the test \"{name}\" of the staged tree failed: {what}");
    for line in lines.iter().skip(lines.len().saturating_sub(LINES_IN_FAILURE)) {
        message.push('\n');
        message.push_str(line);
    }
    Err(Failure::new(ErrorCode::TestFailed, message))
}

fn start(test: &InstallTest) -> std::io::Result<(Child, Printed)> {
    let (reader, writer) = pipe()?;
    let (program, arguments) = test.arguments.split_first().ok_or(std::io::ErrorKind::NotFound)?;
    // The writer's ends go with the command.
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .spawn()?;
    Ok((child, Printed::read(reader)))
}

/// How it ended; none when its time is up.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

fn end_group(child: &Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group
        && let Err(error) = kill_process_group(group, Signal::KILL)
        && error != rustix::io::Errno::SRCH
    {
        eprintln!("a test's processes cannot be ended: {error}");
    }
}

/// What a test prints, read by a thread of its own so that the test never waits for us.
struct Printed {
    end: Arc<Mutex<Vec<u8>>>,
    done: Receiver<()>,
}

impl Printed {
    fn read(mut reader: PipeReader) -> Self {
        let (end, (sender, done)) = (Arc::default(), channel());
        let kept: Arc<Mutex<Vec<u8>>> = Arc::clone(&end);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&buffer[..count]);
                let surplus = kept.len().saturating_sub(KEPT_BYTES);
                kept.drain(..surplus);
            }
            drop(sender);
        });
        Self { end, done }
    }

    /// The last lines, once nothing more comes.
    fn lines(&self) -> Vec<String> {
        if self.done.recv_timeout(REST) == Err(RecvTimeoutError::Timeout) {
            eprintln!("a test left a process behind, which holds its output open");
        }
        let kept = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept);
        text.lines().map(|line| line.chars().take(LONGEST_LINE).collect()).collect()
    }
}
