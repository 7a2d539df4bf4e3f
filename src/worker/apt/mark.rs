//! Marking what a selection means, and what is refused of it.

use std::collections::{HashMap, HashSet};

use apt_ostree_proto::package::PackageSpec;
use apt_ostree_proto::plan::Refusal;
use apt_ostree_proto::request::Selection;
use apt_ostree_proto::{ErrorCode, Failure};
use rust_apt::{Cache, Package, PkgSelectedState, Version};

use super::cache::label;
use super::find;

/// This program's own package: a live update cannot take away what performs it.
const OWN_PACKAGE: &str = "apt-ostree";

/// What is wanted of single packages, before anything is resolved. Packages are told apart by their
/// place in the cache.
pub(super) struct Wanted<'a> {
    /// The version that each requested package shall have.
    pub(super) versions: HashMap<usize, Version<'a>>,
    /// Those whose version was named, and may therefore be an older one.
    pub(super) exact: HashSet<usize>,
    /// Those that shall go.
    pub(super) removals: HashMap<usize, Package<'a>>,
    /// What is not done, and why.
    pub(super) refused: Vec<Refusal>,
}

impl<'a> Wanted<'a> {
    /// Looks every name of the selection up. Marks nothing.
    pub(super) fn find(cache: &'a Cache, selection: &Selection) -> Result<Self, Failure> {
        let mut wanted = Self {
            versions: HashMap::new(),
            exact: HashSet::new(),
            removals: HashMap::new(),
            refused: Vec::new(),
        };
        for spec in &selection.remove {
            wanted.remove(cache, spec)?;
        }
        for spec in &selection.upgrade {
            let package = find::package(cache, spec)?;
            if !package.is_installed() {
                return Err(Failure::new(
                    ErrorCode::InvalidArgument,
                    format!("\"{}\" is not installed, so it cannot be upgraded", label(&package)),
                )
                .with_hint(format!("Install it with --install={spec}.")));
            }
            wanted.change(&package, spec)?;
        }
        for spec in &selection.install {
            wanted.change(&find::package(cache, spec)?, spec)?;
        }
        Ok(wanted)
    }

    fn remove(&mut self, cache: &'a Cache, spec: &PackageSpec) -> Result<(), Failure> {
        let package = find::package(cache, spec)?;
        let name = label(&package);
        let Some(installed) = package.installed() else {
            self.refuse(name, "it is not installed");
            return Ok(());
        };
        if let Some(version) = &spec.version
            && version.as_str() != installed.version()
        {
            self.refuse(name, format!("version {} is installed", installed.version()));
            return Ok(());
        }
        if let Some(reason) = cannot_go(&package) {
            return Err(Failure::new(
                ErrorCode::InvalidArgument,
                format!("\"{name}\" cannot be removed from a running host: {reason}"),
            ));
        }
        if package.selected_state() == PkgSelectedState::Hold {
            self.refuse(name, "it is held");
            return Ok(());
        }
        self.removals.insert(package.index(), package);
        Ok(())
    }

    fn change(&mut self, package: &Package<'a>, spec: &PackageSpec) -> Result<(), Failure> {
        let name = label(package);
        if self.removals.contains_key(&package.index()) {
            return Err(Failure::new(
                ErrorCode::InvalidArgument,
                format!("\"{name}\" shall be changed and removed at once"),
            ));
        }
        let named = find::version(package, spec)?;
        let is_exact = named.is_some();
        let Some(version) = named.or_else(|| package.candidate()) else {
            return Err(no_candidate(package));
        };
        let installed = package.installed();
        if installed.as_ref().is_some_and(|old| old.version() == version.version()) {
            if let Some(reason) = pinned(package) {
                self.refuse(name, reason);
            }
            return Ok(());
        }
        if installed.is_some() && package.selected_state() == PkgSelectedState::Hold {
            self.refuse(name, "it is held");
            return Ok(());
        }
        if let Some(old) = &installed
            && version < *old
            && !is_exact
        {
            self.refuse(name, downgrade_reason(old, &version));
            return Ok(());
        }
        if let Some(earlier) = self.versions.get(&package.index())
            && earlier.version() != version.version()
        {
            return Err(Failure::new(
                ErrorCode::InvalidArgument,
                format!("\"{name}\" is asked for in two versions"),
            ));
        }
        if is_exact {
            self.exact.insert(package.index());
        }
        self.versions.insert(package.index(), version);
        Ok(())
    }

    pub(super) fn refuse(&mut self, subject: impl Into<String>, reason: impl Into<String>) {
        self.refused.push(Refusal { subject: subject.into(), reason: reason.into() });
    }

    /// Whether nothing of the selection is left to do.
    pub(super) fn is_empty(&self) -> bool {
        self.versions.is_empty() && self.removals.is_empty()
    }
}

/// Why a package has to stay, if it has to: Debian Policy 3.8, deb-control(5) on `Protected`.
pub(super) fn cannot_go(package: &Package<'_>) -> Option<String> {
    if package.name() == OWN_PACKAGE {
        return Some("it performs the update".to_owned());
    }
    if package.is_essential() {
        return Some("it is essential".to_owned());
    }
    let installed = package.installed()?;
    let is_protected = ["Protected", "Important"]
        .iter()
        .any(|field| installed.get_record(*field).is_some_and(|value| value.trim() == "yes"));
    is_protected.then(|| "it is protected".to_owned())
}

/// What keeps an installed package from a newer version that a repository has: a pin.
pub(super) fn pinned(package: &Package<'_>) -> Option<String> {
    let installed = package.installed()?;
    let newer = package.versions().find(|version| *version > installed)?;
    // Without the repositories' own priorities, what is left is an explicit pin.
    let (on_old, on_new) = (installed.priority_with_files(false), newer.priority_with_files(false));
    if on_old != 0 {
        return Some(format!("it is pinned to {} (priority {on_old})", installed.version()));
    }
    (on_new != 0).then(|| format!("{} is pinned away (priority {on_new})", newer.version()))
}

/// Why a candidate that is older than what is installed is not taken.
pub(super) fn downgrade_reason(old: &Version<'_>, candidate: &Version<'_>) -> String {
    format!(
        "it is pinned to {}, older than the installed {}; a downgrade must be asked for with \
         --install={}={}",
        candidate.version(),
        old.version(),
        candidate.parent().name(),
        candidate.version()
    )
}

fn no_candidate(package: &Package<'_>) -> Failure {
    let name = label(package);
    let failure = Failure::new(
        ErrorCode::NotFound,
        format!("no repository offers \"{name}\" for installation"),
    );
    match package.versions().next() {
        Some(version) if version.is_downloadable() => failure.with_hint(format!(
            "Version {} is pinned away (priority {}): see /etc/apt/preferences.d.",
            version.version(),
            version.priority()
        )),
        _ => failure,
    }
}
