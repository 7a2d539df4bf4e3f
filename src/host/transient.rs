//! Transient units: programs that the service manager runs for us, with limits, and ends with all that
//! they started. org.freedesktop.systemd1(5).

use std::time::Duration;

use apt_ostree_actors::port::PortResult;
use apt_ostree_proto::{ErrorCode, Failure};
use futures_util::StreamExt;
use zbus::zvariant::{OwnedObjectPath, Value};

/// How long the manager may take to end a unit whose processes were killed: the kernel may first
/// have to finish a write to a slow disk.
const LONGEST_END: Duration = Duration::from_secs(60);
/// The error by which the manager says that it does not know a unit.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// The error by which it says that it sends signals already.
const ALREADY_SUBSCRIBED: &str = "org.freedesktop.systemd1.AlreadySubscribed";

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
    fn list_units_by_patterns(
        &self,
        states: &[&str],
        patterns: &[&str],
    ) -> zbus::Result<Vec<ListedUnit>>;
    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
    #[zbus(signal)]
    fn unit_removed(&self, id: String, unit: OwnedObjectPath) -> zbus::Result<()>;
}

/// One line of the manager's list: name, description, three states, and what is not needed here.
pub(super) type ListedUnit =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// One transient unit.
#[derive(Debug)]
pub(super) struct TransientUnit<'a> {
    bus: &'a zbus::Connection,
    name: String,
}

impl<'a> TransientUnit<'a> {
    /// The unit of this name, whether or not it runs.
    pub(super) fn named(bus: &'a zbus::Connection, name: String) -> Self {
        Self { bus, name }
    }

    fn cannot(&self, what: &str, error: &zbus::Error) -> Failure {
        failed(&format!("the unit {} cannot {what}", self.name), error)
    }

    async fn manager(&self) -> PortResult<ManagerProxy<'a>> {
        ManagerProxy::builder(self.bus)
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await
            .map_err(|error| failed("the service manager cannot be reached", &error))
    }

    /// Starts the unit with these properties.
    pub(super) async fn start(&self, properties: &[(&str, Value<'_>)]) -> PortResult<()> {
        self.manager()
            .await?
            .start_transient_unit(&self.name, "fail", properties, &[])
            .await
            .map(drop)
            .map_err(|error| self.cannot("be started", &error))
    }

    /// Starts the unit, which must be of `Type=oneshot` and `RemainAfterExit=`, and returns when its
    /// program has ended: with the unit's `Result`, or its job's where only that says that it did not
    /// succeed, and the program's `ExecMainStatus`. The unit stays.
    pub(super) async fn run_to_end(
        &self,
        properties: &[(&str, Value<'_>)],
    ) -> PortResult<(String, i32)> {
        let manager = self.manager().await?;
        let end = async {
            // Listen first: the job may be over before its number is known.
            manager.subscribe().await.or_else(ignore(ALREADY_SUBSCRIBED))?;
            let mut removed = manager.receive_job_removed().await?;
            let job = manager.start_transient_unit(&self.name, "fail", properties, &[]).await?;
            let mut outcome = String::new();
            while let Some(signal) = removed.next().await {
                let ended = signal.args()?;
                if *ended.job() == job {
                    outcome.clone_from(ended.result());
                    break;
                }
            }
            let unit = self.service(&manager).await?;
            let result: String = unit.get_property("Result").await?;
            let status = unit.get_property("ExecMainStatus").await?;
            zbus::Result::Ok((result_of(&outcome, result), status))
        };
        end.await.map_err(|error| self.cannot("be run", &error))
    }

    /// Kills every process of the unit and returns when the manager knows it no more. Idempotent.
    pub(super) async fn kill(&self) -> PortResult<()> {
        let end = async {
            let manager = self.manager().await?;
            self.end(&manager).await.map_err(|error| self.cannot("be ended", &error))
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
        manager.subscribe().await.or_else(ignore(ALREADY_SUBSCRIBED))?;
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
            let manager = self.manager().await.ok()?;
            self.service(&manager).await.ok()?.get_property::<String>("Result").await.ok()
        };
        asked.await.unwrap_or_else(|| "its unit is gone".to_owned())
    }

    async fn service(&self, manager: &ManagerProxy<'a>) -> zbus::Result<zbus::Proxy<'a>> {
        let path = manager.get_unit(&self.name).await?;
        let interface = "org.freedesktop.systemd1.Service";
        zbus::proxy::Builder::new(self.bus)
            .destination("org.freedesktop.systemd1")?
            .path(path)?
            .interface(interface)?
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await
    }
}

/// A unit whose job was cancelled has not failed, and nothing of it succeeded.
fn result_of(job: &str, unit: String) -> String {
    if unit == "success" && job != "done" { format!("job-{job}") } else { unit }
}

/// The units that the manager has loaded and whose names match one of `patterns`: all, if there is none.
pub(super) async fn loaded(
    bus: &zbus::Connection,
    patterns: &[&str],
) -> PortResult<Vec<ListedUnit>> {
    let manager = TransientUnit::named(bus, String::new()).manager().await?;
    let units = if patterns.is_empty() {
        manager.list_units().await
    } else {
        manager.list_units_by_patterns(&[], patterns).await
    };
    units.map_err(|error| failed("the units cannot be listed", &error))
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
    let is_lost = matches!(error, zbus::Error::InputOutput(_));
    let code = if is_lost { ErrorCode::BusLost } else { ErrorCode::Internal };
    Failure::caused(code, what, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_succeeded_only_if_its_job_is_done() {
        for (job, unit, expected) in [
            ("done", "success", "success"),
            ("canceled", "success", "job-canceled"),
            ("", "success", "job-"),
            ("failed", "exit-code", "exit-code"),
        ] {
            assert_eq!(result_of(job, unit.to_owned()), expected, "{job} {unit}");
        }
    }
}
