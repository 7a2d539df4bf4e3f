//! What commits occupy in the repository: each object counts once, for the first that has it.

use std::collections::HashSet;

use apt_ostree_proto::{CommitId, ErrorCode, Failure};
use ostree::glib::{self, Variant};
use ostree::{ObjectType, Repo};

use super::compare::hex;
use super::repository::{NEVER, failed};

/// A SHA-256 in its bytes: a tree has some hundred thousand.
type Checksum = [u8; 32];

/// Objects that were met already.
pub(super) struct Objects<'repo> {
    repo: &'repo Repo,
    met: HashSet<Checksum>,
    commits: HashSet<CommitId>,
}

impl<'repo> Objects<'repo> {
    pub(super) fn of(repo: &'repo Repo) -> Self {
        Self { repo, met: HashSet::new(), commits: HashSet::new() }
    }

    /// The bytes of the commit's objects that were not met before; from now on they were.
    pub(super) fn add(&mut self, commit: &CommitId) -> Result<u64, Failure> {
        self.add_commit(commit).map_err(|error| {
            let what = format!("the size of commit {} cannot be measured", commit.short());
            failed(ErrorCode::Internal, &what, &error)
        })
    }

    fn add_commit(&mut self, commit: &CommitId) -> Result<u64, glib::Error> {
        if self.commits.contains(commit) {
            return Ok(0);
        }
        let (variant, _) = self.repo.load_commit(commit.as_str())?;
        self.commits.insert(commit.clone());
        let own =
            self.repo.query_object_storage_size(ObjectType::Commit, commit.as_str(), NEVER)?;
        // The commit format: (a{sv}aya(say)sstayay); the last two are the root's contents and metadata.
        let contents = variant.child_value(6);
        let metadata = variant.child_value(7);
        Ok(own + self.one(ObjectType::DirMeta, &metadata)? + self.directory(&contents)?)
    }

    /// A directory that was met is not looked into: what is below was met too.
    fn directory(&mut self, checksum: &Variant) -> Result<u64, glib::Error> {
        if !self.is_new(checksum) {
            return Ok(0);
        }
        let name = hex(checksum.data());
        let tree = self.repo.load_variant(ObjectType::DirTree, &name)?;
        let mut bytes = self.repo.query_object_storage_size(ObjectType::DirTree, &name, NEVER)?;
        // The dirtree format: (a(say)a(sayay)).
        for file in tree.child_value(0).iter() {
            bytes += self.one(ObjectType::File, &file.child_value(1))?;
        }
        for directory in tree.child_value(1).iter() {
            bytes += self.one(ObjectType::DirMeta, &directory.child_value(2))?;
            bytes += self.directory(&directory.child_value(1))?;
        }
        Ok(bytes)
    }

    fn one(&mut self, kind: ObjectType, checksum: &Variant) -> Result<u64, glib::Error> {
        if self.is_new(checksum) {
            self.repo.query_object_storage_size(kind, &hex(checksum.data()), NEVER)
        } else {
            Ok(0)
        }
    }

    fn is_new(&mut self, checksum: &Variant) -> bool {
        // Anything but 32 bytes is no checksum: whoever loads the object says so.
        Checksum::try_from(checksum.data()).map_or(true, |checksum| self.met.insert(checksum))
    }
}

#[cfg(test)]
mod tests {
    use ostree::gio::File;
    use ostree::{MutableTree, RepoMode};

    use super::*;
    use crate::ostree::objects::write_plain_directory;
    use crate::ostree::repository::commit_id;

    /// Commits a tree with these files in `/a`.
    fn commit(repo: &Repo, files: &[(&str, usize)]) -> CommitId {
        use ostree::gio::prelude::*;
        let transaction = repo.auto_transaction(NEVER).unwrap();
        let metadata = write_plain_directory(repo).unwrap();
        let tree = MutableTree::new();
        tree.set_metadata_checksum(&metadata);
        let below = tree.ensure_dir("a").unwrap();
        below.set_metadata_checksum(&metadata);
        for (name, length) in files {
            let bytes = vec![b'x'; *length];
            let sum = repo.write_regfile_inline(None, 0, 0, 0o100_644, None, &bytes, NEVER);
            below.replace_file(name, &sum.unwrap()).unwrap();
        }
        let root = repo.write_mtree(&tree, NEVER).unwrap().downcast::<ostree::RepoFile>().unwrap();
        let commit = repo.write_commit(None, None, None, None, &root, NEVER).unwrap();
        transaction.commit(NEVER).unwrap();
        commit_id(&commit).unwrap()
    }

    #[test]
    fn each_object_counts_once_for_the_first_commit_that_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let repo = Repo::new(&File::for_path(directory.path()));
        repo.create(RepoMode::BareUserOnly, NEVER).unwrap();
        let one = commit(&repo, &[("shared", 100_000), ("old", 10_000)]);
        let two = commit(&repo, &[("shared", 100_000), ("new", 20_000), ("again", 20_000)]);

        let mut objects = Objects::of(&repo);
        let first = objects.add(&one).unwrap();
        assert!((110_000..111_000).contains(&first), "{first}");
        let second = objects.add(&two).unwrap();
        assert!((20_000..21_000).contains(&second), "{second}");
        assert_eq!(objects.add(&one).unwrap() + objects.add(&two).unwrap(), 0);

        let absent = CommitId::parse("a".repeat(64)).unwrap();
        assert!(objects.add(&absent).unwrap_err().message.contains(absent.short()));
    }
}
