//! The worker's side of the wire.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Mutex;

use apt_ostree::host::worker::protocol::Line;
use apt_ostree_proto::Failure;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::{dup2_stdout, stderr, stdout};
use serde::Serialize;

/// The lowest number of the private descriptor: out of the way of those that dpkg is given.
const PRIVATE_DESCRIPTOR: i32 = 100;

/// Where reports and the answer go. Can be used from any thread.
#[derive(Debug)]
pub(crate) struct Output {
    stream: Mutex<File>,
}

impl Output {
    /// Takes standard output for the protocol alone: what libraries and their children print there
    /// from now on goes to standard error.
    pub(crate) fn take_stdout() -> io::Result<Self> {
        let private = fcntl_dupfd_cloexec(stdout(), PRIVATE_DESCRIPTOR)?;
        dup2_stdout(stderr())?;
        Ok(Self { stream: Mutex::new(File::from(private)) })
    }

    /// Gives standard output back, for a program that this process becomes.
    pub(crate) fn give_back_stdout(&self) -> io::Result<()> {
        let stream = self.stream.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(dup2_stdout(&*stream)?)
    }

    /// How much of the task is done, from 0 to 1.
    pub(crate) fn fraction(&self, fraction: f64) {
        self.send(&Line::<()>::Fraction(fraction));
    }

    /// How many bytes of the task's transfer are done.
    pub(crate) fn transfer(&self, done_bytes: u64, total_bytes: u64) {
        self.send(&Line::<()>::Transfer(done_bytes, total_bytes));
    }

    /// One package's progress: its name, one of the states that the daemon knows, 0 to 100 or 101.
    pub(crate) fn item(&self, item: &str, status: &str, percentage: u32) {
        self.send(&Line::<()>::Item(item.to_owned(), status.to_owned(), percentage));
    }

    /// A line of a tool's output.
    pub(crate) fn log(&self, line: &str) {
        self.send(&Line::<()>::Log(line.to_owned()));
    }

    /// Something that the admin should know.
    pub(crate) fn warning(&self, text: &str) {
        self.send(&Line::<()>::Warning(text.to_owned()));
    }

    /// The last line of a task that was done.
    pub(crate) fn answer<Answer: Serialize>(&self, answer: &Answer) {
        self.send(&Line::Answer(answer));
    }

    /// The last line of a task that failed.
    pub(crate) fn failure(&self, failure: Failure) {
        self.send(&Line::<()>::Failure(failure));
    }

    fn send<Answer: Serialize>(&self, line: &Line<Answer>) {
        let sent = serde_json::to_vec(line).map_err(io::Error::from).and_then(|mut text| {
            text.push(b'\n');
            // One write a line: a killed worker leaves no half one in all but the longest cases.
            self.stream.lock().unwrap_or_else(std::sync::PoisonError::into_inner).write_all(&text)
        });
        if let Err(error) = sent {
            // Nobody listens: the daemon is gone, and the task with it.
            eprintln!("the answer cannot be written: {error}");
            std::process::exit(1);
        }
    }
}
