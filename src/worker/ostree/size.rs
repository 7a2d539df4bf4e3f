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
}

impl<'repo> Objects<'repo> {
    pub(super) fn of(repo: &'repo Repo) -> Self {
        Self { repo, met: HashSet::new() }
    }

    /// The bytes of the commit's objects that were not met before; from now on they were.
    pub(super) fn add(&mut self, commit: &CommitId) -> Result<u64, Failure> {
        self.add_commit(commit).map_err(|error| {
            let what = format!("the size of commit {} cannot be measured", commit.short());
            failed(ErrorCode::Internal, &what, &error)
        })
    }

    fn add_commit(&mut self, commit: &CommitId) -> Result<u64, glib::Error> {
        let (variant, _) = self.repo.load_commit(commit.as_str())?;
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
