//! The lock of the user databases: lckpwdf(3) of glibc, which passwd, useradd and the like take.

use std::fs::File;
use std::time::{Duration, Instant};

use apt_ostree_actors::port::PortResult;
use apt_ostree_proto::{ErrorCode, Failure};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::root::Root;

/// As long as lckpwdf waits.
const PATIENCE: Duration = Duration::from_secs(15);
/// Nothing tells when a record lock becomes free but a call that cannot be given a time.
const POLL: Duration = Duration::from_millis(20);

/// The lock, until it is dropped. The kernel frees it when the process dies.
#[derive(Debug)]
pub(super) struct PasswordLock {
    _file: File,
}

impl PasswordLock {
    /// Takes the lock in this `/etc`.
    pub(super) fn take(etc: &Root) -> PortResult<Self> {
        let path = etc.path().join(".pwd.lock");
        let failed = |error: Errno| {
            Failure::caused(ErrorCode::Locked, "cannot lock the user databases", &error)
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file =
            File::from(rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?);
        let start = Instant::now();
        loop {
            match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(Errno::ACCESS | Errno::AGAIN) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(POLL);
                }
                Err(Errno::ACCESS | Errno::AGAIN) => {
                    return Err(Failure::new(
                        ErrorCode::Locked,
                        "another program has the user databases (/etc/.pwd.lock) locked",
                    ));
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }
}
