//! What every step gets: whose it is, how it is cancelled, where it reports.

use apt_ostree_proto::TransactionId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The context of one running step.
#[derive(Clone, Debug)]
pub struct StepContext {
    /// The transaction that the step belongs to.
    pub transaction: TransactionId,
    /// Trips when the transaction is cancelled or the daemon stops. A step that hears it returns
    /// soon, with [`apt_ostree_proto::ErrorCode::Cancelled`], having ended what it started.
    pub cancel: CancellationToken,
    /// Where progress goes.
    pub report: Reporter,
}

impl StepContext {
    /// The same, deaf to a cancel: for undos, and for what lies behind the pivot.
    pub fn uncancellable(mut self) -> Self {
        self.cancel = CancellationToken::new();
        self
    }
}

/// What a step tells while it runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// How much of the step is done, from 0 to 1. Only the latest counts.
    Fraction(f64),
    /// How many bytes of the step's transfer are done. Only the latest counts.
    Transfer {
        /// Bytes that are there.
        done_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
    },
    /// One package's or unit's progress.
    Item {
        /// Its name.
        item: String,
        /// What happens to it, as a present participle or a past one: `downloading`, `verified`.
        status: &'static str,
        /// 0 to 100, or 101 for unknown.
        percentage: u32,
    },
    /// A line of a tool's output.
    Log(String),
    /// Something that the admin should know, kept in the history.
    Warning(String),
}

/// A handle that takes reports from any thread. Reports of a transaction that has ended go nowhere.
#[derive(Clone, Debug)]
pub struct Reporter {
    sender: mpsc::UnboundedSender<Report>,
}

impl Reporter {
    /// A reporter and the end where its reports arrive.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Report>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender }, receiver)
    }

    /// A reporter that nobody listens to.
    pub fn silent() -> Self {
        Self::channel().0
    }

    /// How much of the step is done, from 0 to 1.
    pub fn fraction(&self, fraction: f64) {
        self.send(Report::Fraction(fraction));
    }

    /// How many bytes of the step's transfer are done.
    pub fn transfer(&self, done_bytes: u64, total_bytes: u64) {
        self.send(Report::Transfer { done_bytes, total_bytes });
    }

    /// One package's or unit's progress.
    pub fn item(&self, item: impl Into<String>, status: &'static str, percentage: u32) {
        self.send(Report::Item { item: item.into(), status, percentage });
    }

    /// A line of a tool's output; control characters are the receiver's business.
    pub fn log(&self, line: impl Into<String>) {
        self.send(Report::Log(line.into()));
    }

    /// Something that the admin should know.
    pub fn warning(&self, text: impl Into<String>) {
        self.send(Report::Warning(text.into()));
    }

    fn send(&self, report: Report) {
        // The coordinator may have stopped listening: then nobody wants to know.
        drop(self.sender.send(report));
    }
}
