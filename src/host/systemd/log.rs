//! The end of a unit's log.

use std::process::Stdio;
use std::time::Duration;

use apt_ostree_actors::port::PortResult;
use apt_ostree_proto::{ErrorCode, Failure, UnitName};
use tokio::process::Command;

/// How many lines are read: what a service says when it fails rarely takes more.
const LINES: &str = "8";

/// The longest line that is kept, in characters.
const LONGEST_LINE: usize = 200;

/// A large journal on a slow disk takes seconds; a message can do without its log.
const LOG_TIMEOUT: Duration = Duration::from_secs(5);

/// The last lines that `unit` logged in this boot: journalctl(1).
pub(super) async fn last_lines(unit: &UnitName) -> PortResult<Vec<String>> {
    let output = Command::new("journalctl")
        .args(["--boot", "--no-pager", "--quiet", "--output=cat", "--lines", LINES, "--unit"])
        .arg(unit.as_str())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let not_read = |why: String| {
        Failure::new(ErrorCode::UnitFailed, format!("the log of {unit} was not read: {why}"))
    };
    let output = tokio::time::timeout(LOG_TIMEOUT, output)
        .await
        .map_err(|_| not_read("journalctl did not answer in time".to_owned()))?
        .map_err(|error| not_read(error.to_string()))?;
    if !output.status.success() {
        return Err(not_read(format!("journalctl: {}", output.status)));
    }
    Ok(lines_of(&output.stdout))
}

fn lines_of(output: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(output)
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.chars().filter(|c| !c.is_control()).take(LONGEST_LINE).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_rid_of_control_characters() {
        let long = format!("\u{1b}[31mred\n\n{}\n\u{fffd}\n", "x".repeat(1000));
        let lines = lines_of(long.as_bytes());
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], "[31mred");
        assert_eq!(lines[1].len(), LONGEST_LINE);
        assert_eq!(lines_of(b"\xff\xfe bad\n").len(), 1);
    }
}
