//! Work in the host's own mount namespace, on a thread of its own: the daemon may be confined, and
//! `/sysroot` is read-only for everybody.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use apt_ostree_actors::port::PortResult;
use apt_ostree_proto::{ErrorCode, Failure};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::paths;
use crate::mount::mountinfo::{self, MountInfo};

/// Runs `work` on a new thread in a private copy of PID 1's mount namespace in which `/sysroot` is
/// writable, and waits for it. Mounts that it makes are seen by nobody else and go with it.
pub async fn in_host<T: Send + 'static>(
    work: impl FnOnce() -> PortResult<T> + Send + 'static,
) -> PortResult<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // Not one of the runtime's threads: a thread that has been elsewhere is of no use to others.
    let thread = std::thread::Builder::new().name("host-namespace".to_owned()).spawn(move || {
        let answer = enter().and_then(|()| work());
        // Nobody listens when the caller was dropped; the work is done all the same.
        drop(sender.send(answer));
    });
    thread
        .map_err(|error| Failure::caused(ErrorCode::Internal, "cannot start a thread", &error))?;
    receiver.await.map_err(|_| {
        Failure::new(ErrorCode::Internal, "a thread in the host's namespace panicked")
    })?
}

/// Where `path` of the calling thread's namespace is below `/sysroot`: on the same mount as `OSTree`'s
/// own directories, so that files can be renamed between them.
pub fn below_sysroot(path: &Path) -> PortResult<PathBuf> {
    let text = std::fs::read("/proc/thread-self/mountinfo").map_err(|error| {
        Failure::caused(ErrorCode::Internal, "cannot read what is mounted", &error)
    })?;
    let mounts = mountinfo::parse(&text).map_err(|line| {
        Failure::new(ErrorCode::Internal, format!("mountinfo has a line like {line:?}"))
    })?;
    let found = translate(&mounts, path, Path::new(paths::SYSROOT));
    let place = found.filter(|place| is_same(place, path)).ok_or_else(|| {
        Failure::new(
            ErrorCode::NotBooted,
            format!("{} is not on the file system of OSTree's deployments", path.display()),
        )
    })?;
    Ok(place)
}

/// The path below `sysroot` of what `path` shows, by the roots of their mounts.
fn translate(mounts: &[MountInfo], path: &Path, sysroot: &Path) -> Option<PathBuf> {
    // Later mounts cover earlier ones on the same place.
    let mount_of = |path: &Path| {
        mounts
            .iter()
            .filter(|mount| path.starts_with(&mount.mount_point))
            .max_by_key(|mount| mount.mount_point.components().count())
    };
    let (source, target) = (mount_of(path)?, mount_of(sysroot)?);
    if source.device != target.device {
        return None;
    }
    let inside = source.root.join(path.strip_prefix(&source.mount_point).ok()?);
    Some(target.mount_point.join(inside.strip_prefix(&target.root).ok()?))
}

fn is_same(one: &Path, other: &Path) -> bool {
    let status = |path| rustix::fs::lstat(path).map(|status| (status.st_dev, status.st_ino));
    matches!((status(one), status(other)), (Ok(one), Ok(other)) if one == other)
}

fn enter() -> PortResult<()> {
    let failed = |what: &str, error: &dyn std::error::Error| {
        Failure::new(ErrorCode::Internal, format!("cannot {what}: {error}"))
    };
    let host = File::open("/proc/1/ns/mnt")
        .map_err(|error| failed("open PID 1's mount namespace", &error))?;
    unshare(UnshareFlags::FS).map_err(|error| failed("leave the other threads", &error))?;
    rustix::thread::move_into_link_name_space(host.as_fd(), Some(LinkNameSpaceType::Mount))
        .map_err(|error| failed("enter PID 1's mount namespace", &error))?;
    unshare(UnshareFlags::NEWNS).map_err(|error| failed("make a mount namespace", &error))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)
        .map_err(|error| failed("make the mount namespace private", &error))?;
    if Path::new(paths::SYSROOT).join("ostree").is_dir() {
        rustix::mount::mount_remount(paths::SYSROOT, MountFlags::BIND, "")
            .map_err(|error| failed("make /sysroot writable", &error))?;
    }
    Ok(())
}

/// Has the calling thread share something no longer with the others: unshare(2).
#[expect(unsafe_code, reason = "unshare can split the file descriptor table; these flags do not")]
fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: without `UnshareFlags::FILES` all threads keep one file descriptor table.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_below_the_physical_root() {
        let bound = "1 0 8:1 /ostree/deploy/os/deploy/c.0 / rw - ext4 d rw\n\
                     2 1 8:1 / /sysroot ro - ext4 d rw\n\
                     3 1 8:1 /ostree/deploy/os/deploy/c.0/etc /etc rw - ext4 d rw\n";
        let subvolume = "1 0 0:40 /@/ostree/deploy/os/deploy/c.0 / rw - btrfs d rw\n\
                         2 1 0:40 /@ /sysroot ro - btrfs d rw\n";
        let transient = "1 0 0:41 / / ro - overlay composefs ro\n\
                         2 1 8:1 / /sysroot ro - ext4 d rw\n\
                         3 1 0:42 / /etc rw - overlay overlay rw\n";
        let expected = Some(PathBuf::from("/sysroot/ostree/deploy/os/deploy/c.0/etc"));
        for (text, expected) in
            [(bound, expected.clone()), (subvolume, expected), (transient, None)]
        {
            let mounts = mountinfo::parse(text.as_bytes()).unwrap();
            assert_eq!(translate(&mounts, Path::new("/etc"), Path::new("/sysroot")), expected);
        }
    }
}
