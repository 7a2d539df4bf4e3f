//! What has to be right before the first service of a boot starts: `/etc` and `/var` belong to the tree
//! that was booted, after a power cut too. No bus, no worker and no journal entry: the daemon does the
//! rest of its recovery later in the boot, and finds this part of it done.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use apt_ostree_actors::coordinator::leftovers;
use apt_ostree_actors::journal::Journal;
use apt_ostree_actors::port::{Files as _, PortResult};
use apt_ostree_actors::service::is_read_by_managers;
use apt_ostree_proto::{ErrorCode, Failure};
use tokio::process::Command;

use crate::host::files::{FileTrees, HostFiles, Roots};
use crate::host::tree::state::{DeploymentPath, StateReader};
use crate::host::{self, namespace, paths};

/// What the daemon is called with to do this and end.
pub const ARGUMENT: &str = "--early-boot";
/// In a directory of [`paths::ETC_COPIES`]: the copy of `/etc`.
pub const COPY: &str = "etc";
/// Beside it: the name of the deployment that the copy was taken of.
pub const PREVIOUS: &str = "previous";

/// Generators and all units are read again in far less.
const LONGEST_RELOAD: Duration = Duration::from_secs(90);

/// Puts back what an interrupted switch changed, and carries over what was edited in `/etc` after the
/// booted deployment had been made. Idempotent; neither excuses the other from being tried.
pub async fn put_in_order() -> Result<(), Failure> {
    let results = [put_back().await, carry_late_edits_over().await];
    let mut must_reload = false;
    let mut failure = None;
    for result in results {
        match result {
            Ok(changed) => must_reload |= changed,
            Err(error) => {
                tracing::error!(failure = %error, "cannot put the host in order before it starts");
                failure.get_or_insert(error);
            }
        }
    }
    if must_reload {
        reload().await?;
    }
    failure.map_or(Ok(()), Err)
}

/// Answers whether the service manager has read what was not to stay.
async fn put_back() -> Result<bool, Failure> {
    let directory = Path::new(paths::STATE_DIRECTORY);
    if !Journal::is_in(directory) {
        return Ok(false);
    }
    let leftovers = leftovers(&Journal::open(directory)?, host::boot_id().as_ref())?;
    let mut must_reload = false;
    for leftover in leftovers {
        let id = leftover.id;
        if let Some(commit) = &leftover.deploying
            && *commit == StateReader::default().next()?.commit
        {
            continue;
        }
        tracing::warn!(transaction = %id, "transaction {id} was interrupted: putting /etc and /var back");
        let kept = HostFiles::new().revert(&leftover.delta).await?;
        tell(&kept);
        let changed = leftover.delta.changed_in_etc();
        must_reload |= changed.iter().any(|path| is_read_by_managers(path));
    }
    Ok(must_reload)
}

/// A deployment that was booted without a clean shutdown has the `/etc` of when it was made, for only
/// a shutdown merges what came later. That is done here, from the deployment that ran until then.
/// Answers whether anything may have changed.
async fn carry_late_edits_over() -> Result<bool, Failure> {
    let state = StateReader::default();
    let booted = state.booted(&state.mounts()?)?;
    let Some(copy) = copy_of(&booted) else { return Ok(false) };
    if !copy.join(PREVIOUS).exists() {
        return Ok(false);
    }
    tracing::warn!("booted without a clean shutdown: carrying over what was edited in /etc since");
    namespace::in_host(move || {
        tell(&carry_over(&copy, &booted)?);
        Ok(true)
    })
    .await
}

fn carry_over(copy: &Path, booted: &DeploymentPath) -> PortResult<Vec<String>> {
    let unread = |error: io::Error| {
        Failure::caused(ErrorCode::Internal, "the copy of /etc cannot be read", &error)
    };
    let previous = fs::read_to_string(copy.join(PREVIOUS)).map_err(unread)?;
    let latest = booted.directory.with_file_name(previous.trim()).join("etc");
    let kept = if latest.is_dir() {
        FileTrees::new(Roots::of_host()?).carry_over(&copy.join(COPY), &latest)?
    } else {
        vec![format!("{}: it is gone, and with it what was edited there", latest.display())]
    };
    // Once: what is edited from now on is edited here.
    fs::remove_file(copy.join(PREVIOUS))
        .and_then(|()| fs::File::open(copy)?.sync_all())
        .and_then(|()| fs::remove_dir_all(copy))
        .map_err(unread)?;
    Ok(kept)
}

/// Where the copy of `/etc` is that was taken before this deployment was made.
pub fn copy_of(deployment: &DeploymentPath) -> Option<PathBuf> {
    Some(Path::new(paths::ETC_COPIES).join(deployment.directory.file_name()?))
}

fn tell(kept: &[String]) {
    for kept in kept {
        tracing::warn!("left as it is: {kept}");
    }
}

/// Has the service manager read all units again. It answers without the bus, which does not run yet.
async fn reload() -> Result<(), Failure> {
    let mut command = Command::new("/usr/bin/systemctl");
    let output = command.arg("daemon-reload").kill_on_drop(true).output();
    let failed = |why: String| {
        Failure::new(ErrorCode::Internal, format!("the service manager cannot be reloaded: {why}"))
    };
    match tokio::time::timeout(LONGEST_RELOAD, output).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(failed(format!("systemctl ended with {}", output.status))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("it took longer than {} s", LONGEST_RELOAD.as_secs()))),
    }
}
