//! Removing a covered tree from below the one on top.
//!
//! A covered mount has no path. But a mount namespace that was copied before the switch, and whose
//! `/usr` does not follow PID 1's any more, still has it uncovered: unmounting it there removes it
//! in every namespace that follows, by propagation through what `/usr` is mounted on.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::USR;
use crate::namespace::{self, HostNamespace};
use crate::pin;
use crate::reply::{Reply, Tried, Trouble};

/// Removes what `/usr` was when `pin` was made, from below what it is now, in every namespace; then
/// removes `pin` and those beside it. `below` are magic links to the mounts that the covered tree
/// carries in PID 1's namespace: they hold it otherwise, for an unmount does not spread to a mount that
/// has others below it. Does nothing when nothing is pinned.
pub(crate) fn collapse(pin: &Path, below: &[PathBuf]) -> Result<Reply, Trouble> {
    // Open the links before their /proc is another one.
    let carried = open_links(below)?;
    let host = HostNamespace::enter()?;
    let before = namespace::stack()?.layers.len();
    if !pin::is_pinned(pin)? {
        return Ok(Reply::unchanged(before));
    }
    let peer = File::open(pin).tried(|| format!("open {}", pin.display()))?;
    // Nothing was switched since, or the switch was taken back: then nothing is covered.
    let start = Instant::now();
    let mut changed = false;
    if before > 1 {
        detach_all(&carried)?;
        for follower in pin::all_beside(pin)? {
            let dropped = drop_pile_of(&follower, &host);
            host.come_back()?;
            // A service's namespace that cannot be reached keeps the tree; PID 1's must not.
            changed |= dropped.unwrap_or(false);
        }
        namespace::enter(peer.as_fd()).tried(|| "enter the pinned namespace".to_owned())?;
        changed |= drop_covered()?;
        host.come_back()?;
    }
    let step_nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    drop(peer);
    pin::remove_all(pin)?;
    let layers = namespace::stack()?.layers.len();
    Ok(Reply { changed, step_nanos, layers, carried: Vec::new() })
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

/// Moves the process into the copy of a follower's namespace that is pinned at `pin`, and unmounts there
/// what was on top when it was made, from above the tree that the follower began under.
fn drop_pile_of(pin: &Path, host: &HostNamespace) -> Result<bool, Trouble> {
    let copy = File::open(pin).tried(|| format!("open {}", pin.display()))?;
    namespace::enter(copy.as_fd()).tried(|| "enter a pinned namespace".to_owned())?;
    if host.stack_here()?.layers.len() < 2 {
        return Ok(false);
    }
    rustix::mount::unmount(USR, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .tried(|| format!("unmount a covered {USR}"))?;
    Ok(true)
}
