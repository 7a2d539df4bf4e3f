use std::path::Path;

use apt_ostree_proto::Sha256;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::PortResult;
use crate::context::StepContext;

/// Package files on the disk.
#[async_trait(?Send)]
pub trait Archive: std::fmt::Debug {
    /// Reads a package file whole: its digest and size, its control fields, and the names and types
    /// of its members. `VerificationFailed` when it is no Debian package, or is cut short.
    async fn inspect(&self, path: &Path, context: &StepContext) -> PortResult<ArchiveContents>;
}

/// What a package file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveContents {
    /// The file's digest.
    pub sha256: Sha256,
    /// The file's size.
    pub size_bytes: u64,
    /// `Package:` of its control file, as it stands there.
    pub package: String,
    /// `Version:`
    pub version: String,
    /// `Architecture:`
    pub architecture: String,
    /// Members that no package may have: paths that leave the root, paths through a symbolic link
    /// of the same package to outside, device nodes, sockets, set-id files that the policy forbids;
    /// each with the reason. At most the first twenty.
    pub forbidden: Vec<String>,
}
