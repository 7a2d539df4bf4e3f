//! Putting a tree on `/usr` and taking it off again.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::mount::mountinfo::MountInfo;
use crate::namespace::{self, HostNamespace};
use crate::reply::{Reply, Tried, Trouble};
use crate::{Tree, USR};

/// How often the new tree is put together again because somebody mounted or unmounted something
/// below `/usr` meanwhile; who does that more often does it on purpose.
const ASSEMBLY_ATTEMPTS: usize = 5;

/// Mounts `tree` on top of `/usr` in one step; does nothing when it is there already.
pub(crate) fn switch(tree: &Tree) -> Result<Reply, Trouble> {
    let host = HostNamespace::enter()?;
    let mut stack = namespace::stack()?;
    if let Some(what) = stack.foreign() {
        return Err(Trouble::foreign(what));
    }
    if namespace::is_on_top(tree)? {
        return Ok(Reply::unchanged(stack.layers.len()));
    }
    for _ in 0..ASSEMBLY_ATTEMPTS {
        let new = assemble(tree, &stack.below, &host)?;
        // Whatever was mounted or unmounted below /usr since the list was read has to come along.
        let now = namespace::stack()?;
        if now != stack {
            if let Some(what) = now.foreign() {
                return Err(Trouble::foreign(what));
            }
            stack = now;
            continue;
        }
        let start = Instant::now();
        let moved = rustix::mount::move_mount(
            new.as_fd(),
            "",
            CWD,
            USR,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        );
        let step_nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        moved.tried(|| format!("mount {} on {USR}", tree.path.display()))?;
        return Ok(Reply {
            changed: true,
            step_nanos,
            layers: stack.layers.len() + 1,
            carried: stack
                .below
                .iter()
                .map(|mount| mount.mount_point.to_string_lossy().into_owned())
                .collect(),
        });
    }
    Err(Trouble::switch(format!(
        "mounts below {USR} changed {ASSEMBLY_ATTEMPTS} times while the switch was made ready"
    )))
}

/// Makes the top mount on `/usr` read-only again. How it follows other mounts stays as it is: a later
/// switch has to reach the services.
pub(crate) fn protect() -> Result<Reply, Trouble> {
    HostNamespace::enter()?;
    let stack = namespace::stack()?;
    if let Some(what) = stack.foreign() {
        return Err(Trouble::foreign(what));
    }
    let layers = stack.layers.len();
    let Some(top) = stack.layers.last() else {
        return Err(Trouble::switch(format!("{USR} is no mount of its own")));
    };
    if top.mount.read_only {
        return Ok(Reply::unchanged(layers));
    }
    let mount =
        rustix::fs::open(USR, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .tried(|| format!("open {USR}"))?;
    namespace::make_read_only(mount.as_fd()).tried(|| format!("make {USR} read-only"))?;
    Ok(Reply { changed: true, layers, ..Reply::default() })
}

/// Takes `tree` off `/usr` if it is on top and something is below it; does nothing otherwise.
pub(crate) fn unswitch(tree: &Tree) -> Result<Reply, Trouble> {
    HostNamespace::enter()?;
    take_off(tree)
}

/// The same, in a process that is in PID 1's namespace already.
pub(crate) fn take_off(tree: &Tree) -> Result<Reply, Trouble> {
    let stack = namespace::stack()?;
    if !namespace::is_on_top(tree)? {
        return Ok(Reply::unchanged(stack.layers.len()));
    }
    // After a collapse nothing of ours is below it: what would come to light is the directory of
    // the root file system, which need not be the tree before.
    if stack.layers.len() < 2 {
        return Err(Trouble::switch(format!(
            "{} is the only mount on {USR}; there is nothing below it to go back to",
            tree.path.display()
        )));
    }
    let start = Instant::now();
    let removed = rustix::mount::unmount(USR, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    let step_nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    removed.tried(|| format!("unmount {USR}"))?;
    Ok(Reply { changed: true, step_nanos, layers: stack.layers.len() - 1, carried: Vec::new() })
}

/// A detached mount of `tree`, read-only and private, with clones of `below` attached.
fn assemble(tree: &Tree, below: &[MountInfo], host: &HostNamespace) -> Result<OwnedFd, Trouble> {
    if below.is_empty() {
        return clone_tree(tree);
    }
    // Kernels before 6.15 cannot attach a detached mount to a detached one, so the tree is put
    // together in a namespace of its own, over the tree's own directory, and cloned from there as a
    // whole. What is left of that namespace goes when this process comes back.
    namespace::leave_for_own()
        .tried(|| "make a mount namespace to assemble the tree in".to_owned())?;
    let assembled = assemble_here(tree, below);
    host.come_back()?;
    assembled
}

fn assemble_here(tree: &Tree, below: &[MountInfo]) -> Result<OwnedFd, Trouble> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .tried(|| "make the mount namespace private".to_owned())?;
    let root = clone_tree(tree)?;
    attach(&root, &tree.path)?;
    for mount in below {
        let relative = mount.mount_point.strip_prefix(USR).tried(|| "read mountinfo".to_owned())?;
        let clone = open_tree(&mount.mount_point, OpenTreeFlags::OPEN_TREE_CLONE)?;
        attach(&clone, &tree.path.join(relative))?;
    }
    open_tree(&tree.path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE)
}

fn clone_tree(tree: &Tree) -> Result<OwnedFd, Trouble> {
    let clone = open_tree(&tree.path, OpenTreeFlags::OPEN_TREE_CLONE)?;
    let status = rustix::fs::statat(&clone, "", AtFlags::EMPTY_PATH)
        .tried(|| format!("look at {}", tree.path.display()))?;
    if (status.st_dev, status.st_ino) != (tree.device, tree.inode) {
        return Err(Trouble::switch(format!(
            "{} is not the tree that was committed: another directory stands there now",
            tree.path.display()
        )));
    }
    namespace::make_read_only_and_private(clone.as_fd())
        .tried(|| "make the new tree's mount read-only and private".to_owned())?;
    Ok(clone)
}

fn open_tree(path: &PathBuf, flags: OpenTreeFlags) -> Result<OwnedFd, Trouble> {
    rustix::mount::open_tree(CWD, path, flags | OpenTreeFlags::OPEN_TREE_CLOEXEC)
        .tried(|| format!("clone the mount of {}", path.display()))
}

fn attach(mount: &OwnedFd, to: &Path) -> Result<(), Trouble> {
    rustix::mount::move_mount(mount, "", CWD, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .tried(|| format!("mount at {}", to.display()))
}
