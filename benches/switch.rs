//! A thousand switches of `/usr` on a booted host, under everything that reads it.

use anyhow::Result;

use super::guest::Guest;
use super::inside::Switches;
use super::row::{Goal, Row, median};

const SWITCHES: &str = "1000";
const NGINX: u16 = 80;

/// Opens through paths, comparisons through directory handles, executions, and a client of nginx.
pub(super) fn run() -> Result<Vec<Row>> {
    let guest = Guest::boot()?;
    let client = guest.host.poll(NGINX);
    let seen: Switches = guest.inside(&["switches", SWITCHES])?;
    let polls = client.stop();
    let none = |id: &str, what: String, count: u64| {
        #[expect(clippy::cast_precision_loss, reason = "counts that should be 0")]
        Row::new(id, what, (count as f64, None), "", Goal::Limit(0.0))
    };
    let (opens, executions) = (seen.opens, seen.executions);
    Ok(vec![
        Row::new(
            "switch",
            format!("mount step, median of {SWITCHES} switches under readers"),
            (median(seen.steps_microseconds)?, None),
            "us",
            Goal::Limit(100.0),
        ),
        none(
            "switch-missing",
            format!("missing paths in {opens} opens and {executions} executions"),
            seen.missing + seen.failed_executions,
        ),
        none(
            "switch-mixed",
            format!("mixed trees in {} comparisons through one handle", seen.comparisons),
            seen.mixed,
        ),
        none(
            "switch-polls",
            format!("failed requests to nginx of {}", polls.answered + polls.failed),
            polls.failed,
        ),
    ])
}
