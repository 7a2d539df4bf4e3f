//! What the product takes while nobody asks it for anything, and what a question takes.

use anyhow::Result;

use super::guest::Guest;
use super::row::{Goal, Row, median};

/// The memory of every process of ours, shared pages in parts: proc(5), `smaps_rollup`.
const MEMORY: &str = "for link in /proc/[0-9]*/exe; do \
        case $(readlink $link || true) in */apt-ostree*) cat ${link%exe}smaps_rollup ;; esac; \
    done | awk '/^Pss:/ { sum += $2 } END { print sum }'";

/// An idle daemon that has just applied an update, and `status` of it.
pub(super) fn run() -> Result<Vec<Row>> {
    let guest = Guest::boot()?;
    guest.host.mirror().publish(&super::support::Repository::hello(2));
    guest.make_ready();
    guest.apply(&["apply-live", "--no-refresh", "--packages=hello-svc"], 0)?;
    let kilobytes: f64 = guest.host.shell(MEMORY).trim().parse()?;
    let status: Vec<f64> = guest.inside(&["time", "20", "apt-ostree", "status"])?;
    Ok(vec![
        Row::new(
            "idle-memory",
            "PSS of all processes after an update",
            (kilobytes / 1024.0, None),
            "MB",
            Goal::Limit(15.0),
        ),
        Row::new(
            "idle-status",
            "apt-ostree status",
            (median(status)?, None),
            "ms",
            Goal::Limit(20.0),
        ),
    ])
}
