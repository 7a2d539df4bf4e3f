//! The real host behind the ports of [`apt_ostree_actors::port`], one module a port.

pub mod archive;
pub mod checks;
pub mod files;
pub mod http;
pub mod lock;
pub mod mounts;
pub mod namespace;
pub mod packages;
pub mod paths;
pub mod processes;
pub mod programs;
pub mod sandbox;
pub mod surroundings;
pub mod systemd;
mod transient;
pub mod tree;
pub mod worker;

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use apt_ostree_actors::port::{Host, Processes};
use apt_ostree_proto::id::BootId;

/// The host that this process runs on; an installation may take `longest_install`.
pub async fn open(bus: &zbus::Connection, longest_install: Duration) -> anyhow::Result<Host> {
    programs::worker().context("cannot open the worker")?;
    let rescue = programs::Program::open(Path::new(paths::RESCUE), "apt-ostree-rescue")
        .with_context(|| format!("cannot open {}", paths::RESCUE))?;
    let limits = sandbox::Limits::lasting(longest_install);
    let tree = tree::OstreeTree::new();
    tree.sweep_later();
    let processes: Rc<dyn Processes> = Rc::new(processes::ProcProcesses::new());
    Ok(Host {
        packages: Rc::new(packages::Apt::new(Rc::clone(&processes))),
        archive: Rc::new(archive::DebArchive::new()),
        http: Rc::new(http::HttpClient::of_host()),
        tree: Rc::new(tree),
        sandbox: Rc::new(sandbox::Bubblewrap::new(bus.clone(), limits)),
        mounts: Rc::new(mounts::KernelMounts::new(rescue)),
        files: Rc::new(files::HostFiles::new()),
        systemd: Rc::new(systemd::SystemdManager::connect(bus.clone()).await?),
        processes,
        checks: Rc::new(checks::HostChecks::new(bus.clone())),
    })
}

/// The kernel's id of this boot.
pub fn boot_id() -> Option<BootId> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    BootId::parse(text.trim()).ok()
}
