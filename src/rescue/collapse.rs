//! Removing a covered tree from below the one on top.
//!
//! A covered mount has no path. But a mount namespace that was copied before the switch, and whose
//! `/usr` does not follow PID 1's any more, still has it uncovered: unmounting it there removes it
//! in every namespace that follows, by propagation through what `/usr` is mounted on.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Instant;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::CpuSet;

use crate::namespace::{self, HostNamespace};
use crate::reply::{Reply, Tried, Trouble};
use crate::{USR, mount::mountinfo};

/// Makes a copy of PID 1's mount namespace whose `/usr` is private, and pins it at `pin`. Does
/// nothing when something is pinned there already.
pub(crate) fn pin_peer(pin: &Path) -> Result<Reply, Trouble> {
    HostNamespace::enter()?;
    let layers = namespace::stack()?.layers.len();
    if is_pinned(pin)? {
        return Ok(Reply::unchanged(layers));
    }
    make_pin_file(pin)?;
    for processor in allowed_processors()? {
        if pin_from(processor, pin)? {
            return Ok(Reply { changed: true, layers, ..Reply::default() });
        }
    }
    Err(Trouble::switch(format!(
        "cannot pin a mount namespace at {}: the kernel takes every new one for older than its own",
        pin.display()
    )))
}

/// The processors that this process may run on.
fn allowed_processors() -> Result<Vec<usize>, Trouble> {
    let set = rustix::thread::sched_getaffinity(None)
        .tried(|| "see which processors can be used".to_owned())?;
    Ok((0..CpuSet::MAX_CPU).filter(|processor| set.is_set(*processor)).collect())
}

/// Makes and pins a peer namespace from a thread on one processor. False when the kernel takes it
/// for older than PID 1's, which it lets nobody pin there: it compares the namespaces' ids, and
/// since Linux 6.18 each processor deals them out from a range of its own. Newer than PID 1's, for
/// certain, is one that is made on the processor that made PID 1's.
fn pin_from(processor: usize, pin: &Path) -> Result<bool, Trouble> {
    let (ready, is_ready) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let peer = std::thread::spawn(move || {
        let made = make_peer(processor);
        let made_well = made.is_ok();
        // A receiver or sender that is gone means that the main thread has failed and says so.
        if ready.send(made).is_ok() && made_well {
            gone.recv().unwrap_or(());
        }
    });
    let pinned = match is_ready.recv() {
        Ok(Ok(task)) => {
            match rustix::mount::mount_bind(format!("/proc/self/task/{task}/ns/mnt"), pin) {
                Ok(()) => Ok(true),
                Err(Errno::INVAL) => Ok(false),
                Err(error) => {
                    Err(error).tried(|| format!("pin a mount namespace at {}", pin.display()))
                }
            }
        }
        Ok(Err(trouble)) => Err(trouble),
        Err(_) => Err(Trouble::switch("the thread of the peer namespace ended early")),
    };
    drop(go);
    peer.join().map_err(|_| Trouble::switch("the thread of the peer namespace panicked"))?;
    pinned
}

/// Moves the calling thread into the new namespace; its thread id names it in `/proc`.
fn make_peer(processor: usize) -> Result<u32, Trouble> {
    let mut one = CpuSet::new();
    one.set(processor);
    rustix::thread::sched_setaffinity(None, &one)
        .tried(|| format!("run on processor {processor}"))?;
    namespace::leave_for_own().tried(|| "make a peer mount namespace".to_owned())?;
    if !namespace::stack()?.layers.is_empty() {
        rustix::mount::mount_change(USR, MountPropagationFlags::PRIVATE)
            .tried(|| format!("make {USR} private in the peer namespace"))?;
    }
    Ok(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs())
}

/// A mount namespace can only be pinned on a private mount (it would have to be copied into itself
/// otherwise), so the directory of the pins becomes one.
fn make_pin_file(pin: &Path) -> Result<(), Trouble> {
    let directory = pin.parent().ok_or_else(|| Trouble::usage("--pin has no directory"))?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .tried(|| format!("make {}", directory.display()))?;
    if !is_mount_point(directory)? {
        rustix::mount::mount_bind(directory, directory)
            .tried(|| format!("bind {} to itself", directory.display()))?;
    }
    rustix::mount::mount_change(directory, MountPropagationFlags::PRIVATE)
        .tried(|| format!("make {} private", directory.display()))?;
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(pin)
        .tried(|| format!("make {}", pin.display()))?;
    Ok(())
}

/// Removes what `/usr` was when `pin` was made, from below what it is now, in every namespace; then
/// removes `pin`. `below` are magic links to the mounts that the covered tree carries in PID 1's
/// namespace: they hold it otherwise, for an unmount does not spread to a mount that has others
/// below it. Does nothing when nothing is pinned.
pub(crate) fn collapse(pin: &Path, below: &[PathBuf]) -> Result<Reply, Trouble> {
    // Open the links before their /proc is another one.
    let carried = open_links(below)?;
    let host = HostNamespace::enter()?;
    let before = namespace::stack()?.layers.len();
    if !is_pinned(pin)? {
        return Ok(Reply::unchanged(before));
    }
    let peer = File::open(pin).tried(|| format!("open {}", pin.display()))?;
    // Nothing was switched since, or the switch was taken back: then nothing is covered.
    let start = Instant::now();
    let mut changed = false;
    if before > 1 {
        detach_all(&carried)?;
        namespace::enter(peer.as_fd()).tried(|| "enter the pinned namespace".to_owned())?;
        changed = drop_covered()?;
        host.come_back()?;
    }
    let step_nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    drop(peer);
    remove_pin(pin)?;
    let layers = namespace::stack()?.layers.len();
    Ok(Reply { changed, step_nanos, layers, carried: Vec::new() })
}

/// Removes `pin` without a collapse: what was prepared is not switched to, or was taken back. Does
/// nothing when nothing is pinned.
pub(crate) fn unpin(pin: &Path) -> Result<Reply, Trouble> {
    HostNamespace::enter()?;
    let pinned = is_pinned(pin)?;
    if pinned {
        remove_pin(pin)?;
    }
    let layers = namespace::stack()?.layers.len();
    Ok(Reply { changed: pinned, step_nanos: 0, layers, carried: Vec::new() })
}

/// Removes `pin`, and with the last one the mount that pins are made on.
fn remove_pin(pin: &Path) -> Result<(), Trouble> {
    rustix::mount::unmount(pin, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .tried(|| format!("unpin {}", pin.display()))?;
    std::fs::remove_file(pin).tried(|| format!("remove {}", pin.display()))?;
    let Some(directory) = pin.parent() else { return Ok(()) };
    let is_empty = std::fs::read_dir(directory)
        .tried(|| format!("look into {}", directory.display()))?
        .next()
        .is_none();
    if is_empty && is_mount_point(directory)? {
        rustix::mount::unmount(directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .tried(|| format!("unmount {}", directory.display()))?;
    }
    Ok(())
}

fn open_links(links: &[PathBuf]) -> Result<Vec<File>, Trouble> {
    links
        .iter()
        .map(|link| {
            OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_PATH)
                .open(link)
                .tried(|| format!("open {}", link.display()))
        })
        .collect()
}

/// Unmounts in PID 1's namespace what descriptors refer to, the deepest first.
fn detach_all(mounts: &[File]) -> Result<(), Trouble> {
    use std::os::fd::AsRawFd;
    for mount in mounts.iter().rev() {
        let link = format!("/proc/thread-self/fd/{}", mount.as_raw_fd());
        match rustix::mount::unmount(&link, UnmountFlags::DETACH) {
            // No longer a mount of this namespace: it went with an earlier one, or an earlier try.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error).tried(|| "unmount a covered mount".to_owned()),
        }
    }
    Ok(())
}

/// In the peer namespace: unmounts `/usr`. Its own mount is the only one there that it may take.
fn drop_covered() -> Result<bool, Trouble> {
    if namespace::stack()?.layers.is_empty() {
        return Ok(false);
    }
    rustix::mount::unmount(USR, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .tried(|| format!("unmount the covered {USR}"))?;
    Ok(true)
}

fn is_pinned(pin: &Path) -> Result<bool, Trouble> {
    match pin.symlink_metadata() {
        Ok(_) => is_mount_point(pin),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).tried(|| format!("look at {}", pin.display())),
    }
}

fn is_mount_point(path: &Path) -> Result<bool, Trouble> {
    let text = std::fs::read("/proc/thread-self/mountinfo")
        .tried(|| "read the thread's mountinfo".to_owned())?;
    let mounts = mountinfo::parse(&text)
        .map_err(|line| Trouble::switch(format!("mountinfo has a line like {line:?}")))?;
    Ok(mounts.iter().any(|mount| mount.mount_point == path))
}
