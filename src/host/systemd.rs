//! The real systemd port: the system manager's D-Bus interface.

mod apparmor;
mod inhibitor;
mod jobs;
mod log;
mod policy;
mod reads;
mod tmpfiles;
mod units;
mod usage;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use apt_ostree_actors::port::{JobOutcome, PortResult, Systemd, UnitDependencies};
use apt_ostree_proto::service::{UnitAction, UnitState, UnitUsage};
use apt_ostree_proto::{ErrorCode, Failure, UnitName};
use async_trait::async_trait;
use futures_util::StreamExt;
use systemd_zbus::{ManagerProxy, Mode};
use tokio::time::timeout as within;

use jobs::JobWatch;

/// The longest that the manager may take to answer a question. A daemon-reload on a slow host with
/// many units takes seconds, and the manager answers nothing meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The system service manager.
#[derive(Debug)]
pub struct SystemdManager {
    connection: zbus::Connection,
    manager: ManagerProxy<'static>,
    jobs: JobWatch,
    /// Held while it is open.
    inhibitor: RefCell<Option<OwnedFd>>,
}

impl SystemdManager {
    /// Speaks with the service manager over `connection`, which must be to the system bus, and
    /// subscribes to its signals. Errors: `UnitFailed` when it does not answer.
    pub async fn connect(connection: zbus::Connection) -> PortResult<Self> {
        let manager = ManagerProxy::builder(&connection)
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await
            .map_err(|error| failure("the service manager cannot be reached", &error))?;
        let jobs = JobWatch::start(&manager).await?;
        // Without a subscriber the manager sends no signals at all.
        answered("its signals", manager.subscribe()).await?;
        Ok(Self { connection, manager, jobs, inhibitor: RefCell::new(None) })
    }
}

/// A failure of a question to the manager.
fn failure(what: &str, error: &zbus::Error) -> Failure {
    let is_lost = matches!(error, zbus::Error::InputOutput(_));
    let code = if is_lost { ErrorCode::BusLost } else { ErrorCode::UnitFailed };
    Failure::caused(code, what, error)
}

/// Waits for the manager's answer, at most [`ANSWER_TIMEOUT`].
async fn answered<T>(what: &str, answer: impl Future<Output = zbus::Result<T>>) -> PortResult<T> {
    match within(ANSWER_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            Err(failure(&format!("the service manager was asked for {what}"), &error))
        }
        Err(_) => Err(Failure::new(
            ErrorCode::UnitFailed,
            format!(
                "the service manager was asked for {what} and did not answer within {} s",
                ANSWER_TIMEOUT.as_secs()
            ),
        )),
    }
}

#[async_trait(?Send)]
impl Systemd for SystemdManager {
    async fn states(&self, units: &[UnitName]) -> PortResult<BTreeMap<UnitName, UnitState>> {
        units::states(&self.connection, units).await
    }

    async fn list(&self) -> PortResult<BTreeMap<UnitName, UnitState>> {
        units::list(&self.connection).await
    }

    async fn usage(&self, units: &[UnitName]) -> PortResult<BTreeMap<UnitName, UnitUsage>> {
        usage::of(&self.connection, &self.manager, units).await
    }

    async fn dependencies(
        &self,
        units: &[UnitName],
    ) -> PortResult<BTreeMap<UnitName, UnitDependencies>> {
        units::dependencies(&self.connection, &self.manager, units).await
    }

    async fn reads(&self, units: &[UnitName]) -> PortResult<BTreeMap<UnitName, Vec<PathBuf>>> {
        reads::reads(&self.connection, units).await
    }

    async fn start(&self, unit: &UnitName, timeout: Duration) -> PortResult<JobOutcome> {
        let queue = self.manager.start_unit(unit.as_str(), Mode::Replace);
        self.jobs.run(&self.manager, unit, queue, timeout).await
    }

    async fn stop(&self, unit: &UnitName, timeout: Duration) -> PortResult<JobOutcome> {
        let queue = self.manager.stop_unit(unit.as_str(), Mode::Replace);
        let outcome = self.jobs.run(&self.manager, unit, queue, timeout).await?;
        // A unit that the manager does not know is as stopped as can be.
        let is_unknown = outcome == JobOutcome::Failed("not-found".to_owned());
        Ok(if is_unknown { JobOutcome::Done } else { outcome })
    }

    async fn restart(&self, unit: &UnitName, timeout: Duration) -> PortResult<JobOutcome> {
        let queue = self.manager.restart_unit(unit.as_str(), Mode::Replace);
        self.jobs.run(&self.manager, unit, queue, timeout).await
    }

    async fn reload_or_restart(
        &self,
        unit: &UnitName,
        timeout: Duration,
    ) -> PortResult<JobOutcome> {
        let queue = self.manager.reload_or_restart_unit(unit.as_str(), Mode::Replace);
        self.jobs.run(&self.manager, unit, queue, timeout).await
    }

    async fn forbidden_by_policy(
        &self,
        units: &[(UnitName, UnitAction)],
    ) -> PortResult<BTreeMap<UnitName, String>> {
        policy::forbidden(Path::new(policy::PROGRAM), units).await
    }

    async fn is_stopping(&self) -> PortResult<bool> {
        let state = self.manager.inner().get_property::<String>("SystemState");
        answered("its state", state).await.map(|state| state == "stopping")
    }

    async fn reset_failed(&self, unit: &UnitName) -> PortResult<()> {
        let answer = within(ANSWER_TIMEOUT, self.manager.reset_failed_unit(unit.as_str())).await;
        match answer {
            // A unit that is not loaded has not failed.
            Ok(Err(error)) if jobs::refusal(&error).as_deref() == Some("not-found") => Ok(()),
            Ok(answer) => answered("a reset", std::future::ready(answer)).await,
            Err(_) => answered("a reset", std::future::pending()).await,
        }
    }

    async fn reload_managers(&self) -> PortResult<()> {
        answered("a reload", self.manager.reload()).await?;
        let bus = zbus::fdo::DBusProxy::new(&self.connection)
            .await
            .map_err(|error| failure("the bus cannot be reached", &error))?;
        match within(ANSWER_TIMEOUT, bus.reload_config()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                Err(failure("the bus did not read its policies again", &zbus::Error::from(error)))
            }
            Err(_) => Err(Failure::new(
                ErrorCode::UnitFailed,
                "the bus did not read its policies again in time",
            )),
        }
    }

    async fn create_tmpfiles(&self, fragments: &[PathBuf]) -> PortResult<()> {
        tmpfiles::create(fragments).await
    }

    async fn load_profiles(&self, changed: &[PathBuf]) -> PortResult<Vec<String>> {
        apparmor::load(changed).await
    }

    async fn wait_for_change(&self, timeout: Duration) -> PortResult<()> {
        let rule = zbus::MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender("org.freedesktop.systemd1")
            .and_then(|rule| rule.interface("org.freedesktop.DBus.Properties"))
            .and_then(|rule| rule.member("PropertiesChanged"))
            .and_then(|rule| rule.path_namespace("/org/freedesktop/systemd1/unit"))
            .map_err(|error| failure("the units' changes cannot be watched", &error))?
            .build();
        let watch = async {
            let stream = zbus::MessageStream::for_match_rule(rule, &self.connection, None);
            match stream.await?.next().await {
                Some(message) => message.map(drop),
                None => Err(zbus::Error::InputOutput(std::sync::Arc::new(std::io::Error::from(
                    std::io::ErrorKind::ConnectionAborted,
                )))),
            }
        };
        match within(timeout, watch).await {
            Ok(Ok(())) | Err(_) => Ok(()),
            Ok(Err(error)) => Err(failure("the units' changes cannot be watched", &error)),
        }
    }

    async fn hold_shutdown(&self, why: &str) -> PortResult<()> {
        if self.inhibitor.borrow().is_none() {
            let inhibitor = inhibitor::take(&self.connection, why).await?;
            self.inhibitor.replace(Some(inhibitor));
        }
        Ok(())
    }

    fn allow_shutdown(&self) {
        self.inhibitor.take();
    }

    async fn last_log_lines(&self, unit: &UnitName) -> PortResult<Vec<String>> {
        log::last_lines(unit).await
    }
}
