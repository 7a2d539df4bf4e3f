//! What a worker process is asked and what it answers.

use apt_ostree_proto::Failure;
use serde::{Deserialize, Serialize};

/// One line of a worker's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line<Answer> {
    /// How much of the task is done, from 0 to 1.
    Fraction(f64),
    /// How many bytes of the task's transfer are done, and how many there are.
    Transfer(u64, u64),
    /// One package's progress: name, what happens to it, percentage (101 for unknown).
    Item(String, String, u32),
    /// A line of a tool's output.
    Log(String),
    /// Something that the admin should know.
    Warning(String),
    /// The last line of a task that was done.
    Answer(Answer),
    /// The last line of a task that failed.
    Failure(Failure),
}
