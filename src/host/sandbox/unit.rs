//! The unit that an installation runs in: what it may use, and what it is called.

use std::os::fd::OwnedFd;
use std::time::Duration;

use apt_ostree_actors::port::PortResult;
use apt_ostree_proto::TransactionId;
use zbus::zvariant::{Fd, Value};

use super::task::SANDBOX;
use crate::host::paths;
use crate::host::transient::TransientUnit;

/// What an installation may use: systemd.resource-control(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `MemoryMax=`
    pub memory_max_bytes: u64,
    /// `TasksMax=`
    pub tasks_max: u64,
    /// `CPUWeight=`; the services of the host have 100.
    pub cpu_weight: u64,
    /// `IOWeight=`; the same.
    pub io_weight: u64,
    /// `RuntimeMaxSec=`
    pub runtime_max: Duration,
}

impl Limits {
    /// What leaves the host's services enough to live, for at most so long.
    pub fn lasting(runtime_max: Duration) -> Self {
        let system = rustix::system::sysinfo();
        let memory_bytes = system.totalram.saturating_mul(system.mem_unit.into());
        Self {
            // A script that runs wild must leave the host's services enough to live.
            memory_max_bytes: memory_bytes / 4 * 3,
            // xz, mandb and the like use a task for each core.
            tasks_max: 4096,
            cpu_weight: 50,
            io_weight: 50,
            runtime_max,
        }
    }
}

/// The unit's standard streams.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// The unit of one transaction's installation.
pub(super) fn of(bus: &zbus::Connection, transaction: TransactionId) -> TransientUnit<'_> {
    TransientUnit::named(bus, format!("apt-ostree-install-{transaction}.service"))
}

/// Starts the sandbox; its streams are the manager's from then on.
pub(super) async fn start(
    unit: &TransientUnit<'_>,
    limits: &Limits,
    streams: Streams,
) -> PortResult<()> {
    let command = (paths::WORKER, vec![paths::WORKER, SANDBOX], false);
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let properties = [
        ("Description", Value::from("Package installation of apt-ostree")),
        ("Slice", Value::from("apt-ostree.slice")),
        ("Type", Value::from("exec")),
        ("ExecStart", Value::from(vec![command])),
        ("StandardInputFileDescriptor", Value::from(Fd::from(&streams.stdin))),
        ("StandardOutputFileDescriptor", Value::from(Fd::from(&streams.stdout))),
        ("StandardErrorFileDescriptor", Value::from(Fd::from(&streams.stderr))),
        ("KillMode", Value::from("control-group")),
        ("SendSIGKILL", Value::from(true)),
        ("OOMPolicy", Value::from("kill")),
        ("CollectMode", Value::from("inactive-or-failed")),
        ("MemoryMax", Value::from(limits.memory_max_bytes)),
        ("TasksMax", Value::from(limits.tasks_max)),
        ("CPUWeight", Value::from(limits.cpu_weight)),
        ("IOWeight", Value::from(limits.io_weight)),
        ("RuntimeMaxUSec", Value::from(micros(limits.runtime_max))),
    ];
    unit.start(&properties).await
}
