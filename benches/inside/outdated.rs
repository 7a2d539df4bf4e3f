//! Who runs old code, by the daemon's own code, on a host that has no daemon.

use std::collections::BTreeSet;

use anyhow::Result;
use apt_ostree::host::processes::ProcProcesses;
use apt_ostree_actors::port::Processes as _;
use apt_ostree_proto::outdated::Place;

/// The services' names; process 1 by needrestart's name for it.
pub(super) fn run() -> Result<BTreeSet<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = runtime.block_on(ProcProcesses::new().outdated(&[]))?;
    let of_host = seen.uses.into_iter().filter(|found| found.place == Place::Host);
    let names = of_host.filter_map(|found| match found.unit?.as_str() {
        "init.scope" => Some("systemd-manager".to_owned()),
        name => name.ends_with(".service").then(|| name.to_owned()),
    });
    Ok(names.collect())
}
