//! Locks that are shared with apt and dpkg: fcntl(2) record locks of a process (`F_SETLK`), since
//! that is what those take. Closing any descriptor of a locked file in the process gives the lock
//! up, so nothing here opens a file that is locked already.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use apt_ostree_actors::port::PortResult;
use apt_ostree_proto::{ErrorCode, Failure};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Flock, FlockType, fcntl_getlk};

/// The longest command name that is shown; the kernel's own bound is 15.
const LONGEST_COMMAND: usize = 32;

/// A lock that is held until this is dropped, or the process ends.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
    _file: File,
}

impl FileLock {
    /// Takes the lock, without waiting. `Locked` names who has it.
    pub fn take(path: &Path) -> PortResult<Self> {
        let unusable = |error: &io::Error| {
            let what = format!("the lock {} cannot be used", path.display());
            Failure::caused(ErrorCode::Locked, &what, error)
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(path)
            .map_err(|error| unusable(&error))?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _file: file }),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
                let holder = holder_of(&file).map_err(|error| unusable(&error))?;
                Err(held(path, holder.as_ref()))
            }
            Err(error) => Err(unusable(&error.into())),
        }
    }

    /// The locked file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Fails with `Locked` if another process has a lock on the file. A file that does not exist is not
/// locked. Works on a read-only file system. The caller must not have the lock itself.
pub fn check(path: &Path) -> PortResult<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let what = format!("the lock {} cannot be looked at", path.display());
            return Err(Failure::caused(ErrorCode::Locked, &what, &error));
        }
    };
    let holder = holder_of(&file).map_err(|error| {
        let what = format!("the lock {} cannot be looked at", path.display());
        Failure::caused(ErrorCode::Locked, &what, &error)
    })?;
    holder.map_or(Ok(()), |holder| Err(held(path, Some(&holder))))
}

/// Who has a lock.
struct Holder {
    /// The process; none when it is in another pid namespace, or the lock belongs to no process.
    pid: Option<i32>,
}

fn holder_of(file: &File) -> io::Result<Option<Holder>> {
    // What would be in the way of an exclusive lock on the whole file.
    let lock = fcntl_getlk(file, &Flock::from(FlockType::WriteLock))?;
    Ok(lock.map(|lock| Holder { pid: lock.pid.map(rustix::process::Pid::as_raw_pid) }))
}

fn held(path: &Path, holder: Option<&Holder>) -> Failure {
    let who = match holder.and_then(|holder| holder.pid) {
        Some(pid) => match command(pid) {
            Some(command) => format!("process {pid} (\"{command}\")"),
            None => format!("process {pid}"),
        },
        None => "another process".to_owned(),
    };
    Failure::new(ErrorCode::Locked, format!("{who} holds the lock {}", path.display()))
}

fn command(pid: i32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    Some(name.trim_end().chars().take(LONGEST_COMMAND).map(clean).collect())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that holds the lock: a lock of this process would be no hindrance to it.
    fn hold(path: &Path) -> Child {
        let script = "import fcntl,sys\nf=open(sys.argv[1],'r+')\n\
                      fcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB)\nprint('held',flush=True)\n\
                      sys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        child
    }

    #[test]
    fn a_lock_that_another_process_has_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        check(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        check(&path).unwrap();
        let mut child = hold(&path);
        for failure in [check(&path).unwrap_err(), FileLock::take(&path).unwrap_err()] {
            assert_eq!(failure.code, ErrorCode::Locked);
            let pid = child.id().to_string();
            assert!(failure.message.contains(&pid), "{}", failure.message);
            assert!(failure.message.contains("python3"), "{}", failure.message);
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        check(&path).unwrap();
    }

    #[test]
    fn a_lock_that_is_taken_keeps_others_out_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let attempt = || {
            let script = "import fcntl,sys\nf=open(sys.argv[1],'r+')\n\
                          fcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB)";
            let run = Command::new("python3").args(["-c", script]).arg(&path).output().unwrap();
            run.status.success()
        };
        let lock = FileLock::take(&path).unwrap();
        assert!(!attempt());
        drop(lock);
        assert!(attempt());
    }
}
