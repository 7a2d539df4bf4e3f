//! The transient unit that an installation runs in: org.freedesktop.systemd1(5).

use std::os::fd::OwnedFd;
use std::time::Duration;

use apt_ostree_actors::port::PortResult;
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use futures_util::StreamExt;
use zbus::zvariant::{Fd, OwnedObjectPath, Value};

use super::task::{KnownUnit, SANDBOX};
use crate::host::paths;

/// How long the manager may take to end a unit whose processes were killed: the kernel may first
/// have to finish a write to a slow disk.
const LONGEST_END: Duration = Duration::from_secs(60);
/// The error by which the manager says that it does not know a unit.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

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

/// The part of the manager's interface that is needed here.
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    gen_blocking = false
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Value<'_>)],
        auxiliary: &[(&str, Vec<(&str, Value<'_>)>)],
    ) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn list_units(&self) -> zbus::Result<Vec<ListedUnit>>;
    #[zbus(signal)]
    fn unit_removed(&self, id: String, unit: OwnedObjectPath) -> zbus::Result<()>;
}

type ListedUnit =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// The unit of one transaction's installation.
#[derive(Debug)]
pub(super) struct InstallUnit<'a> {
    bus: &'a zbus::Connection,
    name: String,
}

impl<'a> InstallUnit<'a> {
    pub(super) fn of(bus: &'a zbus::Connection, transaction: TransactionId) -> Self {
        Self { bus, name: format!("apt-ostree-install-{transaction}.service") }
    }

    async fn manager(&self) -> PortResult<ManagerProxy<'a>> {
        ManagerProxy::builder(self.bus)
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await
            .map_err(|error| failed("the service manager cannot be reached", &error))
    }

    /// Starts the sandbox; its streams are the manager's from then on.
    pub(super) async fn start(&self, limits: &Limits, streams: Streams) -> PortResult<()> {
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
        self.manager()
            .await?
            .start_transient_unit(&self.name, "fail", &properties, &[])
            .await
            .map(drop)
            .map_err(|error| failed(&format!("the unit {} cannot be started", self.name), &error))
    }

    /// Kills every process of the unit and returns when the manager knows it no more. Idempotent.
    pub(super) async fn kill(&self) -> PortResult<()> {
        let end = async {
            let manager = self.manager().await?;
            self.end(&manager)
                .await
                .map_err(|error| failed(&format!("the unit {} cannot be ended", self.name), &error))
        };
        tokio::time::timeout(LONGEST_END, end).await.unwrap_or_else(|_| {
            let message = format!(
                "the unit {} has not ended {} seconds after its processes were killed",
                self.name,
                LONGEST_END.as_secs()
            );
            Err(Failure::new(ErrorCode::Internal, message))
        })
    }

    async fn end(&self, manager: &ManagerProxy<'_>) -> zbus::Result<()> {
        if !self.exists(manager).await? {
            return Ok(());
        }
        // Listen first, ask then: else the signal may come in between.
        manager.subscribe().await.or_else(ignore("org.freedesktop.systemd1.AlreadySubscribed"))?;
        let mut removed = manager.receive_unit_removed().await?;
        manager.kill_unit(&self.name, "all", KILL).await.or_else(|_| Ok::<(), zbus::Error>(()))?;
        manager.stop_unit(&self.name, "replace").await.map(drop).or_else(ignore(NO_SUCH_UNIT))?;
        manager.reset_failed_unit(&self.name).await.or_else(ignore(NO_SUCH_UNIT))?;
        while self.exists(manager).await? {
            while let Some(signal) = removed.next().await {
                if signal.args()?.id() == &self.name {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn exists(&self, manager: &ManagerProxy<'_>) -> zbus::Result<bool> {
        let found = manager.get_unit(&self.name).await.map(|_| true);
        found.or_else(|error| if is_named(&error, NO_SUCH_UNIT) { Ok(false) } else { Err(error) })
    }

    /// Why the unit ended, for a message.
    pub(super) async fn result(&self) -> String {
        let asked = async {
            let path = self.manager().await.ok()?.get_unit(&self.name).await.ok()?;
            let unit = zbus::Proxy::new(
                self.bus,
                "org.freedesktop.systemd1",
                path,
                "org.freedesktop.systemd1.Service",
            );
            unit.await.ok()?.get_property::<String>("Result").await.ok()
        };
        asked.await.unwrap_or_else(|| "its unit is gone".to_owned())
    }

    /// The state of every unit that the manager has loaded.
    pub(super) async fn states_of_all_units(&self) -> PortResult<Vec<KnownUnit>> {
        let units = self.manager().await?.list_units().await;
        let units = units.map_err(|error| failed("the units cannot be listed", &error))?;
        Ok(units
            .into_iter()
            .map(|(name, _, load, active, sub, ..)| KnownUnit { name, load, active, sub })
            .collect())
    }
}

/// `SIGKILL`
const KILL: i32 = rustix::process::Signal::KILL.as_raw();

fn is_named(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(found, _, _) if found.as_str() == name)
}

fn ignore(name: &'static str) -> impl FnOnce(zbus::Error) -> zbus::Result<()> {
    move |error| if is_named(&error, name) { Ok(()) } else { Err(error) }
}

fn failed(what: &str, error: &zbus::Error) -> Failure {
    Failure::caused(ErrorCode::Internal, what, error)
}
