//! The programs of the daemon's own version.
//!
//! An update may replace them under a daemon that runs. What daemon and helpers say to each other
//! is no stable format: the daemon goes on with the helpers that it began with, held open, until it
//! has made room for its successor.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::paths;

/// A helper's file, open for as long as the daemon runs.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    file: File,
}

impl Program {
    /// Opens the program at `path`, which goes by `name` in process lists.
    pub fn open(path: &Path, name: &'static str) -> io::Result<Self> {
        let file = File::options().read(true).custom_flags(libc::O_PATH).open(path)?;
        Ok(Self { name, file })
    }

    /// A command that runs it, whatever stands at its path by now.
    pub fn command(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(self.path());
        command.arg0(self.name);
        command
    }

    /// The name that this process, and its children until they run something else, have for it.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// The worker. The first call decides which: the daemon makes it when it begins. Where none is
/// installed beside the running program it is the one at [`paths::WORKER`].
pub fn worker() -> io::Result<&'static Program> {
    static WORKER: OnceLock<Program> = OnceLock::new();
    if let Some(worker) = WORKER.get() {
        return Ok(worker);
    }
    let own = std::env::current_exe().ok();
    let beside = own.and_then(|own| Some(own.parent()?.join("apt-ostree-worker")));
    let path = beside.filter(|path| path.is_file()).unwrap_or_else(|| paths::WORKER.into());
    let worker = Program::open(&path, "apt-ostree-worker")?;
    Ok(WORKER.get_or_init(|| worker))
}

/// Tells whether an update has replaced a program that runs.
#[derive(Clone, Debug)]
pub struct Original {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Original {
    /// The program at `path`, as it stands there now.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let identity = identity(&path);
        Self { path, identity }
    }

    /// Whether another file stands at the path. A path where nothing stood was never replaced.
    pub fn is_replaced(&self) -> bool {
        self.identity.is_some() && identity(&self.path) != self.identity
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_is_replaced_is_run_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("helper");
        std::fs::copy("/bin/echo", &path).unwrap();
        let program = Program::open(&path, "helper").unwrap();
        let original = Original::at(&path);
        assert!(!original.is_replaced());

        std::fs::copy("/bin/false", directory.path().join("new")).unwrap();
        std::fs::rename(directory.path().join("new"), &path).unwrap();
        let output = program.command().arg("as before").output().await.unwrap();

        assert_eq!(output.stdout, b"as before\n");
        assert!(original.is_replaced());
    }

    #[test]
    fn what_was_never_installed_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let original = Original::at(directory.path().join("helper"));
        std::fs::write(directory.path().join("helper"), "").unwrap();
        assert!(!original.is_replaced());
    }
}
