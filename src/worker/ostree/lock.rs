//! OSTree's sysroot lock, which `ostree admin`, bootc and rpm-ostree take as well.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use apt_ostree::host::paths;
use apt_ostree_proto::{ErrorCode, Failure};
use ostree::Sysroot;

use super::repository::{NEVER, failed};

/// How long another program's hold is waited for: `ostree admin status` holds it for a moment, an
/// upgrade for minutes.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the lock is tried: the kernel tells nobody of a released file lock.
const PAUSE: Duration = Duration::from_millis(50);

/// Opens the host's sysroot and takes its lock, which ends with the value. Errors: `Locked` with
/// the holder.
pub(super) fn open_locked(code: ErrorCode) -> Result<LockedSysroot, Failure> {
    let sysroot = Sysroot::new_default();
    // Ours alone: libostree may make it and /boot writable.
    sysroot.set_mount_namespace_in_use();
    sysroot
        .initialize()
        .map_err(|error| failed(code, "the OSTree sysroot cannot be opened", &error))?;
    let deadline = Instant::now() + PATIENCE;
    while !sysroot
        .try_lock()
        .map_err(|error| failed(code, "the OSTree sysroot cannot be locked", &error))?
    {
        if Instant::now() >= deadline {
            return Err(Failure::new(
                ErrorCode::Locked,
                format!("{} holds OSTree's sysroot lock", holder()),
            ));
        }
        std::thread::sleep(PAUSE);
    }
    let locked = LockedSysroot { sysroot };
    locked
        .sysroot
        .load(NEVER)
        .map_err(|error| failed(code, "the OSTree deployments cannot be read", &error))?;
    Ok(locked)
}

/// A sysroot whose lock is ours.
#[derive(Debug)]
pub(super) struct LockedSysroot {
    sysroot: Sysroot,
}

impl std::ops::Deref for LockedSysroot {
    type Target = Sysroot;

    fn deref(&self) -> &Sysroot {
        &self.sysroot
    }
}

impl Drop for LockedSysroot {
    fn drop(&mut self) {
        self.sysroot.unlock();
    }
}

/// Who has the lock, as `/proc/locks` says; locks by open file description have no pid there, so
/// the open files of all processes are searched.
fn holder() -> String {
    let unknown = || "another program".to_owned();
    let Ok(lock) = fs::metadata(format!("{}/ostree/lock", paths::SYSROOT)) else {
        return unknown();
    };
    let own = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .find(|pid| {
            let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            files
                .filter_map(|file| fs::metadata(file.path()).ok())
                .any(|file| (file.dev(), file.ino()) == (lock.dev(), lock.ino()))
        })
        .map_or_else(unknown, |pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("the process {pid} ({})", name.trim().escape_debug())
        })
}
