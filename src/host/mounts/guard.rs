//! The rescue guard: a transient unit, so that it outlives the daemon and is not in its cgroup.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use apt_ostree_actors::port::{PortResult, TreeIdentity};
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use rustix::time::ClockId;
use tokio::net::UnixStream;
use tokio::process::Command;

use super::rescue;
use crate::host::paths;
use crate::host::programs::Program;

/// How long the service manager may take until the guard says that it is ready.
const START_TIME: Duration = Duration::from_secs(20);

/// How long the daemon has, once a wait for a confirmation is over, to be started and to take the tree
/// off `/usr` itself: units that take their time to stop come before that.
const AFTER_THE_WAIT: Duration = Duration::from_secs(5 * 60);

/// Starts the guard and waits until it is ready. Does nothing when it runs already.
pub(super) async fn start(
    transaction: TransactionId,
    tree: &TreeIdentity,
    time: Duration,
) -> PortResult<()> {
    if runs(transaction).await? {
        return Ok(());
    }
    let now = rustix::time::clock_gettime(ClockId::Boottime).tv_sec.unsigned_abs();
    let deadline = format!("--deadline={}", now.saturating_add(time.as_secs()));
    start_watching(transaction, tree, &[deadline]).await
}

/// Has the guard wait for the end of a wait for a confirmation, in time since the boot. Starts one
/// where none runs.
pub(super) async fn wait_until(
    program: &Program,
    transaction: TransactionId,
    tree: &TreeIdentity,
    end: Duration,
) -> PortResult<()> {
    // Never before the daemon itself would.
    let call = end.as_secs().saturating_add(1);
    let deadline = call.saturating_add(AFTER_THE_WAIT.as_secs());
    let watch = [format!("--call={call}"), format!("--deadline={deadline}")];
    let socket = format!("--socket={}", socket(transaction).display());
    let arguments = watch.iter().cloned().chain([socket]).collect();
    if rescue::run(program, "guard-until", arguments).await?.changed {
        return Ok(());
    }
    start_watching(transaction, tree, &watch).await
}

async fn start_watching(
    transaction: TransactionId,
    tree: &TreeIdentity,
    watch: &[String],
) -> PortResult<()> {
    let mut command = Command::new("/usr/bin/systemd-run");
    command
        .args(["--quiet", "--collect", "--service-type=notify"])
        .arg(format!("--unit=apt-ostree-guard-{transaction}.service"))
        .arg(format!("--description=Guard of live update {transaction}"))
        // Nothing that the update stops, starts or isolates may take the guard along.
        .args(["--property=DefaultDependencies=no", "--property=IgnoreOnIsolate=yes"])
        .arg("--property=OOMScoreAdjust=-1000")
        .arg(format!("--property=TimeoutStartSec={}", START_TIME.as_secs()))
        .arg("--")
        .arg(paths::RESCUE)
        .arg("guard")
        .args(rescue::tree_arguments(tree))
        .args(watch)
        .arg(format!("--socket={}", socket(transaction).display()))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let failed = |what: String| Failure::new(ErrorCode::SwitchFailed, what);
    let output = tokio::time::timeout(START_TIME * 2, command.output())
        .await
        .map_err(|_| failed("the rescue guard did not get ready in time".to_owned()))?
        .map_err(|error| {
            Failure::caused(ErrorCode::SwitchFailed, "cannot start the rescue guard", &error)
        })?;
    if output.status.success() {
        Ok(())
    } else {
        let said = rescue::excerpt(&output.stderr);
        Err(failed(format!("the rescue guard did not start: {said}")))
    }
}

/// Stands the guard down. Does nothing when none runs.
pub(super) async fn stand_down(program: &Program, transaction: TransactionId) -> PortResult<()> {
    let argument = format!("--socket={}", socket(transaction).display());
    rescue::run(program, "stand-down", vec![argument]).await?;
    Ok(())
}

/// Whether a guard listens. It takes a caller that says nothing for one that went away.
async fn runs(transaction: TransactionId) -> PortResult<bool> {
    match UnixStream::connect(socket(transaction)).await {
        Ok(_) => Ok(true),
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            Ok(false)
        }
        Err(error) => {
            Err(Failure::caused(ErrorCode::SwitchFailed, "cannot reach the rescue guard", &error))
        }
    }
}

/// Transactions whose guard listens.
pub(super) async fn listening() -> PortResult<BTreeSet<TransactionId>> {
    let directory = Path::new(paths::RUNTIME_DIRECTORY).join("guard");
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => {
            let what = format!("cannot list {}", directory.display());
            return Err(Failure::caused(ErrorCode::Internal, &what, &error));
        }
    };
    let mut listening = BTreeSet::new();
    for entry in entries.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(transaction) = number.map(TransactionId)
            && runs(transaction).await?
        {
            listening.insert(transaction);
        }
    }
    Ok(listening)
}

fn socket(transaction: TransactionId) -> PathBuf {
    Path::new(paths::RUNTIME_DIRECTORY).join("guard").join(transaction.to_string())
}
