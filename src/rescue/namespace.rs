//! Entering mount namespaces, reading what is mounted there, and the one call that rustix lacks.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open, openat};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::mount::{mountinfo, usr::UsrStack};
use crate::reply::{Tried, Trouble};
use crate::{Tree, USR};

/// PID 1's mount namespace, held open so that a process can come back to it.
#[derive(Debug)]
pub(crate) struct HostNamespace {
    namespace: File,
    /// Its `/proc`: other namespaces may have none, or one that hides this process.
    proc: OwnedFd,
}

impl HostNamespace {
    /// Opens it and moves the calling thread, the only one of the process, into it.
    pub(crate) fn enter() -> Result<Self, Trouble> {
        let namespace =
            File::open("/proc/1/ns/mnt").tried(|| "open PID 1's mount namespace".to_owned())?;
        enter(namespace.as_fd()).tried(|| "enter PID 1's mount namespace".to_owned())?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = open("/proc", flags, Mode::empty()).tried(|| "open /proc".to_owned())?;
        Ok(Self { namespace, proc })
    }

    /// Moves the calling thread into it again.
    pub(crate) fn come_back(&self) -> Result<(), Trouble> {
        enter(self.namespace.as_fd()).tried(|| "enter PID 1's mount namespace".to_owned())
    }

    /// What is mounted on `/usr` in the calling thread's namespace, whichever it is.
    pub(crate) fn stack_here(&self) -> Result<UsrStack, Trouble> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut text = Vec::new();
        openat(&self.proc, "thread-self/mountinfo", flags, Mode::empty())
            .map_err(std::io::Error::from)
            .and_then(|file| File::from(file).read_to_end(&mut text))
            .tried(|| "read the thread's mountinfo".to_owned())?;
        parse(&text)
    }
}

/// Moves the calling thread into the mount namespace that `namespace` refers to: setns(2).
pub(crate) fn enter(namespace: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))
}

/// The number of the user namespace that owns the mount namespace `namespace`: `ioctl_nsfs(2)`.
#[expect(unsafe_code, reason = "rustix has no NS_GET_USERNS")]
pub(crate) fn owner(namespace: BorrowedFd<'_>) -> std::io::Result<u64> {
    /// `_IO(0xb7, 0x1)` of `linux/nsfs.h`.
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: the descriptor is open, and the request takes no argument.
    let descriptor = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    if descriptor < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made the descriptor for us alone.
    let owner = unsafe { OwnedFd::from_raw_fd(descriptor) };
    Ok(rustix::fs::fstat(owner)?.st_ino)
}

/// Gives the calling thread a mount namespace of its own, a copy of the present one: unshare(2).
#[expect(unsafe_code, reason = "unshare can split the file descriptor table; NEWNS does not")]
pub(crate) fn leave_for_own() -> rustix::io::Result<()> {
    // SAFETY: without `UnshareFlags::FILES` all threads keep one file descriptor table.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
}

/// What is mounted on `/usr` in the calling thread's namespace.
pub(crate) fn stack() -> Result<UsrStack, Trouble> {
    let text = std::fs::read("/proc/thread-self/mountinfo")
        .tried(|| "read the thread's mountinfo".to_owned())?;
    parse(&text)
}

fn parse(text: &[u8]) -> Result<UsrStack, Trouble> {
    let mounts = mountinfo::parse(text)
        .map_err(|line| Trouble::switch(format!("mountinfo has a line like {line:?}")))?;
    Ok(UsrStack::of(&mounts, Path::new(USR)))
}

/// Whether `tree` is what `/usr` shows in the calling thread's namespace.
pub(crate) fn is_on_top(tree: &Tree) -> Result<bool, Trouble> {
    let status = rustix::fs::stat(USR).tried(|| "look at /usr".to_owned())?;
    Ok((status.st_dev, status.st_ino) == (tree.device, tree.inode))
}

/// Makes a detached mount read-only and private: `mount_setattr(2)`.
///
/// Read-only, for services with a mount namespace of their own would get it writable otherwise, and
/// a write would go through a hard link into the repository. Private, for otherwise it would be a
/// peer of the mount that it was cloned from.
pub(crate) fn make_read_only_and_private(mount: BorrowedFd<'_>) -> std::io::Result<()> {
    set_read_only(mount, libc::MS_PRIVATE)
}

/// Makes a mount read-only, and leaves what it follows as it is.
pub(crate) fn make_read_only(mount: BorrowedFd<'_>) -> std::io::Result<()> {
    set_read_only(mount, 0)
}

#[expect(unsafe_code, reason = "rustix has no mount_setattr")]
fn set_read_only(mount: BorrowedFd<'_>, propagation: u64) -> std::io::Result<()> {
    /// `struct mount_attr` of `linux/mount.h`, version 0.
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attributes =
        Attributes { set: libc::MOUNT_ATTR_RDONLY, clear: 0, propagation, user_namespace: 0 };
    // SAFETY: the descriptor is open, the path is a terminated empty string as AT_EMPTY_PATH wants
    // it, and the kernel reads exactly the given size of a structure that outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
