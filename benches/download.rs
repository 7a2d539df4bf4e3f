//! Fetching 60 packages from a mirror on the loopback device: ours against apt-get, in turn.
//!
//! `cargo bench --bench download` prints a table and adds its rows to `target/bench.json`. Needs apt and
//! dpkg-deb; changes nothing outside of a temporary directory. What apt takes without fetching (reading
//! its lists, resolving) is measured too and subtracted from its time.

#[path = "download/apt.rs"]
mod apt;
#[path = "download/mirror.rs"]
mod mirror;
#[path = "download/ours.rs"]
mod ours;
#[path = "download/packages.rs"]
mod packages;
#[path = "download/rows.rs"]
mod rows;

use std::time::Duration;

use anyhow::{Context, Result};

/// One kind of network.
struct Network {
    id: &'static str,
    what: &'static str,
    /// The mirror's control file.
    shape: &'static str,
    rounds: usize,
    goal: f64,
}

const NETWORKS: [Network; 2] = [
    Network {
        id: "download-30ms",
        what: "60 packages, 30 ms latency, 4 MB/s a connection, against apt-get",
        shape: "* latency 30\n* bandwidth 4000000\n",
        rounds: 3,
        goal: 7.0,
    },
    Network {
        id: "download-0ms",
        what: "60 packages, no latency, against apt-get",
        shape: "",
        rounds: 7,
        goal: 2.0,
    },
];

fn main() -> Result<()> {
    let only: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let directory = tempfile::tempdir()?;
    let root = directory.path().join("archive");
    let control = directory.path().join("control");
    let files = packages::make(&root).context("the packages cannot be made")?;
    std::fs::write(&control, "")?;
    let mirror = mirror::Mirror::start(&root, &control)?;
    let mut rows = Vec::new();
    for network in NETWORKS {
        if !only.is_empty() && !only.iter().any(|word| network.id.starts_with(word.as_str())) {
            continue;
        }
        std::fs::write(&control, "")?;
        let apt = apt::Apt::new(directory.path().join(network.id), mirror.uri(), &files)?;
        std::fs::write(&control, network.shape)?;
        let (mut by_us, mut by_apt, mut without_fetching) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..network.rounds {
            by_us.push(ours::fetch(&directory.path().join("ours"), mirror.uri(), &files)?);
            by_apt.push(apt.fetch()?);
            without_fetching.push(apt.fetch_again()?);
        }
        let peer = median(by_apt).saturating_sub(median(without_fetching));
        rows.push(rows::Row::new(network.id, network.what, median(by_us), peer, network.goal));
    }
    rows::publish(&rows)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
