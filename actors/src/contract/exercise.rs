//! Calls of the ports without any transaction, the same on every host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use apt_ostree_proto::service::UnitAction;
use apt_ostree_proto::{CommitId, PackageName, PlanId, PointName, TransactionId, UnitName};

use super::unattended;
use crate::port::{
    DeltaSource, HookKind, Host, PortResult, RebootAdvice, ReplacedFile, TreeMetadata,
};

/// Longer than any unit that is up takes to be found up.
const JOB_TIMEOUT: Duration = Duration::from_secs(30);
/// Long enough to be a wait.
const WAIT: Duration = Duration::from_millis(50);

/// What there is on a host.
#[derive(Clone, Debug)]
pub struct Subjects {
    /// A unit that is up.
    pub unit: UnitName,
    /// A file below `/etc`, as [`crate::port::Files::identify`] names it.
    pub file: PathBuf,
    /// A tmpfiles fragment.
    pub fragment: PathBuf,
    /// A file that a process maps.
    pub mapped: ReplacedFile,
    /// A point that nobody has named.
    pub point: PointName,
    /// A commit that is nowhere.
    pub nowhere: CommitId,
}

/// Asks everything that can be asked of a host, and makes every call that leaves a host at rest as it is.
pub async fn at_rest(host: &Host, subjects: &Subjects) -> PortResult<()> {
    let Subjects { unit, file, fragment, mapped, point, nowhere } = subjects;
    let context = unattended(TransactionId(0));
    host.mounts.stack().await?;
    host.mounts.look().await?;
    host.mounts.protect().await?;
    let (name, none) = (PackageName::parse("exercise"), Vec::new());
    let names = name.into_iter().collect::<Vec<_>>();
    let waiting = RebootAdvice { waiting: names.clone(), withdrawn: none.clone() };
    host.files.advise_reboot(&waiting).await?;
    host.files.advise_reboot(&RebootAdvice { waiting: none, withdrawn: names }).await?;
    host.files.identify(&[file.clone(), "there/is/none".into()]).await?;

    let state = host.tree.state().await?;
    host.tree.find_target(Some(&state.running)).await?;
    host.tree.is_deployed(&state.next).await?;
    host.tree.is_deployed(nowhere).await?;
    host.tree.difference(&state.booted, &state.running, &context).await?;
    host.tree.compare(&context).await?;
    let look = host.tree.look(&[state.running.clone(), nowhere.clone()], &context).await?;
    for (transaction, live) in look.live {
        if let Some(commit) = live.reference {
            host.tree.restore_ref(transaction, &commit).await?;
        }
    }
    host.tree.hold(point, &state.running).await?;
    host.tree.release(point).await?;

    host.packages.installed().await?;
    host.packages.services_with(&[Path::new("/etc").join(file)]).await?;
    host.packages.difference(&state.booted, &state.running, &context).await?;
    host.packages.lock_archives().await?;
    host.packages.unlock_archives().await?;

    let units = std::slice::from_ref(unit);
    host.systemd.list().await?;
    host.systemd.states(units).await?;
    host.systemd.dependencies(units).await?;
    host.systemd.reads(units).await?;
    host.systemd.usage(units).await?;
    host.systemd.forbidden_by_policy(&[(unit.clone(), UnitAction::Restart)]).await?;
    host.systemd.start(unit, JOB_TIMEOUT).await?;
    host.systemd.restart(unit, JOB_TIMEOUT).await?;
    host.systemd.stop(unit, JOB_TIMEOUT).await?;
    host.systemd.reset_failed(unit).await?;
    host.systemd.start(unit, JOB_TIMEOUT).await?;
    host.systemd.reload_managers().await?;
    host.systemd.create_tmpfiles(std::slice::from_ref(fragment)).await?;
    host.systemd.load_profiles(&[]).await?;
    host.systemd.hold_shutdown("the ports are exercised").await?;
    host.systemd.allow_shutdown();
    host.systemd.is_stopping().await?;
    host.systemd.wait_for_change(WAIT).await?;
    for kind in HookKind::ALL {
        host.checks.hooks(*kind).await?;
    }
    host.checks.end(TransactionId(0)).await?;
    host.processes.own_mounts().await?;
    host.processes.users_of(&[]).await?;
    host.processes.users_of(std::slice::from_ref(mapped)).await?;
    host.processes.outdated(&[]).await?;
    Ok(())
}

/// Does what an update of no packages does to trees, mounts and files, and puts it back the way that a
/// failed update is put back; as the transaction `id`, which nobody else may have. Where a call fails
/// the host stays between.
pub async fn there_and_back(host: &Host, id: TransactionId) -> PortResult<()> {
    let context = unattended(id);
    let base = host.tree.state().await?.running;
    host.tree.prepare(&base, &context).await?;
    host.tree.stage(&base, &context).await?;
    let plan = PlanId::parse("0".repeat(64)).expect("digits are an id");
    let reason = "the ports are exercised".to_owned();
    let metadata = TreeMetadata { plan, changes: Vec::new(), reason };
    let tree = host.tree.commit(&base, &metadata, &context).await?;
    let delta = host.files.prepare(&DeltaSource::Stage, &context).await?;
    host.mounts.prepare(id, &tree.usr).await?;
    host.mounts.switch(&tree.usr).await?;
    host.files.apply(&delta).await?;
    host.mounts.stand_down(id).await?;
    host.tree.deploy(&tree.commit, &context).await?;
    host.tree.is_deployed(&tree.commit).await?;

    host.tree.undeploy(&tree.commit).await?;
    host.files.revert(&delta).await?;
    host.mounts.unswitch(&tree.usr).await?;
    host.mounts.abandon(id).await?;
    host.files.discard(id).await?;
    host.tree.drop_commit(id).await?;
    host.sandbox.kill(id).await?;
    host.tree.drop_stage(id).await
}
