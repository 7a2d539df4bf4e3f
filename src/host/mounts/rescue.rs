//! Running the rescue binary and reading its one line of JSON.

use std::process::Stdio;
use std::time::Duration;

use apt_ostree_actors::port::{PortResult, TreeIdentity};
use apt_ostree_proto::{ErrorCode, Failure};
use serde::Deserialize;

use crate::host::programs::Program;

/// The mount calls take milliseconds; a command that takes this long hangs in the kernel.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RescueReply {
    /// Whether anything was changed.
    pub changed: bool,
    /// How long the step took that other processes can see, in nanoseconds.
    pub step_nanos: u64,
    /// Mounts on `/usr` afterwards.
    pub layers: usize,
    /// Mount points below `/usr` that were carried over.
    pub carried: Vec<String>,
}

#[derive(Deserialize)]
struct Trouble {
    code: String,
    message: String,
}

/// Runs one command. When it does not answer in time it is killed, and may have done its work.
pub(super) async fn run(
    program: &Program,
    command: &str,
    arguments: Vec<String>,
) -> PortResult<RescueReply> {
    let mut child = program.command();
    child.arg(command).args(arguments).stdin(Stdio::null()).env_clear().kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, child.output())
        .await
        .map_err(|_| {
            Failure::new(
                ErrorCode::SwitchFailed,
                format!("{command} did not end within {} s", PATIENCE.as_secs()),
            )
        })?
        .map_err(|error| {
            Failure::caused(ErrorCode::SwitchFailed, "cannot run the rescue program", &error)
        })?;
    if output.status.success() {
        return serde_json::from_slice(&output.stdout).map_err(|error| {
            Failure::caused(ErrorCode::Internal, "the rescue binary's answer is unreadable", &error)
        });
    }
    Err(match serde_json::from_slice::<Trouble>(&output.stdout) {
        Ok(trouble) => Failure::new(
            ErrorCode::parse(&trouble.code).unwrap_or(ErrorCode::SwitchFailed),
            trouble.message,
        ),
        Err(_) => Failure::new(
            ErrorCode::SwitchFailed,
            format!("{command} ended with {}: {}", output.status, excerpt(&output.stderr)),
        ),
    })
}

/// How a tree is named on the command line.
pub(super) fn tree_arguments(tree: &TreeIdentity) -> Vec<String> {
    vec![
        format!("--tree={}", tree.path.display()),
        format!("--device={}", tree.device),
        format!("--inode={}", tree.inode),
    ]
}

/// The end of what a program wrote, quoted, for a message.
pub(super) fn excerpt(output: &[u8]) -> String {
    const LONGEST: usize = 400;
    let start = output.len().saturating_sub(LONGEST);
    format!("{:?}", String::from_utf8_lossy(&output[start..]).trim())
}
