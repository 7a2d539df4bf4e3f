//! What is booted, what runs and what boots next, read from what `OSTree` leaves on the disk: pure
//! Rust, so that `status` needs no worker process.
//!
//! Sources: ostree-prepare-root(1) (`/run/ostree-booted`, the mounts), the Boot Loader
//! Specification (entries, `version`), ostree-admin-deploy(1) (`/run/ostree/staged-deployment`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use apt_ostree_actors::port::{HostTree, PortResult};
use apt_ostree_proto::{CommitId, ErrorCode, Failure, TransactionId};

use super::mountinfo::{self, Mount};
use crate::host::paths;

/// The group of an origin file that `OSTree` itself forgets when somebody upgrades from it: what we
/// mark there is never inherited by a deployment of somebody else's.
pub const TRANSIENT_GROUP: &str = "libostree-transient";
/// The key in that group by which our deployments are known.
pub const OURS_KEY: &str = "apt-ostree";
/// Where the commit of a live tree is noted, beside its checkout.
pub const COMMIT_FILE: &str = "commit";
/// The same of a checkout that was made for a commit to come.
pub const PREPARED_FILE: &str = "prepared";

/// A deployment's directory and what its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentPath {
    /// The OS name.
    pub os_name: String,
    /// The commit.
    pub commit: CommitId,
    /// The number that tells deployments of one commit apart.
    pub serial: u32,
    /// Its directory below `/sysroot`.
    pub directory: PathBuf,
}

impl DeploymentPath {
    /// Finds `…/ostree/deploy/OS/deploy/COMMIT.SERIAL` at the start of a path or below any prefix.
    pub fn parse(path: &Path) -> Option<Self> {
        let names: Vec<&str> = path.iter().map(|name| name.to_str().unwrap_or("")).collect();
        let start = names.windows(5).position(|window| {
            window[0] == "ostree" && window[1] == "deploy" && window[3] == "deploy"
        })?;
        let (os_name, leaf) = (names[start + 2], names[start + 4]);
        let (commit, serial) = leaf.split_once('.')?;
        let directory =
            Path::new(paths::SYSROOT).join("ostree/deploy").join(os_name).join("deploy").join(leaf);
        Some(Self {
            os_name: os_name.to_owned(),
            commit: CommitId::parse(commit).ok()?,
            serial: serial.parse().ok()?,
            directory,
        })
    }

    fn origin(&self) -> PathBuf {
        let mut name = self.directory.clone().into_os_string();
        name.push(".origin");
        name.into()
    }
}

/// The tree that `/usr` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningTree {
    /// Its commit.
    pub commit: CommitId,
    /// Its `usr`, below `/sysroot`.
    pub usr: PathBuf,
    /// The transaction that made it; none for the booted deployment's own.
    pub transaction: Option<TransactionId>,
}

/// Where a host's files are; `/` but in tests.
#[derive(Clone, Debug)]
pub struct StateReader {
    root: PathBuf,
}

impl Default for StateReader {
    fn default() -> Self {
        Self::below("/")
    }
}

impl StateReader {
    /// Reads below another root.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Everything that [`HostTree`] holds. Errors: `NotBooted`, `DatabaseOutsideTree`; `Internal`
    /// where the boot configuration cannot be read.
    pub fn read(&self) -> PortResult<HostTree> {
        let mounts = self.mounts()?;
        let booted = self.booted(&mounts)?;
        self.database()?;
        let running = self.running(&mounts, &booted)?;
        let next = self.next()?;
        let foreign_pending = next.directory != booted.directory && !self.is_ours(&next);
        Ok(HostTree {
            os_name: booted.os_name,
            booted: booted.commit,
            running: running.commit,
            next: next.commit,
            foreign_pending,
        })
    }

    /// The mounts as PID 1 sees them: the daemon may run in a namespace of its own.
    pub fn mounts(&self) -> PortResult<Vec<Mount>> {
        let text = self.text("/proc/1/mountinfo").map_err(|error| {
            Failure::caused(ErrorCode::Internal, "the mounts cannot be read", &error)
        })?;
        Ok(mountinfo::parse(&text))
    }

    /// The booted deployment: the directory that the mounts of `/`, `/etc` or `/usr` come from.
    /// With composefs `/` is an image, but `/etc` is the deployment's own.
    pub fn booted(&self, mounts: &[Mount]) -> PortResult<DeploymentPath> {
        if !self.at("/run/ostree-booted").exists() {
            return Err(Failure::new(
                ErrorCode::NotBooted,
                "this host was not booted from an OSTree deployment",
            ));
        }
        ["/", "/etc", "/usr"]
            .iter()
            .filter_map(|point| mounts.iter().find(|mount| mount.point == Path::new(point)))
            .find_map(|mount| DeploymentPath::parse(&mount.root))
            .ok_or_else(|| {
                Failure::new(
                    ErrorCode::NotBooted,
                    "none of the mounts on /, /etc and /usr comes from an OSTree deployment",
                )
            })
    }

    /// The tree on top of `/usr`.
    pub fn running(&self, mounts: &[Mount], booted: &DeploymentPath) -> PortResult<RunningTree> {
        let top = mounts.iter().rev().find(|mount| mount.point == Path::new("/usr"));
        let Some(transaction) = top.and_then(|mount| live_transaction(&mount.root)) else {
            let usr = booted.directory.join("usr");
            return Ok(RunningTree { commit: booted.commit.clone(), usr, transaction: None });
        };
        let commit = self.live_commit(transaction).ok_or_else(|| {
            Failure::new(
                ErrorCode::Internal,
                format!("the commit of the running tree of transaction {transaction} is not noted"),
            )
        })?;
        let usr = paths::checkout(transaction).join("usr");
        Ok(RunningTree { commit, usr, transaction: Some(transaction) })
    }

    /// The commit of a transaction's checkout; none unless the checkout is complete.
    pub fn live_commit(&self, transaction: TransactionId) -> Option<CommitId> {
        let noted = self.commit_in(&paths::live(transaction).join(COMMIT_FILE));
        let reference =
            Path::new(paths::REPOSITORY).join("refs/heads").join(paths::live_ref(transaction));
        noted.or_else(|| self.commit_in(&reference))
    }

    /// What boots next: the staged deployment, else the first boot entry.
    pub fn next(&self) -> PortResult<DeploymentPath> {
        if let Some(staged) = self.staged() {
            return Ok(staged);
        }
        let mut entries = self.boot_entries();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.version));
        entries
            .first()
            .and_then(|entry| {
                let link = Path::new(paths::SYSROOT).join(entry.link.trim_start_matches('/'));
                let target = fs::read_link(self.at(link)).ok()?;
                DeploymentPath::parse(&Path::new("ostree").join(strip_parents(&target)))
            })
            .ok_or_else(|| {
                Failure::new(
                    ErrorCode::Internal,
                    "no boot entry of OSTree was found in /boot/loader/entries",
                )
            })
    }

    /// The staged deployment, if there is one.
    pub fn staged(&self) -> Option<DeploymentPath> {
        let bytes = fs::read(self.at("/run/ostree/staged-deployment")).ok()?;
        let staged = staged_path(&bytes)?;
        // A file that outlived its deployment says nothing.
        self.at(&staged.directory).is_dir().then_some(staged)
    }

    /// Whether a directory of a deployment of `commit` is on the disk, listed for a boot or not.
    pub fn has_deployment(&self, commit: &CommitId) -> io::Result<bool> {
        for os in fs::read_dir(self.at(paths::SYSROOT).join("ostree/deploy"))? {
            let deployments = match fs::read_dir(os?.path().join("deploy")) {
                Ok(deployments) => deployments,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for deployment in deployments {
                let name = deployment?.file_name();
                if name.to_string_lossy().starts_with(commit.as_str()) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Whether we made the deployment: by the mark in its origin. Somebody else may well deploy a
    /// commit that ran here once, and that has a ref of ours.
    pub fn is_ours(&self, deployment: &DeploymentPath) -> bool {
        self.text(deployment.origin()).is_ok_and(|origin| is_marked(&origin))
    }

    /// Where the dpkg database is, below `/usr`, without that prefix: `lib/sysimage/dpkg`.
    pub fn database(&self) -> PortResult<PathBuf> {
        let link = Path::new("/var/lib/dpkg");
        let outside = |what: String| Err(Failure::new(ErrorCode::DatabaseOutsideTree, what));
        let target = match fs::read_link(self.at(link)) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return outside("/var/lib/dpkg is a directory of the host, not of the tree".into());
            }
            Err(error) => return outside(format!("/var/lib/dpkg cannot be read: {error}")),
        };
        let resolved = resolve(Path::new("/var/lib"), &target);
        match resolved.strip_prefix("/usr") {
            Ok(below) if self.at(&resolved).is_dir() => Ok(below.to_path_buf()),
            _ => outside(format!(
                "/var/lib/dpkg leads to \"{}\", which is no directory below /usr",
                resolved.display()
            )),
        }
    }

    fn boot_entries(&self) -> Vec<BootEntry> {
        ["/boot/loader/entries", "/sysroot/boot/loader/entries"]
            .iter()
            .map(|directory| self.boot_entries_in(Path::new(directory)))
            .find(|entries| !entries.is_empty())
            .unwrap_or_default()
    }

    fn boot_entries_in(&self, directory: &Path) -> Vec<BootEntry> {
        let Ok(entries) = fs::read_dir(self.at(directory)) else { return Vec::new() };
        entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("ostree-"))
            .filter_map(|entry| BootEntry::parse(&fs::read_to_string(entry.path()).ok()?))
            .collect()
    }

    fn commit_in(&self, path: &Path) -> Option<CommitId> {
        CommitId::parse(self.text(path).ok()?.trim()).ok()
    }

    fn text(&self, path: impl AsRef<Path>) -> io::Result<String> {
        fs::read_to_string(self.at(path))
    }

    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// The transaction whose checkout a mount's root is.
pub fn live_transaction(root: &Path) -> Option<TransactionId> {
    let names: Vec<&str> = root.iter().map(|name| name.to_str().unwrap_or("")).collect();
    let [.., "ostree", "live", number, "tree", "usr"] = names.as_slice() else { return None };
    number.parse().ok().map(TransactionId)
}

struct BootEntry {
    version: u64,
    link: String,
}

impl BootEntry {
    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            text.lines().find_map(|line| {
                let (name, value) = line.split_once(char::is_whitespace)?;
                (name == key).then_some(value.trim())
            })
        };
        let link = value("options")?.split_whitespace().find_map(|o| o.strip_prefix("ostree="))?;
        Some(Self { version: value("version")?.parse().ok()?, link: link.to_owned() })
    }
}

fn is_marked(origin: &str) -> bool {
    let mut group = "";
    origin.lines().any(|line| {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            group = name;
        }
        group == TRANSIENT_GROUP && line.split('=').next() == Some(OURS_KEY)
    })
}

/// The deployment that the serialized dictionary names as `target`: `name` is COMMIT.SERIAL, and
/// `osname` says of what. Texts begin behind their key's end and its padding, and end with a NUL.
fn staged_path(bytes: &[u8]) -> Option<DeploymentPath> {
    let find = |bytes: &[u8], key: &[u8]| {
        bytes.windows(key.len()).position(|window| window == key).map(|start| start + key.len())
    };
    let target = &bytes[find(bytes, b"target\0")?..];
    let text = |key: &[u8]| {
        let value = target[find(target, key)?..].iter().skip_while(|byte| **byte == 0);
        String::from_utf8(value.take_while(|byte| **byte != 0).copied().collect()).ok()
    };
    let (name, os_name) = (text(b"\0name\0")?, text(b"\0osname\0")?);
    DeploymentPath::parse(&Path::new("ostree/deploy").join(os_name).join("deploy").join(name))
}

fn strip_parents(path: &Path) -> PathBuf {
    path.iter().skip_while(|name| *name == "..").collect()
}

/// Follows `target` from `directory`, by its text alone.
fn resolve(directory: &Path, target: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for name in &directory.join(target) {
        match name.to_str() {
            Some("..") => {
                // Above the root is the root.
                resolved.pop();
            }
            Some(".") => {}
            _ => resolved.push(name),
        }
    }
    resolved
}

#[cfg(test)]
mod tests;
