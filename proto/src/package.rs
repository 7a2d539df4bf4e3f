//! What changes between two sets of installed packages.

use serde::{Deserialize, Serialize};

use crate::id::{Architecture, PackageName, Sha256, Version};

/// A package as a caller names it: `name`, `name:architecture`, `name=version`, or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageSpec {
    /// The package's name.
    pub name: PackageName,
    /// The architecture asked for; the host's own when absent.
    pub architecture: Option<Architecture>,
    /// The exact version asked for; the candidate when absent.
    pub version: Option<Version>,
}

impl PackageSpec {
    /// Reads `name[:architecture][=version]`.
    pub fn parse(text: &str) -> Result<Self, crate::id::InvalidName> {
        let (head, version) = match text.split_once('=') {
            Some((head, version)) => (head, Some(Version::parse(version)?)),
            None => (text, None),
        };
        let (name, architecture) = match head.split_once(':') {
            Some((name, architecture)) => (name, Some(Architecture::parse(architecture)?)),
            None => (head, None),
        };
        Ok(Self { name: PackageName::parse(name)?, architecture, version })
    }
}

impl std::fmt::Display for PackageSpec {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.name.fmt(formatter)?;
        if let Some(architecture) = &self.architecture {
            write!(formatter, ":{architecture}")?;
        }
        if let Some(version) = &self.version {
            write!(formatter, "={version}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for PackageSpec {
    type Error = crate::id::InvalidName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<PackageSpec> for String {
    fn from(spec: PackageSpec) -> Self {
        spec.to_string()
    }
}

/// What happens to one package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It was not there and comes.
    Install,
    /// A newer version replaces an older one.
    Upgrade,
    /// An older version replaces a newer one.
    Downgrade,
    /// The same version is unpacked again.
    Reinstall,
    /// It goes; its configuration files stay, as with `apt remove`.
    Remove,
}

/// Where a version comes from, as its repository's signed Release file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// `Origin:`, such as `Debian`.
    pub origin: String,
    /// `Label:`, such as `Debian-Security`.
    pub label: String,
    /// `Codename:`, such as `bookworm-security`.
    pub codename: String,
    /// `Component:`, such as `main`.
    pub component: String,
    /// The host that serves it; empty for local files.
    pub site: String,
    /// Whether apt's own chain of signatures covers it.
    pub trusted: bool,
}

/// When a package's change can take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateClass {
    /// Now, on the running host.
    Live,
    /// Only when the host boots again.
    NextBoot,
}

/// The file that a new version is unpacked from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageFile {
    /// Where it can be fetched, best first; apt's own URIs.
    pub uris: Vec<String>,
    /// Its name in apt's archive cache.
    pub cache_name: String,
    /// Its digest in the signed index.
    pub sha256: Sha256,
    /// Its size in the signed index.
    pub size_bytes: u64,
}

/// One package's part in a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageChange {
    /// The package.
    pub name: PackageName,
    /// Its architecture.
    pub architecture: Architecture,
    /// What happens to it.
    pub action: Action,
    /// The version that is installed now.
    pub old_version: Option<Version>,
    /// The version that will be installed.
    pub new_version: Option<Version>,
    /// The source package; equal to the name for most.
    pub source: String,
    /// Whether it comes only because another one needs it.
    pub automatic: bool,
    /// Where the new version comes from; of the old one for a removal.
    pub origin: Origin,
    /// By how much the installed size grows, in bytes.
    pub installed_growth_bytes: i64,
    /// When it can take effect, and why not now.
    pub class: UpdateClass,
    /// The reason for any class but live.
    pub class_reason: Option<String>,
    /// The file to fetch; none for a removal.
    pub file: Option<PackageFile>,
}

impl PackageChange {
    /// Whether its version is of one architecture, and not for all of them.
    pub fn is_of_architecture(&self) -> bool {
        self.architecture.as_str() != "all"
    }

    /// Why it takes effect only with the next boot.
    pub fn next_boot_reason(&self) -> &str {
        self.class_reason.as_deref().unwrap_or("it takes effect at the next boot")
    }
}
