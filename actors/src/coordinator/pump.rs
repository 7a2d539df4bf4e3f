//! Where a running step's reports go: bounded progress events, and the transaction's log file.

use std::io::Write as _;

use apt_ostree_proto::TransactionId;
use apt_ostree_proto::event::{Event, MessageLevel};
use tokio::time::Instant;

use super::progress::PUBLISH_INTERVAL;
use super::{Parts, Publisher};

/// How much of what tools print is kept and published: far more than the largest upgrade prints, and
/// what a script that prints for ever can take of the disk and of the clients' patience.
const LARGEST_LOG_BYTES: u64 = 8 << 20;
/// What a line costs besides its text, as an event and a signal: empty lines are not free.
const LINE_COST_BYTES: u64 = 64;
/// What stands in the log where the rest was left out.
const LOG_IS_FULL: &str = "(more was printed than is kept)";
/// Bounds what is kept of what tools print.
#[derive(Debug, Default)]
pub(super) struct Printed {
    bytes: u64,
}

impl Printed {
    /// The line, as long as there is room for it; then once that there is none; then nothing.
    pub(super) fn take(&mut self, line: &str) -> Option<String> {
        if self.bytes > LARGEST_LOG_BYTES {
            return None;
        }
        let cost = u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(cost).saturating_add(LINE_COST_BYTES);
        Some(if self.bytes > LARGEST_LOG_BYTES { LOG_IS_FULL } else { line }.to_owned())
    }
}

/// Bounds how often progress is published, and keeps the transaction's log file.
pub(super) struct Pump {
    last_progress: Option<Instant>,
    last_item: Option<Instant>,
    log: Option<std::fs::File>,
    publish: Publisher,
    id: TransactionId,
}

impl Pump {
    pub(super) fn new(parts: &Parts, id: TransactionId) -> Self {
        let path = parts.settings.log_of(id);
        let open = || -> std::io::Result<std::fs::File> {
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory)?;
            }
            std::fs::OpenOptions::new().create(true).append(true).open(&path)
        };
        let log = open().inspect_err(|error| tracing::warn!(%error, "no log file")).ok();
        Self { last_progress: None, last_item: None, log, publish: parts.publish.clone(), id }
    }

    pub(super) fn progress_is_due(&mut self) -> bool {
        is_due(&mut self.last_progress)
    }

    /// The last report of an item is never dropped.
    pub(super) fn item(&mut self, event: Event, percentage: u32) {
        if is_due(&mut self.last_item) || percentage == 100 {
            self.publish.publish(event);
        }
    }

    pub(super) fn log(&mut self, line: &str) {
        if let Some(file) = &mut self.log
            && let Err(error) = writeln!(file, "{line}")
        {
            tracing::warn!(%error, "the transaction's log cannot be written");
            self.log = None;
        }
        let (id, level, text) = (self.id, MessageLevel::Log, line.to_owned());
        self.publish.publish(Event::Message { id, level, text });
    }
}

fn is_due(last: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    let due = last.is_none_or(|last| now.duration_since(last) >= PUBLISH_INTERVAL);
    if due {
        *last = Some(now);
    }
    due
}

/// A tool's line may carry terminal control sequences; a client prints what it gets.
pub(super) fn printable(line: &str) -> String {
    line.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_prints_for_ever_fills_no_disk_and_is_told_once() {
        for line in ["", "x", &"x".repeat(4096)] {
            let mut printed = Printed::default();
            let kept: Vec<String> = (0..200_000).filter_map(|_| printed.take(line)).collect();
            let bytes: usize = kept.iter().map(String::len).sum();
            assert!(bytes as u64 <= LARGEST_LOG_BYTES + 100, "{bytes} of {} bytes", line.len());
            assert!(kept.len() as u64 <= LARGEST_LOG_BYTES / LINE_COST_BYTES + 1);
            let told = kept.iter().filter(|line| *line == LOG_IS_FULL).count();
            assert_eq!(told, 1, "lines of {} bytes", line.len());
        }
    }
}
