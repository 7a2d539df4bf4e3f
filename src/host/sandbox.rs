//! [`Sandbox`] with bubblewrap inside a transient systemd unit: real dpkg in a private root, with
//! limits, and ended cleanly with all that it started.
//!
//! The unit's process is the worker's `sandbox` task: it mounts the staged root in a mount namespace
//! of its own and becomes bubblewrap, which runs the worker's `install` task in there. Both speak the
//! workers' protocol through the unit's standard input and output.

mod requests;
pub mod task;
mod trials;
mod unit;

use std::io::pipe;
use std::os::fd::OwnedFd;

use apt_ostree_actors::context::StepContext;
use apt_ostree_actors::port::{InstallReport, InstallTest, PortResult, Sandbox};
use apt_ostree_proto::package::PackageChange;
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use async_trait::async_trait;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::{Receiver, Sender};

use self::task::{Inner, KnownUnit, SCRIPT_PATH, SandboxRequest};
use self::unit::Streams;
use super::transient::{self, TransientUnit};
use super::tree::layout::Stage;
use super::tree::state::StateReader;
use super::worker;
use super::worker::tasks::{InstallRequest, TestRequest};

pub use self::unit::Limits;

/// The most that is read of what the shims recorded; a real update records some hundred lines.
const LARGEST_RECORDS_BYTES: u64 = 16 << 20;

/// The sandbox of the host.
#[derive(Clone, Debug)]
pub struct Bubblewrap {
    bus: zbus::Connection,
    limits: Limits,
}

impl Bubblewrap {
    /// A sandbox whose units are started by the manager on this bus, the system's.
    pub fn new(bus: zbus::Connection, limits: Limits) -> Self {
        Self { bus, limits }
    }

    async fn run(
        &self,
        inner: Inner,
        kernel_changes: bool,
        context: &StepContext,
    ) -> PortResult<()> {
        let unit = unit::of(&self.bus, context.transaction);
        // What an interrupted attempt left would refuse the new unit's name.
        let ended = unit.kill();
        let ((), lower_usr, units) =
            tokio::try_join!(ended, running_usr(), states_of_all_units(&self.bus))?;
        let request = SandboxRequest {
            transaction: context.transaction,
            lower_usr,
            units,
            kernel_changes,
            inner,
        };
        let request = serde_json::to_vec(&request).map_err(|error| {
            Failure::caused(ErrorCode::Internal, "the sandbox's request cannot be written", &error)
        })?;
        let pipes = Pipes::new()?;
        tokio::select! {
            biased;
            () = context.cancel.cancelled() => {
                unit.kill().await?;
                Err(Failure::new(ErrorCode::Cancelled, "cancelled while packages were installed"))
            }
            answer = converse(&unit, &self.limits, pipes, &request, context) => {
                // Whatever a script left running ends here, also after an error.
                unit.kill().await?;
                answer
            }
        }
    }
}

#[async_trait(?Send)]
impl Sandbox for Bubblewrap {
    async fn install(
        &self,
        changes: &[PackageChange],
        context: &StepContext,
    ) -> PortResult<InstallReport> {
        let kernel_changes = changes.iter().any(|change| is_kernel(change.name.as_str()));
        let request = InstallRequest {
            changes: changes.to_vec(),
            archives: None,
            path: SCRIPT_PATH.to_owned(),
        };
        self.run(Inner::Install(request), kernel_changes, context).await?;
        let path = Stage::of(context.transaction).records();
        let records = tokio::task::spawn_blocking(move || read_records(&path)).await;
        let records = records.map_err(|error| {
            Failure::caused(ErrorCode::Internal, "the scripts' requests could not be read", &error)
        })??;
        let parsed = requests::parse(&records);
        for unread in parsed.unread {
            context
                .report
                .warning(format!("a maintainer script's request is not understood: {unread}"));
        }
        Ok(InstallReport { requests: parsed.requests })
    }

    async fn test(
        &self,
        tests: &[InstallTest],
        changes: &[PackageChange],
        context: &StepContext,
    ) -> PortResult<()> {
        let (tests, changes) = (tests.to_vec(), changes.to_vec());
        let tests = tokio::task::spawn_blocking(move || trials::concerned(tests, &changes)).await;
        let tests = tests.map_err(|error| {
            Failure::caused(ErrorCode::Internal, "the tests could not be looked at", &error)
        })??;
        if tests.is_empty() {
            return Ok(());
        }
        self.run(Inner::Test(TestRequest { tests }), false, context).await
    }

    async fn kill(&self, transaction: TransactionId) -> PortResult<()> {
        unit::of(&self.bus, transaction).kill().await
    }
}

/// The ends of the unit's standard streams.
struct Pipes {
    unit: Streams,
    input: OwnedFd,
    output: OwnedFd,
    errors: OwnedFd,
}

impl Pipes {
    fn new() -> PortResult<Self> {
        let make = || -> std::io::Result<Self> {
            let (stdin, input) = pipe()?;
            let (output, stdout) = pipe()?;
            let (errors, stderr) = pipe()?;
            let unit =
                Streams { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into() };
            Ok(Self { unit, input: input.into(), output: output.into(), errors: errors.into() })
        };
        make().map_err(|error| {
            Failure::caused(ErrorCode::Internal, "the sandbox's pipes cannot be made", &error)
        })
    }
}

async fn converse(
    unit: &TransientUnit<'_>,
    limits: &Limits,
    pipes: Pipes,
    request: &[u8],
    context: &StepContext,
) -> PortResult<()> {
    let broken = |error: std::io::Error| {
        Failure::caused(ErrorCode::Internal, "the sandbox's pipes cannot be used", &error)
    };
    let mut input = Sender::from_owned_fd(pipes.input).map_err(broken)?;
    let output = Receiver::from_owned_fd(pipes.output).map_err(broken)?;
    let errors = Receiver::from_owned_fd(pipes.errors).map_err(broken)?;
    // Our copies of the unit's ends go when it has them: the end of the streams is its end.
    unit::start(unit, limits, pipes.unit).await?;
    let ask = async move {
        // A sandbox that dies before it has read everything is told by its missing answer.
        if let Err(error) = input.write_all(request).await {
            tracing::debug!(%error, "the sandbox did not take its request");
        }
    };
    let ((), answer, complaint) =
        tokio::join!(ask, worker::read_answer(output, context), worker::keep_tail(errors));
    if let Some(answer) = answer? {
        return answer;
    }
    let what = unit.result().await;
    let message = format!("the sandbox ended without an answer ({what}): {complaint}");
    Err(Failure::new(ErrorCode::InstallFailed, message))
}

/// The state of every unit that the manager has loaded.
async fn states_of_all_units(bus: &zbus::Connection) -> PortResult<Vec<KnownUnit>> {
    let units = transient::loaded(bus, &[]).await?.into_iter();
    Ok(units
        .map(|(name, _, load, active, sub, ..)| KnownUnit { name, load, active, sub })
        .collect())
}

async fn running_usr() -> PortResult<std::path::PathBuf> {
    let read = || {
        let state = StateReader::default();
        let mounts = state.mounts()?;
        Ok(state.running(&mounts, &state.booted(&mounts)?)?.usr)
    };
    tokio::task::spawn_blocking(read).await.map_err(|error| {
        Failure::caused(ErrorCode::Internal, "the running tree could not be found", &error)
    })?
}

/// Whether a package brings a kernel, whose initramfs must be made.
fn is_kernel(package: &str) -> bool {
    package.starts_with("linux-image-") && !package.ends_with("-dbg")
}

fn read_records(path: &std::path::Path) -> PortResult<Vec<u8>> {
    use std::io::Read;
    let unread = |error: std::io::Error| {
        Failure::caused(ErrorCode::Internal, "the scripts' requests cannot be read", &error)
    };
    let mut records = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => {
            file.take(LARGEST_RECORDS_BYTES + 1).read_to_end(&mut records).map_err(unread)?;
        }
        // No script asked for anything.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(unread(error)),
    }
    if records.len() as u64 > LARGEST_RECORDS_BYTES {
        let message = "the maintainer scripts asked for more than can be read";
        return Err(Failure::new(ErrorCode::InstallFailed, message));
    }
    Ok(records)
}

/// Reads these bytes as what the shims noted.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    drop(requests::parse(data));
}
