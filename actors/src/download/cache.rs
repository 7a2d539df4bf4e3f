//! apt's archive cache: `archives/NAME` for whole files, `archives/partial/NAME` for the others.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use apt_ostree_proto::package::{PackageChange, PackageFile};
use apt_ostree_proto::{ErrorCode, Failure};
use rustix::fs::{OFlags, Uid};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::partial::{hash_rest, to_sha256};
use crate::port::PortResult;

/// The user that apt drops its privileges to, and that its partial directory belongs to.
const APT_USER: &str = "_apt";

/// apt's archive cache.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    archives: PathBuf,
}

impl Cache {
    pub(super) fn new(archives: PathBuf) -> Self {
        Self { archives }
    }

    /// Where a whole file is.
    pub(super) fn path(&self, file: &PackageFile) -> PathBuf {
        self.archives.join(&file.cache_name)
    }

    /// Where a file is while it is fetched.
    pub(super) fn partial_path(&self, file: &PackageFile) -> PathBuf {
        self.archives.join("partial").join(&file.cache_name)
    }

    /// Makes the directories, and refuses what could not be stored: `NoSpace` with the numbers.
    /// Answers the names of the files in whose place one of the right size is: the others need not be
    /// looked at again.
    pub(super) async fn prepare(&self, changes: &[PackageChange]) -> PortResult<BTreeSet<String>> {
        let files: Vec<_> = changes.iter().filter_map(|change| change.file.clone()).collect();
        if let Some(file) = files.iter().find(|file| !is_plain_name(&file.cache_name)) {
            let name: String = file.cache_name.chars().take(80).collect();
            let text = format!("{name:?} cannot be a file's name in the archive cache");
            return Err(Failure::new(ErrorCode::VerificationFailed, text));
        }
        let cache = self.clone();
        let directories = self.clone();
        run_blocking(move || directories.make_directories())
            .await
            .map_err(|error| self.failure("the directories cannot be made", 0, &error))?;
        let (present, missing_bytes, free_bytes) = run_blocking(move || {
            let (present, others): (Vec<_>, Vec<_>) =
                files.iter().partition(|file| cache.has_file_of_size(file));
            let missing = others.iter().map(|file| cache.missing_bytes(file)).sum::<u64>();
            let present = present.into_iter().map(|file| file.cache_name.clone()).collect();
            Ok((present, missing, free_bytes(&cache.archives)?))
        })
        .await
        .map_err(|error| self.failure("the cache cannot be read", 0, &error))?;
        if missing_bytes > free_bytes {
            return Err(self.no_space(missing_bytes, free_bytes));
        }
        Ok(present)
    }

    fn make_directories(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o755).create(&self.archives)?;
        let partial = self.archives.join("partial");
        match DirBuilder::new().mode(0o700).create(&partial) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                let user = apt_user(&std::fs::read_to_string("/etc/passwd")?);
                if rustix::process::geteuid().is_root() && user.is_some() {
                    rustix::fs::chown(&partial, user, None)?;
                }
                Ok(())
            }
        }
    }

    /// Whether something of the file's size is in its place. It is taken for good when room is counted;
    /// if it is not, its place is at least free again.
    fn has_file_of_size(&self, file: &PackageFile) -> bool {
        length(&self.path(file)) == Some(file.size_bytes)
    }

    /// How much of the file has still to be stored.
    fn missing_bytes(&self, file: &PackageFile) -> u64 {
        file.size_bytes.saturating_sub(length(&self.partial_path(file)).unwrap_or(0))
    }

    /// Whether the whole file is there and has the right digest.
    pub(super) async fn holds(
        &self,
        file: &PackageFile,
        cancel: &CancellationToken,
    ) -> PortResult<bool> {
        let path = self.path(file);
        let (expected, size_bytes) = (file.sha256.clone(), file.size_bytes);
        let cancel = cancel.clone();
        run_blocking(move || {
            let Some(found) = open_regular(&path)? else { return Ok(false) };
            if found.metadata()?.len() != size_bytes {
                return Ok(false);
            }
            let (digest, _) = hash_rest(&found, &cancel)?;
            Ok(to_sha256(digest)? == expected)
        })
        .await
        .map_err(|error| self.failure(&format!("{:?} cannot be read", file.cache_name), 0, &error))
    }

    /// A failure of the disk. `wanted_bytes` are what was still to be written.
    pub(super) fn failure(&self, what: &str, wanted_bytes: u64, error: &io::Error) -> Failure {
        let full = [Errno::NOSPC, Errno::DQUOT].map(|errno| Some(errno.raw_os_error()));
        if full.contains(&error.raw_os_error()) {
            return self.no_space(wanted_bytes, free_bytes(&self.archives).unwrap_or(0));
        }
        let place = self.archives.display();
        Failure::caused(ErrorCode::DownloadFailed, &format!("{what} in {place}"), error)
            .with_hint(format!("Check the file system of {place}, and who owns it."))
    }

    fn no_space(&self, wanted_bytes: u64, free_bytes: u64) -> Failure {
        let place = self.archives.display();
        let text = format!(
            "the packages need {wanted_bytes} more bytes in {place}, where {free_bytes} are free"
        );
        Failure::new(ErrorCode::NoSpace, text)
            .with_hint(format!("Free space in {place} (apt-get clean), then try again."))
    }
}

/// Runs disk work off the arbiter. A panic in it becomes an error.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Opens a file that is really there: no link, no pipe.
fn open_regular(path: &Path) -> io::Result<Option<File>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => Ok(file.metadata()?.is_file().then_some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

fn length(path: &Path) -> Option<u64> {
    path.symlink_metadata().ok().map(|found| found.len())
}

fn free_bytes(directory: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(directory)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && !name.contains(['/', '\0'])
        && name != "partial"
        && name != "lock"
}

/// The id of apt's user in the text of `/etc/passwd`.
fn apt_user(passwd: &str) -> Option<Uid> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(APT_USER))?;
    line.split(':').nth(2)?.parse().ok().map(Uid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_user_is_found_by_its_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\n_apt:x:42:65534::/nonexistent:/bin/false\n";
        assert_eq!(apt_user(passwd), Some(Uid::from_raw(42)));
        assert_eq!(apt_user("x_apt:x:1:1\n_apt:x\n"), None);
    }

    #[test]
    fn names_that_leave_the_cache_are_refused() {
        for (name, good) in [
            ("hello_2.10-3_amd64.deb", true),
            ("libssl3_1%3a3.0_amd64.deb", true),
            ("../x.deb", false),
            ("a/b.deb", false),
            (".hidden", false),
            ("partial", false),
            ("lock", false),
            ("", false),
        ] {
            assert_eq!(is_plain_name(name), good, "{name}");
        }
    }
}
