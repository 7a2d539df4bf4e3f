//! Copies of mount namespaces, made before a switch and kept for the collapse after it.
//!
//! In a copy nothing comes on top of what `/usr` was, for its `/usr` is private. What it is mounted on
//! is shared with the original.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::CpuSet;

use crate::USR;
use crate::followers;
use crate::mount::mountinfo;
use crate::namespace::{self, HostNamespace};
use crate::reply::{Reply, Tried, Trouble};

/// Pins a copy of PID 1's mount namespace at `pin`, and copies of those of [`followers`] beside it. Does
/// nothing when something is pinned there already.
pub(crate) fn pin_all(pin: &Path) -> Result<Reply, Trouble> {
    HostNamespace::enter()?;
    let layers = namespace::stack()?.layers.len();
    if is_pinned(pin)? {
        return Ok(Reply::unchanged(layers));
    }
    if !pin_copy(pin, None)? {
        return Err(Trouble::switch(format!(
            "cannot pin a mount namespace at {}: the kernel takes every new one for older than its own",
            pin.display()
        )));
    }
    for follower in followers::find()? {
        let at = beside(pin, follower.inode);
        // No service's namespace is worth an update: what cannot be pinned keeps a covered tree until that
        // service is restarted.
        if !matches!(pin_copy(&at, Some(&follower.namespace)), Ok(true)) {
            remove_pin(&at)?;
        }
    }
    Ok(Reply { changed: true, layers, ..Reply::default() })
}

/// Where the copy of a follower is pinned.
fn beside(pin: &Path, inode: u64) -> PathBuf {
    pin.with_extension(inode.to_string())
}

/// The copies of followers that are pinned beside `pin`.
pub(crate) fn all_beside(pin: &Path) -> Result<Vec<PathBuf>, Trouble> {
    let Some(directory) = pin.parent() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in
        std::fs::read_dir(directory).tried(|| format!("look into {}", directory.display()))?
    {
        let path = entry.tried(|| format!("look into {}", directory.display()))?.path();
        if path != pin && path.file_stem() == pin.file_name() {
            found.push(path);
        }
    }
    Ok(found)
}

/// Whether it could be pinned; `original` is PID 1's when it is `None`.
fn pin_copy(pin: &Path, original: Option<&File>) -> Result<bool, Trouble> {
    make_pin_file(pin)?;
    for processor in allowed_processors()? {
        match pin_from(processor, pin, original)? {
            Pinned::Yes => return Ok(true),
            Pinned::TooOld => {}
            Pinned::NotThisOne => return Ok(false),
        }
    }
    Ok(false)
}

/// What came of an attempt to pin a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pinned {
    Yes,
    /// The kernel takes the copy for older than PID 1's namespace, and so for one that it might be
    /// pinned in itself.
    TooOld,
    /// The original does not show what PID 1's shows, or cannot be entered.
    NotThisOne,
}

/// Makes and pins a copy from a thread on one processor. The kernel compares the namespaces' ids, and
/// since Linux 6.18 each processor deals them out from a range of its own. Newer than PID 1's, for
/// certain, is one that is made on the processor that made PID 1's.
fn pin_from(processor: usize, pin: &Path, original: Option<&File>) -> Result<Pinned, Trouble> {
    let (ready, is_ready) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let copy = scope.spawn(move || {
            let made = make_copy(processor, original);
            let is_made = matches!(made, Ok(Some(_)));
            // A receiver or sender that is gone means that the main thread has failed and says so.
            if ready.send(made).is_ok() && is_made {
                gone.recv().unwrap_or(());
            }
        });
        let pinned = match is_ready.recv() {
            Ok(Ok(Some(task))) => {
                match rustix::mount::mount_bind(format!("/proc/self/task/{task}/ns/mnt"), pin) {
                    Ok(()) => Ok(Pinned::Yes),
                    Err(Errno::INVAL) => Ok(Pinned::TooOld),
                    Err(error) => {
                        Err(error).tried(|| format!("pin a mount namespace at {}", pin.display()))
                    }
                }
            }
            Ok(Ok(None)) => Ok(Pinned::NotThisOne),
            Ok(Err(trouble)) => Err(trouble),
            Err(_) => Err(Trouble::switch("the thread of the copied namespace ended early")),
        };
        drop(go);
        copy.join().map_err(|_| Trouble::switch("the thread of the copied namespace panicked"))?;
        pinned
    })
}

/// Moves the calling thread into a copy of `original`; its thread id names it in `/proc`. None when
/// `original` has another tree on `/usr`, or cannot be entered.
fn make_copy(processor: usize, original: Option<&File>) -> Result<Option<u32>, Trouble> {
    let mut one = CpuSet::new();
    one.set(processor);
    rustix::thread::sched_setaffinity(None, &one)
        .tried(|| format!("run on processor {processor}"))?;
    // Also gives the thread a root directory of its own, without which it may enter no namespace.
    namespace::leave_for_own().tried(|| "copy a mount namespace".to_owned())?;
    let mut has_layers = !namespace::stack()?.layers.is_empty();
    if let Some(original) = original {
        let shown = identity_of_usr()?;
        if namespace::enter(original.as_fd()).is_err() || identity_of_usr().ok() != Some(shown) {
            return Ok(None);
        }
        namespace::leave_for_own().tried(|| "copy a service's mount namespace".to_owned())?;
        has_layers = true;
    }
    if has_layers {
        rustix::mount::mount_change(USR, MountPropagationFlags::PRIVATE)
            .tried(|| format!("make {USR} private in a copied namespace"))?;
    }
    Ok(Some(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()))
}

fn identity_of_usr() -> Result<(u64, u64), Trouble> {
    let status = rustix::fs::stat(USR).tried(|| "look at /usr".to_owned())?;
    Ok((status.st_dev, status.st_ino))
}

/// The processors that this process may run on.
fn allowed_processors() -> Result<Vec<usize>, Trouble> {
    let set = rustix::thread::sched_getaffinity(None)
        .tried(|| "see which processors can be used".to_owned())?;
    Ok((0..CpuSet::MAX_CPU).filter(|processor| set.is_set(*processor)).collect())
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

/// Removes `pin` and those beside it without a collapse: what was prepared is not switched to, or was
/// taken back. Does nothing when nothing is pinned.
pub(crate) fn unpin(pin: &Path) -> Result<Reply, Trouble> {
    HostNamespace::enter()?;
    let pinned = is_pinned(pin)?;
    if pinned {
        remove_all(pin)?;
    }
    let layers = namespace::stack()?.layers.len();
    Ok(Reply { changed: pinned, step_nanos: 0, layers, carried: Vec::new() })
}

/// Removes what is pinned beside `pin`, then `pin`: while it is there, the others are remembered.
pub(crate) fn remove_all(pin: &Path) -> Result<(), Trouble> {
    for other in all_beside(pin)? {
        remove_pin(&other)?;
    }
    remove_pin(pin)
}

/// Removes `pin`, and with the last one the mount that pins are made on.
fn remove_pin(pin: &Path) -> Result<(), Trouble> {
    if is_pinned(pin)? {
        rustix::mount::unmount(pin, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .tried(|| format!("unpin {}", pin.display()))?;
    }
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

/// Whether a namespace is pinned at `pin`.
pub(crate) fn is_pinned(pin: &Path) -> Result<bool, Trouble> {
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
