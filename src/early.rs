//! What has to be right before the first service of a boot starts: `/etc` and `/var` belong to the tree
//! that was booted, after a power cut too. No bus, no worker and no entry in a transaction's log: the daemon
//! does the rest of its recovery later in the boot, and finds this part of it done.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use apt_ostree_actors::coordinator::{left_out, leftovers, waits_for};
use apt_ostree_actors::journal::Journal;
use apt_ostree_actors::port::{Delta, PortResult};
use apt_ostree_actors::service::is_read_by_managers;
use apt_ostree_proto::{ErrorCode, Failure};
use tokio::process::Command;

use crate::host::files::{FileTrees, Roots};
use crate::host::tree::state::{DeploymentPath, StateReader};
use crate::host::{self, namespace, paths, surroundings};

/// What the daemon is called with to do this and end.
pub const ARGUMENT: &str = "--early-boot";
/// In a directory of [`paths::ETC_COPIES`]: the copy of `/etc`.
pub const COPY: &str = "etc";
/// Beside it: the name of the deployment that the copy was taken of.
pub const PREVIOUS: &str = "previous";

/// Generators and all units are read again in far less.
const LONGEST_RELOAD: Duration = Duration::from_secs(90);

/// Puts back what an interrupted switch changed, carries over what was edited in `/etc` after the booted
/// deployment had been made, takes back what updates changed in the `/etc` of an older deployment that
/// somebody chose in the boot menu, and changes what goes with an update that takes effect with this boot.
/// Idempotent: what fails is tried again at the next boot. No part's failure excuses another, and the first
/// is told.
pub async fn put_in_order() -> Result<(), Failure> {
    let state = StateReader::default();
    let booted = state.booted(&state.mounts()?)?;
    let late = LateEdits::before(&booted);
    // First: an interrupted switch is nobody's edit. A journal that cannot be read keeps nobody's edits
    // back; the daemon finds out what else there is to do, and says so.
    let parts = [
        put_back(&state, late.as_ref().ok().and_then(Option::as_ref)).await,
        carry_over(late).await,
        // Before what is taken back: once it has taken effect, this tree lacks nothing of it.
        bring_in(&booted).await,
        take_back(&booted).await,
    ];
    // What failed half-way may have changed a unit.
    let must_reload = parts.iter().any(|part| *part.as_ref().unwrap_or(&true));
    let reloaded = if must_reload { reload().await } else { Ok(()) };
    parts.into_iter().try_for_each(|part| part.map(drop)).and(reloaded)
}

/// Answers whether the service manager may have read what was not to stay.
async fn carry_over(late: PortResult<Option<LateEdits>>) -> Result<bool, Failure> {
    let Some(late) = late? else { return Ok(false) };
    tracing::warn!("booted without a clean shutdown: carrying over what was edited in /etc since");
    tell(&namespace::in_host(move || late.carry_over()).await?);
    Ok(true)
}

/// What packages have in `/etc` and `/var` besides their files of configuration, which the deployment has
/// already, comes with the first boot of an update that could not take effect before. Answers whether the
/// service manager has read what it replaces.
async fn bring_in(booted: &DeploymentPath) -> Result<bool, Failure> {
    let Some(journal) = own_journal()? else { return Ok(false) };
    let Some((id, delta)) = waits_for(&journal, &booted.commit)? else { return Ok(false) };
    drop(journal);
    tracing::info!(transaction = %id, "transaction {id} takes effect with this boot");
    let is_read = delta.changed_in_etc().iter().any(|path| is_read_by_managers(path));
    let apply = namespace::in_host(move || FileTrees::new(Roots::of_host()?).apply(&delta));
    tell(&apply.await?);
    if let Some(journal) = own_journal()? {
        journal.set_applied_at_boot(id)?;
    }
    Ok(is_read)
}

/// The journal, if there is one and it is this host's.
fn own_journal() -> Result<Option<Journal>, Failure> {
    let directory = Path::new(paths::STATE_DIRECTORY);
    if !Journal::is_in(directory) {
        return Ok(None);
    }
    let journal = Journal::open(directory)?;
    if let Some(whose) = journal.whose(&surroundings::of_host()?)? {
        tracing::error!("the journal is not this host's: {whose}; nothing is put back by it");
        return Ok(None);
    }
    Ok(Some(journal))
}

/// An update is applied in the `/etc` of the deployment that is booted at the time: when that one is
/// booted again instead of the one that the update led to, its `/etc` goes with its `/usr`. `/var` is
/// that of all deployments and stays. Answers whether the service manager has read what was not to stay.
async fn take_back(booted: &DeploymentPath) -> Result<bool, Failure> {
    let Some(journal) = own_journal()? else { return Ok(false) };
    let left_out = left_out(&journal, &booted.commit)?;
    drop(journal);
    let (Some((newest, _)), Some((oldest, _))) = (left_out.first(), left_out.last()) else {
        return Ok(false);
    };
    tracing::warn!(
        transaction = %newest,
        "booted into the tree before transaction {oldest}: what came since is not in its /etc either"
    );
    let deltas: Vec<_> = left_out.into_iter().map(|(_, delta)| delta).collect();
    let changed = deltas.iter().flat_map(Delta::changed_in_etc);
    let is_read = changed.into_iter().any(|path| is_read_by_managers(&path));
    let taken = namespace::in_host(move || FileTrees::new(Roots::of_host()?).take_back(&deltas));
    match taken.await {
        Ok(kept) => tell(&kept),
        // It boots all the same, with an /etc that is newer than its /usr.
        Err(failure) if failure.code == ErrorCode::NotFound => {
            tracing::warn!("left as it is: {failure}");
            return Ok(false);
        }
        Err(failure) => return Err(failure),
    }
    Ok(is_read)
}

/// Reverts the switches that are not kept, in the `/etc` that they were made in. Answers whether the
/// service manager has read what was not to stay.
async fn put_back(state: &StateReader, late: Option<&LateEdits>) -> Result<bool, Failure> {
    let Some(journal) = own_journal()? else { return Ok(false) };
    let leftovers = leftovers(&journal, host::boot_id().as_ref())?;
    drop(journal);
    let mut must_reload = false;
    for leftover in leftovers {
        let id = leftover.id;
        if let Some(commit) = &leftover.deploying
            && *commit == state.next()?.commit
        {
            continue;
        }
        tracing::warn!(transaction = %id, "transaction {id} was interrupted: putting /etc and /var back");
        let (delta, etc) = (leftover.delta.clone(), late.map(|late| late.latest.clone()));
        let revert = move || {
            let mut roots = Roots::of_host()?;
            if let Some(etc) = etc.filter(|etc| etc.is_dir()) {
                roots.etc = etc;
            }
            FileTrees::new(roots).revert(&delta)
        };
        tell(&namespace::in_host(revert).await?);
        let changed = leftover.delta.changed_in_etc();
        must_reload |= changed.iter().any(|path| is_read_by_managers(path));
    }
    Ok(must_reload)
}

/// A deployment that was booted without a clean shutdown has the `/etc` of when it was made, for only
/// a shutdown merges what came later. That is done here, from the deployment that ran until then.
struct LateEdits {
    /// What was kept when the deployment was made.
    copy: PathBuf,
    /// The `/etc` that was in use until the power went.
    latest: PathBuf,
}

impl LateEdits {
    /// Those that the booted deployment lacks, if it is its first boot and was no orderly one.
    fn before(booted: &DeploymentPath) -> PortResult<Option<Self>> {
        let Some(copy) = copy_of(booted) else { return Ok(None) };
        match fs::read_to_string(copy.join(PREVIOUS)) {
            Ok(previous) => {
                let latest = booted.directory.with_file_name(previous.trim()).join("etc");
                Ok(Some(Self { copy, latest }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unread(&error)),
        }
    }

    fn carry_over(&self) -> PortResult<Vec<String>> {
        let (copy, latest) = (&self.copy, &self.latest);
        let kept = if latest.is_dir() {
            FileTrees::new(Roots::of_host()?).carry_over(&copy.join(COPY), latest)?
        } else {
            vec![format!("{}: it is gone, and with it what was edited there", latest.display())]
        };
        // Once: what is edited from now on is edited here.
        fs::remove_file(copy.join(PREVIOUS))
            .and_then(|()| fs::File::open(copy)?.sync_all())
            .and_then(|()| fs::remove_dir_all(copy))
            .map_err(|error| unread(&error))?;
        Ok(kept)
    }
}

fn unread(error: &io::Error) -> Failure {
    Failure::caused(ErrorCode::Internal, "the copy of /etc cannot be used", error)
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
