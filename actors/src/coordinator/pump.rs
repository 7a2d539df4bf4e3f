//! Where a running step's reports go: bounded progress events, and the transaction's log file.

use std::io::Write as _;

use apt_ostree_proto::TransactionId;
use apt_ostree_proto::event::{Event, MessageLevel};
use tokio::time::Instant;

use super::progress::PUBLISH_INTERVAL;
use super::{Parts, Publisher};

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
