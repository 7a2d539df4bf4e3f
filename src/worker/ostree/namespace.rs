//! A mount namespace of our own with a writable `/sysroot`.

use apt_ostree::host::paths;
use apt_ostree_proto::{ErrorCode, Failure};
use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::mount::{MountFlags, MountPropagationFlags, mount_change, mount_remount};
use rustix::thread::UnshareFlags;

/// Leaves the host's mount namespace for a private copy of it, in which `/sysroot` is writable
/// (real hosts have it read-only: ostree-prepare-root(1), `sysroot.readonly`). Must come before
/// libostree starts a thread.
pub(crate) fn make_private() -> Result<(), Failure> {
    enter().map_err(|error| {
        Failure::caused(
            ErrorCode::Internal,
            "the worker cannot make /sysroot writable in a mount namespace of its own",
            &error,
        )
    })
}

fn enter() -> rustix::io::Result<()> {
    unshare_mounts()?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = statvfs(paths::SYSROOT)?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        mount_remount(paths::SYSROOT, MountFlags::BIND, c"")?;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "rustix marks unshare as unsafe for the sake of CLONE_FILES")]
fn unshare_mounts() -> rustix::io::Result<()> {
    // SAFETY: CLONE_NEWNS leaves the descriptor table shared, and nobody else's memory is touched.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
}
