//! The real check port: sockets, the bus, and programs in transient units.

mod hooks;
mod probes;
mod program;

use std::path::PathBuf;
use std::time::Duration;

use apt_ostree_actors::port::{
    CheckAnswer, Checks, Hook, HookCall, HookKind, PortResult, Probe, Question,
};
use apt_ostree_proto::{ErrorCode, Failure, TransactionId, UnitName};
use async_trait::async_trait;

use self::program::Program;
use super::transient::{self, TransientUnit};

pub use self::hooks::find as find_hooks;

/// Probes and hooks of the host.
#[derive(Clone, Debug)]
pub struct HostChecks {
    bus: zbus::Connection,
    root: PathBuf,
}

impl HostChecks {
    /// Those of this host, over the system bus.
    pub fn new(bus: zbus::Connection) -> Self {
        Self { bus, root: PathBuf::from("/") }
    }
}

/// What the units of a transaction's programs are called; the rest is the process and a number.
fn unit_names(transaction: TransactionId) -> String {
    format!("apt-ostree-check-{transaction}-")
}

#[async_trait(?Send)]
impl Checks for HostChecks {
    async fn probe(&self, transaction: TransactionId, probe: &Probe) -> PortResult<CheckAnswer> {
        let limit = probe.timeout;
        if let Question::Command { arguments } = &probe.question {
            let program = Program {
                arguments,
                environment: vec![format!("APT_OSTREE_TRANSACTION={transaction}")],
                description: format!("Probe: {probe}"),
                limit,
            };
            return program.run(&self.bus, transaction).await;
        }
        let asked = tokio::time::timeout(limit, probes::ask(&self.bus, &probe.question)).await;
        let too_long = || Err(format!("no answer within {} s", limit.as_secs_f64()));
        Ok(match asked.unwrap_or_else(|_| too_long()) {
            Ok(()) => CheckAnswer::default(),
            Err(why) => CheckAnswer::failed(why),
        })
    }

    async fn hooks(&self, kind: HookKind) -> PortResult<Vec<Hook>> {
        let root = self.root.clone();
        blocking(move || hooks::find(&root, kind)).await
    }

    async fn run_hook(
        &self,
        hook: &Hook,
        call: &HookCall,
        timeout: Duration,
    ) -> PortResult<CheckAnswer> {
        let path = hook.path.clone();
        // It may have changed since it was found.
        let file = match blocking(move || Ok(hooks::judge(&path))).await? {
            Ok(file) => file,
            Err(why) => return Ok(CheckAnswer::failed(format!("it was not run: it {why}"))),
        };
        let program = Program {
            arguments: &[file.to_string_lossy().into_owned()],
            environment: call.environment(),
            description: format!("Hook of apt-ostree: {hook}"),
            limit: timeout,
        };
        program.run(&self.bus, call.transaction).await
    }

    async fn end(&self, transaction: TransactionId) -> PortResult<()> {
        let pattern = format!("{}*.service", unit_names(transaction));
        let mut ended = Ok(());
        for (name, ..) in transient::loaded(&self.bus, &[&pattern]).await? {
            ended = ended.and(TransientUnit::named(&self.bus, name).kill().await);
        }
        ended
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> PortResult<T> {
    let unreadable = |error: std::io::Error| {
        Failure::caused(ErrorCode::InvalidConfiguration, "the hooks cannot be read", &error)
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::caused(ErrorCode::Internal, "the hooks were not read", &error))?
        .map_err(unreadable)
}

/// The units among `names` that the service manager does not know.
pub async fn unknown_units(
    bus: &zbus::Connection,
    names: &[UnitName],
) -> zbus::Result<Vec<UnitName>> {
    let mut unknown = Vec::new();
    for name in names {
        if probes::is_unknown_unit(bus, name).await? {
            unknown.push(name.clone());
        }
    }
    Ok(unknown)
}

/// Where hooks are, those of the admin last.
const DIRECTORIES: [&str; 2] = ["usr/lib/apt-ostree", "etc/apt-ostree"];
