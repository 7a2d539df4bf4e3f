//! A commit of base + the staged change, and nothing else: what did not change is not looked at.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use apt_ostree::host::tree::layout::{SKELETON_DIRECTORIES, Stage};
use apt_ostree::host::tree::state::StateReader;
use apt_ostree::host::tree::task::CommitRequest;
use apt_ostree::host::{paths, tree::metadata_key};
use apt_ostree_actors::port::{CommittedTree, TreeMetadata};
use apt_ostree_proto::{CommitId, ErrorCode, Failure, TransactionId};
use ostree::gio::prelude::*;
use ostree::glib::{Variant, VariantDict};
use ostree::{MutableTree, Repo, RepoFile};

use super::change::{Overlay, refuse, replace};
use super::checkout::make_tree;
use super::conffiles::{self, Pristine};
use super::kernel::{Kernels, Places};
use super::lock::open_locked;
use super::namespace::make_private;
use super::objects::{shown, write_directory, write_file, write_plain_directory};
use super::repository::{self, NEVER, commit_id, failed};
use super::staging::top_level;
use super::users::{self, Accounts};

/// Keys of the base commit's metadata that say something about that commit alone.
const NOT_INHERITED: &[&str] = &[
    "ostree.ref-binding",
    "ostree.collection-binding",
    "ostree.collection-refs.binding",
    "ostree.sizes",
];

/// Commits the staged change and checks the commit out.
pub(crate) fn commit(request: &CommitRequest) -> Result<CommittedTree, Failure> {
    let state = StateReader::default();
    let mounts = state.mounts()?;
    let booted = state.booted(&mounts)?;
    let running = state.running(&mounts, &booted)?;
    let database = state.database()?;
    make_private()?;
    let lock = open_locked(ErrorCode::CommitFailed)?;
    let repo = repository::open_to_write()?;
    let change = StagedChange {
        stage: Stage::of(request.transaction),
        deployment: booted.directory,
        lower_usr: running.usr,
        database,
    };
    let commit = change.write(&repo, request)?;
    let committed = make_tree(&repo, request.transaction, &request.base, &commit);
    drop(lock);
    committed
}

/// What is committed, and what it was laid over.
#[derive(Debug)]
pub(super) struct StagedChange {
    /// The staging area.
    pub(super) stage: Stage,
    /// The booted deployment, whose top level the private root had.
    pub(super) deployment: PathBuf,
    /// The running `/usr`, below `/sysroot`.
    pub(super) lower_usr: PathBuf,
    /// The dpkg database within `/usr`.
    pub(super) database: PathBuf,
}

impl StagedChange {
    /// Writes the commit and its ref, durably.
    pub(super) fn write(&self, repo: &Repo, request: &CommitRequest) -> Result<CommitId, Failure> {
        let error = |what: &str| {
            let what = what.to_owned();
            move |error: ostree::glib::Error| failed(ErrorCode::CommitFailed, &what, &error)
        };
        let transaction = repo
            .auto_transaction(NEVER)
            .map_err(error("a repository transaction cannot be begun"))?;
        let tree = MutableTree::from_commit(repo, request.base.as_str())
            .map_err(error("the running commit cannot be read"))?;
        self.lay(repo, &tree, request.transaction)?;
        let root = repo
            .write_mtree(&tree, NEVER)
            .map_err(error("the new tree cannot be written"))?
            .downcast::<RepoFile>()
            .map_err(|_| Failure::new(ErrorCode::Internal, "a new tree is no tree"))?;
        let (base, _) = repo
            .load_commit(request.base.as_str())
            .map_err(error("the running commit cannot be read"))?;
        // The base's own time: an image that is newer than the base must not look older than this.
        let commit = repo
            .write_commit_with_time(
                Some(request.base.as_str()),
                Some(&request.metadata.reason),
                None,
                Some(&metadata(&base, request.transaction, &request.metadata)?),
                &root,
                ostree::commit_get_timestamp(&base),
                NEVER,
            )
            .map_err(error("the commit cannot be written"))?;
        repo.transaction_set_ref(None, &paths::live_ref(request.transaction), Some(&commit));
        transaction.commit(NEVER).map_err(error("the commit cannot be stored"))?;
        commit_id(&commit)
    }

    fn lay(
        &self,
        repo: &Repo,
        tree: &MutableTree,
        transaction: TransactionId,
    ) -> Result<(), Failure> {
        let upper = self.stage.upper("usr");
        let places =
            Places { root: &self.stage.root(), lower_usr: &self.lower_usr, upper_usr: &upper };
        let kernels = places.find()?;
        let mut refused: Vec<(PathBuf, String)> = self
            .outside()?
            .into_iter()
            .filter(|path| !kernels.explains(path))
            .map(|path| (path, "outside /usr, /etc and /var".to_owned()))
            .collect();
        let mut overlay = Overlay::default();
        let usr = directory(repo, tree, "usr", None)?;
        overlay.lay(repo, &upper, &usr)?;
        refused.extend(
            overlay
                .unsupported
                .into_iter()
                .map(|(path, reason)| (Path::new("usr").join(path), reason.to_owned())),
        );
        if let Some(failure) = refuse(&refused, &upper.join(&self.database)) {
            return Err(failure);
        }
        self.lay_kernels(repo, &usr, &kernels)?;
        self.lay_conffiles(repo, &usr)?;
        self.lay_users(repo, &usr, transaction)
    }

    /// What stands in the private root that was not put there by us.
    fn outside(&self) -> Result<Vec<PathBuf>, Failure> {
        let unread = |error: std::io::Error| {
            Failure::caused(ErrorCode::CommitFailed, "the private root cannot be read", &error)
        };
        let known = top_level(&self.deployment).map_err(unread)?;
        let root = self.stage.root();
        let mut outside = Vec::new();
        for name in top_level(&root).map_err(unread)? {
            let path = root.join(&name);
            let status = fs::symlink_metadata(&path).map_err(unread)?;
            let expected = SKELETON_DIRECTORIES.iter().any(|known| name == Path::new(known));
            if !expected && !known.contains(&name) {
                outside.push(name);
            } else if status.is_dir() {
                let below = top_level(&path).map_err(unread)?;
                outside.extend(below.into_iter().map(|inner| name.join(inner)));
            } else if fs::read_link(&path).ok() != fs::read_link(self.deployment.join(&name)).ok() {
                outside.push(name);
            }
        }
        Ok(outside)
    }

    fn lay_kernels(
        &self,
        repo: &Repo,
        usr: &MutableTree,
        kernels: &Kernels,
    ) -> Result<(), Failure> {
        for (from, to) in &kernels.moved {
            let file = self.stage.root().join("boot").join(from);
            let status = fs::symlink_metadata(&file).map_err(|error| {
                Failure::caused(ErrorCode::CommitFailed, "a staged kernel cannot be read", &error)
            })?;
            let checksum = write_file(repo, &file, &status)?;
            self.put(repo, usr, to, &checksum)?;
        }
        kernels.removed.iter().try_for_each(|path| remove(usr, path))
    }

    fn lay_conffiles(&self, repo: &Repo, usr: &MutableTree) -> Result<(), Failure> {
        let unread = |error: std::io::Error| {
            Failure::caused(ErrorCode::CommitFailed, "the staged /etc cannot be read", &error)
        };
        let listed = |usr: &Path| -> Result<BTreeMap<PathBuf, String>, Failure> {
            let path = usr.join(&self.database).join("status");
            let text = fs::read(&path).map_err(|error| {
                let what = format!("the dpkg status {} cannot be read", shown(&path));
                Failure::caused(ErrorCode::CommitFailed, &what, &error)
            })?;
            Ok(conffiles::parse(&String::from_utf8_lossy(&text)))
        };
        let upper = self.stage.upper("usr");
        let old = listed(&self.lower_usr)?;
        let changed = upper.join(&self.database).join("status").exists();
        let new = if changed { listed(&upper)? } else { old.clone() };
        let etc = self.stage.upper("etc");
        for pristine in conffiles::find(&etc, &old, &new).map_err(unread)? {
            match pristine {
                Pristine::Put { from, to } => {
                    let file = etc.join(&from);
                    let status = fs::symlink_metadata(&file).map_err(unread)?;
                    let checksum = write_file(repo, &file, &status)?;
                    self.put(repo, usr, &Path::new("etc").join(to), &checksum)?;
                }
                Pristine::Remove { to } => remove(usr, &Path::new("etc").join(to))?,
            }
        }
        Ok(())
    }

    fn lay_users(
        &self,
        repo: &Repo,
        usr: &MutableTree,
        transaction: TransactionId,
    ) -> Result<(), Failure> {
        let snapshot = self.stage.etc_snapshot();
        let upper = self.stage.upper("etc");
        let text = |directory: &Path, name: &str| match fs::read(directory.join(name)) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let what = format!("the staged /etc/{name} cannot be read");
                Err(Failure::caused(ErrorCode::CommitFailed, &what, &error))
            }
        };
        let before = |name| Ok(text(&snapshot, name)?.unwrap_or_default());
        let after = |name| match text(&upper, name)? {
            Some(text) => Ok(text),
            None => before(name),
        };
        let old = Accounts::parse(&before("passwd")?, &before("group")?);
        let new = Accounts::parse(&after("passwd")?, &after("group")?);
        let Some(fragment) = users::fragment(&old, &new) else { return Ok(()) };
        let checksum = repo
            .write_regfile_inline(None, 0, 0, 0o100_644, None, fragment.as_bytes(), NEVER)
            .map_err(|error| {
                failed(ErrorCode::CommitFailed, "the users cannot be stored", &error)
            })?;
        let path = format!("lib/sysusers.d/apt-ostree-live-{transaction}.conf");
        self.put(repo, usr, Path::new(&path), &checksum)
    }

    /// Puts a file into the tree, with the directories above it.
    fn put(
        &self,
        repo: &Repo,
        usr: &MutableTree,
        path: &Path,
        checksum: &str,
    ) -> Result<(), Failure> {
        let mut tree = usr.clone();
        let mut below = PathBuf::new();
        for name in path.parent().into_iter().flat_map(Path::iter) {
            below.push(name);
            let like =
                below.strip_prefix("etc").ok().map(|below| self.stage.upper("etc").join(below));
            tree = directory(repo, &tree, utf8(name)?, like.as_deref())?;
        }
        let name = utf8(path.file_name().unwrap_or_default())?;
        replace(&tree, name, checksum).map_err(|error| {
            failed(ErrorCode::CommitFailed, &format!("{} cannot be stored", shown(path)), &error)
        })
    }
}

/// The subdirectory of that name; a new one gets the metadata of `like`, else root's plain ones.
fn directory(
    repo: &Repo,
    tree: &MutableTree,
    name: &str,
    like: Option<&Path>,
) -> Result<MutableTree, Failure> {
    if let Ok((_, Some(directory))) = tree.lookup(name) {
        return Ok(directory);
    }
    let metadata = match like.and_then(|path| Some((path, fs::symlink_metadata(path).ok()?))) {
        Some((path, status)) => write_directory(repo, path, &status)?,
        None => write_plain_directory(repo)?,
    };
    let directory = tree.ensure_dir(name).map_err(|error| {
        failed(ErrorCode::CommitFailed, &format!("the directory \"{name}\" cannot be made"), &error)
    })?;
    directory.set_metadata_checksum(&metadata);
    Ok(directory)
}

fn remove(usr: &MutableTree, path: &Path) -> Result<(), Failure> {
    let mut tree = usr.clone();
    for name in path.parent().into_iter().flat_map(Path::iter) {
        match tree.lookup(utf8(name)?) {
            Ok((_, Some(directory))) => tree = directory,
            // A directory that is not there holds nothing that could be removed.
            _ => return Ok(()),
        }
    }
    tree.remove(utf8(path.file_name().unwrap_or_default())?, true).map_err(|error| {
        failed(ErrorCode::CommitFailed, &format!("{} cannot be removed", shown(path)), &error)
    })
}

fn utf8(name: &std::ffi::OsStr) -> Result<&str, Failure> {
    name.to_str().ok_or_else(|| {
        let message = format!("the name {} is not UTF-8", shown(Path::new(name)));
        Failure::new(ErrorCode::UnsupportedPackage, message)
    })
}

/// What the base commit says of itself, and what this one adds.
fn metadata(
    base: &Variant,
    transaction: TransactionId,
    metadata: &TreeMetadata,
) -> Result<Variant, Failure> {
    let dictionary = VariantDict::new(Some(&base.child_value(0)));
    for key in NOT_INHERITED {
        dictionary.remove(key);
    }
    let changes = serde_json::to_string(&metadata.changes).map_err(|error| {
        Failure::caused(ErrorCode::Internal, "the package changes cannot be written", &error)
    })?;
    let inherited = dictionary.lookup::<String>("version").ok().flatten().unwrap_or_default();
    dictionary.insert("version", version(&inherited, transaction).as_str());
    dictionary.insert(metadata_key::PLAN, metadata.plan.as_str());
    dictionary.insert(metadata_key::CHANGES, changes.as_str());
    dictionary.insert(metadata_key::REASON, metadata.reason.as_str());
    dictionary.insert(metadata_key::TRANSACTION, transaction.0);
    Ok(dictionary.end())
}

/// The image's version with the number of the last live update.
fn version(inherited: &str, transaction: TransactionId) -> String {
    let image = inherited.split("live.").next().unwrap_or_default().trim_end_matches('+');
    let mark = format!("live.{transaction}");
    if image.is_empty() { mark } else { format!("{image}+{mark}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_names_the_image_and_the_last_live_update() {
        for (inherited, expected) in [
            ("", "live.7"),
            ("live.3", "live.7"),
            ("12.9", "12.9+live.7"),
            ("12.9+live.3", "12.9+live.7"),
        ] {
            assert_eq!(version(inherited, TransactionId(7)), expected);
        }
    }
}
