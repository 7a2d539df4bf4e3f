//! The programs of the daemon's own version.
//!
//! An update may replace them under a daemon that runs. What daemon and helpers say to each other
//! is no stable format: the daemon goes on with the helpers that it began with, held open, until it
//! has made room for its successor.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

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

/// How much of two programs is compared at a time.
const COMPARED_BYTES: usize = 64 << 10;

/// Tells whether an update has replaced a program that runs.
#[derive(Clone, Debug)]
pub struct Original {
    path: PathBuf,
    file: Option<Arc<File>>,
    /// The last other file that was looked at, and whether it was another program.
    judged: Arc<Mutex<Option<(Identity, bool)>>>,
}

/// Device and inode.
type Identity = (u64, u64);

impl Original {
    /// The program at `path`, as it stands there now.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let file = File::open(&path).ok().map(Arc::new);
        Self { path, file, judged: Arc::default() }
    }

    /// Whether another program stands at the path, or none. The same one may be another file there: an
    /// overlay over `/usr`, such as a merged system extension, gives every file a new identity. A path
    /// where nothing stood was never replaced.
    pub fn is_replaced(&self) -> bool {
        let Some(original) = &self.file else { return false };
        self.is_other_than(original).unwrap_or(true)
    }

    fn is_other_than(&self, original: &File) -> io::Result<bool> {
        let present = File::open(&self.path)?;
        let identity = identity(&present)?;
        if identity == self::identity(original)? {
            return Ok(false);
        }
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, is_other)) = *judged
            && known == identity
        {
            return Ok(is_other);
        }
        let is_other = !have_same_contents(original, &present)?;
        *judged = Some((identity, is_other));
        Ok(is_other)
    }
}

fn identity(file: &File) -> io::Result<Identity> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

fn have_same_contents(one: &File, other: &File) -> io::Result<bool> {
    let size = one.metadata()?.len();
    if size != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]);
    let mut offset = 0;
    while offset < size {
        let length =
            usize::try_from(size - offset).map_or(COMPARED_BYTES, |l| l.min(COMPARED_BYTES));
        one.read_exact_at(&mut ours[..length], offset)?;
        other.read_exact_at(&mut theirs[..length], offset)?;
        if ours[..length] != theirs[..length] {
            return Ok(false);
        }
        offset += length as u64;
    }
    Ok(true)
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

    #[test]
    fn the_same_program_in_another_file_is_no_replacement() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("daemon");
        let program = vec![7; 3 * COMPARED_BYTES + 5];
        std::fs::write(&path, &program).unwrap();
        let original = Original::at(&path);
        let mut changed = program.clone();
        *changed.last_mut().unwrap() = 8;
        for (contents, is_replaced) in
            [(&program, false), (&changed, true), (&program, false), (&program[..9].to_vec(), true)]
        {
            let new = directory.path().join("new");
            std::fs::write(&new, contents).unwrap();
            std::fs::rename(&new, &path).unwrap();
            assert_eq!(original.is_replaced(), is_replaced);
            assert_eq!(original.is_replaced(), is_replaced, "the second look");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(original.is_replaced());
    }
}
