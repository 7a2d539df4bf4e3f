//! Fetching 60 packages from a mirror on the loopback device: ours against apt-get, in turn.
//!
//! Needs apt and dpkg-deb; changes nothing outside of a temporary directory. What apt takes without
//! fetching (reading its lists, resolving) is measured too and subtracted from its time.

mod apt;
mod mirror;
mod ours;
mod packages;

use anyhow::{Context, Result};

use super::row::{Goal, Row, median_seconds};

/// One kind of network.
struct Network {
    id: &'static str,
    what: &'static str,
    /// The mirror's control file.
    shape: &'static str,
    rounds: usize,
    goal: f64,
}

/// As on a long way.
pub(super) fn slow() -> Result<Vec<Row>> {
    measure(&Network {
        id: "download-30ms",
        what: "60 packages, 30 ms latency, 4 MB/s a connection, against apt-get",
        shape: "* latency 30\n* bandwidth 4000000\n",
        rounds: 3,
        goal: 7.0,
    })
}

/// As from the next room.
pub(super) fn fast() -> Result<Vec<Row>> {
    measure(&Network {
        id: "download-0ms",
        what: "60 packages, no latency, against apt-get",
        shape: "",
        rounds: 7,
        goal: 2.0,
    })
}

fn measure(network: &Network) -> Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let root = directory.path().join("archive");
    let control = directory.path().join("control");
    let files = packages::make(&root).context("the packages cannot be made")?;
    std::fs::write(&control, "")?;
    let mirror = mirror::Mirror::start(&root, &control)?;
    let apt = apt::Apt::new(directory.path().join("apt"), mirror.uri(), &files)?;
    std::fs::write(&control, network.shape)?;
    let (mut by_us, mut by_apt, mut without_fetching) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..network.rounds {
        by_us.push(ours::fetch(&directory.path().join("ours"), mirror.uri(), &files)?);
        by_apt.push(apt.fetch()?);
        without_fetching.push(apt.fetch_again()?);
    }
    let peer = (median_seconds(&by_apt)? - median_seconds(&without_fetching)?).max(0.0);
    let both = (median_seconds(&by_us)?, Some(peer));
    Ok(vec![Row::new(network.id, network.what, both, "s", Goal::Faster(network.goal))])
}
