//! What the tasks of libapt are called and what they are asked.

use std::path::PathBuf;

use apt_ostree_actors::port::InstallTest;
use apt_ostree_proto::PackageName;
use apt_ostree_proto::package::PackageChange;
use apt_ostree_proto::request::Selection;
use serde::{Deserialize, Serialize};

/// `apt update`. Asked nothing (`()`), answers nothing.
pub const REFRESH: &str = "refresh";
/// Decides what a selection means: [`ResolveRequest`] to
/// [`Resolution`](apt_ostree_actors::port::Resolution).
pub const RESOLVE: &str = "resolve";
/// Fetches one package file through apt's own methods: [`FetchRequest`], answers nothing.
pub const FETCH: &str = "fetch";
/// Installs packages in the root that the worker runs in: [`InstallRequest`], answers nothing.
pub const INSTALL: &str = "install";
/// Runs tests in the root that the worker runs in: [`TestRequest`], answers nothing.
pub const TEST: &str = "test";
/// Dumps apt's settings for transfers: [`TransportRequest`](super::transport::TransportRequest) to
/// [`Transport`](super::transport::Transport).
pub const TRANSPORT: &str = "transport";

/// What [`RESOLVE`] is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResolveRequest {
    /// Which packages to change.
    pub selection: Selection,
    /// Installed packages that stay as they are.
    pub kept: Vec<PackageName>,
}

/// What [`FETCH`] is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FetchRequest {
    /// The package whose new version is fetched.
    pub change: PackageChange,
}

/// What [`INSTALL`] is asked. Exactly these packages change, or the task fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstallRequest {
    /// The packages, with the versions that the plan names.
    pub changes: Vec<PackageChange>,
    /// The directory that holds their files under the names of apt's cache; apt's own when absent.
    pub archives: Option<PathBuf>,
    /// The directories in which dpkg and the scripts look for programs, first those of the shims.
    pub path: String,
}

/// What [`TEST`] is asked. Tests of which no package is installed are passed over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TestRequest {
    /// The tests, in their order; the first that fails is the last.
    pub tests: Vec<InstallTest>,
}
