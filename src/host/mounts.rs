//! What is mounted on `/usr`: reads PID 1's mountinfo, and has the static rescue binary make the
//! mount calls, for a daemon of many threads cannot enter another mount namespace.

mod guard;
mod rescue;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use apt_ostree_actors::port::{
    LayerOwner, Mounts, PortResult, TreeIdentity, UsrLayer, UsrLook, UsrMount,
};
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use async_trait::async_trait;

use super::paths;
use super::programs::Program;
use crate::mount::mountinfo::{self, MountInfo};
use crate::mount::usr::{Layer, Owner, UsrStack};
pub use rescue::RescueReply;

/// How long the guard waits to be stood down: as long as what may be configured takes between
/// [`Mounts::prepare`] and [`Mounts::stand_down`], and short enough that nobody has rebooted the host by
/// hand yet. Graceful units may take ten minutes, the turns of a group three, the dwell time three, and
/// probes five more to settle; the rest is for what is quick.
const GUARD_TIME: Duration = Duration::from_secs(25 * 60);

/// The kernel's mounts.
#[derive(Debug)]
pub struct KernelMounts {
    rescue: Program,
    /// Handles to the mounts below `/usr` as they were before the switch. Once they are covered they
    /// have no path any more, and a collapse has to unmount them.
    covered: RefCell<HashMap<TransactionId, Vec<File>>>,
}

impl KernelMounts {
    /// Mounts by way of the rescue program.
    pub fn new(rescue: Program) -> Self {
        Self { rescue, covered: RefCell::default() }
    }

    /// Switches and tells how long the step took that other processes can see, and what was carried
    /// over.
    pub async fn switch_measured(&self, tree: &TreeIdentity) -> PortResult<RescueReply> {
        rescue::run(&self.rescue, "switch", rescue::tree_arguments(tree)).await
    }

    /// Holds on to the mounts below `/usr` that the next switch will cover.
    fn hold_mounts_below(&self, transaction: TransactionId) -> PortResult<()> {
        if self.covered.borrow().contains_key(&transaction) {
            return Ok(());
        }
        let stack = read_stack()?;
        let handles: Result<Vec<File>, Failure> = stack
            .below
            .iter()
            .map(|mount| {
                let relative = mount.mount_point.strip_prefix("/").unwrap_or(&mount.mount_point);
                let path = Path::new("/proc/1/root").join(relative);
                File::options().read(true).custom_flags(libc::O_PATH).open(&path).map_err(|error| {
                    Failure::caused(
                        ErrorCode::SwitchFailed,
                        &format!("cannot open the mount at {}", mount.mount_point.display()),
                        &error,
                    )
                })
            })
            .collect();
        self.covered.borrow_mut().insert(transaction, handles?);
        Ok(())
    }

    fn collapse_arguments(&self, transaction: TransactionId) -> Vec<String> {
        let mut arguments = vec![format!("--pin={}", paths::peer_namespace(transaction).display())];
        if let Some(handles) = self.covered.borrow().get(&transaction)
            && !handles.is_empty()
        {
            let own = std::process::id();
            let links: Vec<String> =
                handles.iter().map(|file| format!("/proc/{own}/fd/{}", file.as_raw_fd())).collect();
            arguments.push(format!("--below={}", links.join(":")));
        }
        arguments
    }
}

#[async_trait(?Send)]
impl Mounts for KernelMounts {
    async fn stack(&self) -> PortResult<Vec<UsrMount>> {
        let stack = read_stack()?;
        if let Some(what) = stack.foreign() {
            return Err(Failure::new(
                ErrorCode::ForeignMount,
                format!("{what} is mounted on /usr"),
            ));
        }
        Ok(stack
            .layers
            .into_iter()
            .map(|layer| UsrMount {
                root: layer.mount.root,
                file_system: layer.mount.file_system,
                device: layer.mount.device,
                transaction: match layer.owner {
                    Owner::Live(transaction) => Some(TransactionId(transaction)),
                    Owner::Deployment | Owner::Foreign(_) => None,
                },
            })
            .collect())
    }

    async fn prepare(&self, transaction: TransactionId, tree: &TreeIdentity) -> PortResult<()> {
        self.stack().await?;
        let pin = format!("--pin={}", paths::peer_namespace(transaction).display());
        rescue::run(&self.rescue, "pin", vec![pin]).await?;
        self.hold_mounts_below(transaction)?;
        guard::start(transaction, tree, GUARD_TIME).await
    }

    async fn switch(&self, tree: &TreeIdentity) -> PortResult<()> {
        let reply = self.switch_measured(tree).await?;
        tracing::info!(
            changed = reply.changed,
            step_nanos = reply.step_nanos,
            layers = reply.layers,
            carried = ?reply.carried,
            tree = %tree.path.display(),
            "switched /usr"
        );
        Ok(())
    }

    async fn unswitch(&self, tree: &TreeIdentity) -> PortResult<()> {
        let reply = rescue::run(&self.rescue, "unswitch", rescue::tree_arguments(tree)).await?;
        tracing::info!(
            changed = reply.changed,
            step_nanos = reply.step_nanos,
            tree = %tree.path.display(),
            "took the tree off /usr"
        );
        Ok(())
    }

    async fn guard_until(
        &self,
        transaction: TransactionId,
        tree: &TreeIdentity,
        end: Duration,
    ) -> PortResult<()> {
        guard::wait_until(&self.rescue, transaction, tree, end).await
    }

    async fn stand_down(&self, transaction: TransactionId) -> PortResult<()> {
        guard::stand_down(&self.rescue, transaction).await
    }

    async fn abandon(&self, transaction: TransactionId) -> PortResult<()> {
        guard::stand_down(&self.rescue, transaction).await?;
        let pin = format!("--pin={}", paths::peer_namespace(transaction).display());
        rescue::run(&self.rescue, "unpin", vec![pin]).await?;
        self.covered.borrow_mut().remove(&transaction);
        Ok(())
    }

    async fn collapse(&self, transaction: TransactionId) -> PortResult<()> {
        let arguments = self.collapse_arguments(transaction);
        let reply = rescue::run(&self.rescue, "collapse", arguments).await?;
        self.covered.borrow_mut().remove(&transaction);
        tracing::info!(changed = reply.changed, layers = reply.layers, "collapsed /usr");
        if reply.layers > 1 {
            // Harmless: it costs a mount and keeps the old tree from being removed until the boot.
            tracing::warn!(
                layers = reply.layers,
                "covered mounts on /usr stay until the next boot"
            );
        }
        Ok(())
    }

    async fn look(&self) -> PortResult<UsrLook> {
        let mounts = read_mounts()?;
        let layers = UsrStack::of(&mounts, Path::new("/usr")).layers;
        let mut helpers = guard::listening().await?;
        helpers.extend(pinned(&mounts));
        Ok(UsrLook { layers: layers.iter().map(|layer| seen(layer, &mounts)).collect(), helpers })
    }

    async fn protect(&self) -> PortResult<()> {
        let reply = rescue::run(&self.rescue, "protect", Vec::new()).await?;
        tracing::info!(changed = reply.changed, layers = reply.layers, "made /usr read-only");
        Ok(())
    }
}

fn seen(layer: &Layer, mounts: &[MountInfo]) -> UsrLayer {
    let owner = match &layer.owner {
        Owner::Deployment => LayerOwner::Deployment,
        Owner::Live(transaction) => LayerOwner::Live(TransactionId(*transaction)),
        Owner::Foreign(what) => LayerOwner::Foreign(what.clone()),
    };
    let is_peer = |other: &&MountInfo| {
        layer.mount.peer_group.is_some()
            && other.peer_group == layer.mount.peer_group
            && other.mount_point != layer.mount.mount_point
    };
    let peers = mounts.iter().filter(is_peer).map(|other| other.mount_point.clone()).collect();
    UsrLayer { owner, read_only: layer.mount.read_only, peers }
}

/// Transactions with a pinned mount namespace.
fn pinned(mounts: &[MountInfo]) -> BTreeSet<TransactionId> {
    let directory = paths::peer_namespace(TransactionId(0));
    let pin = |mount: &MountInfo| {
        let is_pin = mount.mount_point.parent() == directory.parent();
        let name = mount.mount_point.file_name()?.to_str()?;
        is_pin.then(|| name.parse().ok().map(TransactionId)).flatten()
    };
    mounts.iter().filter_map(pin).collect()
}

fn read_stack() -> PortResult<UsrStack> {
    Ok(UsrStack::of(&read_mounts()?, Path::new("/usr")))
}

fn read_mounts() -> PortResult<Vec<MountInfo>> {
    let text = std::fs::read("/proc/1/mountinfo").map_err(|error| {
        Failure::caused(ErrorCode::Internal, "cannot read what is mounted", &error)
    })?;
    mountinfo::parse(&text).map_err(|line| {
        Failure::new(ErrorCode::Internal, format!("mountinfo has a line like {line:?}"))
    })
}
