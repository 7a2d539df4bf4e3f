//! Where the daemon's own log goes: the journal under systemd, else standard error.

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// The environment variable with the log's filter, in `tracing`'s syntax.
const FILTER_VARIABLE: &str = "APT_OSTREE_LOG";

/// Sets logging up for the whole process. `default_filter` holds where the environment says nothing.
pub fn begin(default_filter: &str) {
    let filter =
        EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(default_filter));
    // Under systemd JOURNAL_STREAM names the journal's socket: systemd.exec(5).
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| to_journal());
    let (journal, terminal) = if let Some(journal) = journal {
        (Some(journal.with_filter(filter)), None)
    } else {
        let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        (None, Some(layer.with_filter(filter)))
    };
    tracing_subscriber::registry().with(journal).with(terminal).init();
}

/// Fields keep their names: `TRANSACTION=` and `MESSAGE_ID=` are what `journalctl` looks for.
fn to_journal() -> Option<tracing_journald::Layer> {
    let layer = tracing_journald::layer().ok()?;
    Some(layer.with_field_prefix(None))
}
