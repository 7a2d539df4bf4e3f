//! Why packages cannot be installed together, told by their own relations: libapt says only that it
//! "produced breaks".

use std::collections::{HashMap, HashSet};

use rust_apt::{Cache, DepType, Dependency, Package, PkgSelectedState, Version};

use super::cache::label;

/// How deep a chain of dependencies is followed: an explanation through more packages helps nobody.
const DEEPEST: usize = 8;
/// How many clashes are told.
const MOST_CLASHES: usize = 8;
/// How many packages are looked at before the search gives up.
const MOST_VISITS: usize = 500;

/// A search for relations that cannot hold.
pub(super) struct Clashes<'a, 'cache> {
    /// The version that a package would have, where it is not its candidate.
    wanted: &'a HashMap<usize, Version<'cache>>,
    /// Packages that shall go.
    removed: HashSet<usize>,
    visited: HashSet<(usize, String)>,
    found: Vec<String>,
}

impl<'a, 'cache> Clashes<'a, 'cache> {
    pub(super) fn new(
        wanted: &'a HashMap<usize, Version<'cache>>,
        removed: impl IntoIterator<Item = usize>,
    ) -> Self {
        let removed = removed.into_iter().collect();
        Self { wanted, removed, visited: HashSet::new(), found: Vec::new() }
    }

    /// The clashes of everything that is wanted, each a sentence without its full stop.
    pub(super) fn of_all(mut self) -> Vec<String> {
        let mut versions: Vec<&Version<'_>> = self.wanted.values().collect();
        versions.sort_by_key(|version| label(&version.parent()));
        for version in versions {
            self.visit(version, 0);
        }
        self.found
    }

    fn visit(&mut self, version: &Version<'_>, depth: usize) {
        let package = version.parent();
        let key = (package.index(), version.version().to_owned());
        if depth > DEEPEST
            || self.found.len() >= MOST_CLASHES
            || self.visited.len() >= MOST_VISITS
            || !self.visited.insert(key)
        {
            return;
        }
        for dependency in version.dependencies().unwrap_or_default() {
            self.needed(version, dependency, depth);
        }
        for kind in [DepType::Conflicts, DepType::DpkgBreaks] {
            for dependency in version.get_depends(&kind).into_iter().flatten() {
                self.excluded(version, dependency, depth);
            }
        }
        self.left_behind(version, depth);
    }

    /// A dependency of a version: satisfied, satisfiable by another change, or a clash.
    fn needed(&mut self, version: &Version<'_>, dependency: &Dependency<'_>, depth: usize) {
        let mut options = Vec::new();
        for alternative in dependency.iter() {
            for target in alternative.all_targets() {
                if self.would_be_there(&target) {
                    if target.is_installed() {
                        return;
                    }
                    options.push((target.parent().name().to_owned(), target.clone()));
                }
            }
        }
        if let Some((_, target)) = options.first() {
            self.visit(target, depth + 1);
            return;
        }
        let reasons: Vec<String> = dependency
            .iter()
            .map(|alternative| self.absence(alternative.target_package()))
            .collect();
        self.tell(format!(
            "\"{}\" {} needs {}, but {}",
            label(&version.parent()),
            version.version(),
            relation(dependency),
            reasons.join(", and ")
        ));
    }

    /// A version that `version` conflicts with or breaks.
    fn excluded(&mut self, version: &Version<'_>, dependency: &Dependency<'_>, depth: usize) {
        for alternative in dependency.iter() {
            for target in alternative.all_targets() {
                let other = target.parent();
                if other.index() == version.parent().index() || !self.would_be_there(&target) {
                    continue;
                }
                // An installed package that has a newer candidate may step out of the way.
                if target.is_installed()
                    && let Some(newer) = replacement(&other)
                    && newer.version() != target.version()
                {
                    self.visit(&newer, depth + 1);
                    continue;
                }
                let verb = match dependency.dep_type() {
                    DepType::DpkgBreaks => "breaks",
                    _ => "conflicts with",
                };
                let state = if target.is_installed() { "is installed" } else { "is needed too" };
                self.tell(format!(
                    "\"{}\" {} {verb} {}, and \"{}\" {} {state}",
                    label(&version.parent()),
                    version.version(),
                    relation(dependency),
                    label(&other),
                    target.version(),
                ));
            }
        }
    }

    /// Installed packages that need the version which `version` replaces, or that break it.
    fn left_behind(&mut self, version: &Version<'_>, depth: usize) {
        let package = version.parent();
        let mut dependents: Vec<Package<'_>> = Vec::new();
        for dependency in package.rdepends().values().flatten() {
            if !matches!(
                dependency.dep_type(),
                DepType::Depends | DepType::PreDepends | DepType::Conflicts | DepType::DpkgBreaks
            ) {
                continue;
            }
            let dependent = dependency.first().target_package();
            if dependent.is_installed()
                && !self.removed.contains(&dependent.index())
                && dependent.index() != package.index()
                && !dependents.contains(dependent)
            {
                dependents.push(dependent.clone());
            }
        }
        for dependent in dependents {
            let Some(installed) = dependent.installed() else { continue };
            if let Some(broken) = self.broken_by(&installed, version) {
                match replacement(&dependent) {
                    Some(newer) if newer.version() != installed.version() => {
                        self.visit(&newer, depth + 1);
                    }
                    _ => self.tell(format!(
                        "\"{}\" {}, which is installed, {broken}, but \"{}\" would become {}",
                        label(&dependent),
                        installed.version(),
                        label(&package),
                        version.version(),
                    )),
                }
            }
        }
    }

    /// What relation of an installed version does not hold once `version` is there.
    fn broken_by(&self, installed: &Version<'_>, version: &Version<'_>) -> Option<String> {
        let package = version.parent().index();
        let names = |dependency: &Dependency<'_>| {
            dependency.iter().any(|base| base.target_package().index() == package)
        };
        for dependency in installed.dependencies().unwrap_or_default() {
            let satisfied = || {
                let mut bases = dependency.iter();
                bases.any(|base| base.all_targets().iter().any(|t| self.would_be_there(t)))
            };
            if names(dependency) && !satisfied() {
                return Some(format!("needs {}", relation(dependency)));
            }
        }
        for kind in [DepType::Conflicts, DepType::DpkgBreaks] {
            for dependency in installed.get_depends(&kind).into_iter().flatten() {
                let hits = dependency
                    .iter()
                    .flat_map(|base| {
                        base.all_targets()
                            .into_iter()
                            .map(|t| {
                                t.parent().index() == package && t.version() == version.version()
                            })
                            .collect::<Vec<_>>()
                    })
                    .any(|hit| hit);
                if hits {
                    return Some(format!("excludes {}", relation(dependency)));
                }
            }
        }
        None
    }

    /// Whether a version would be on the host: asked for, or the candidate, or installed and not to
    /// be replaced by something that was asked for.
    fn would_be_there(&self, version: &Version<'_>) -> bool {
        let package = version.parent();
        if self.removed.contains(&package.index()) {
            return false;
        }
        if let Some(wanted) = self.wanted.get(&package.index()) {
            return wanted.version() == version.version();
        }
        let is_candidate =
            || replacement(&package).is_some_and(|other| other.version() == version.version());
        version.is_installed() || is_candidate()
    }

    /// Why a package does not satisfy a dependency.
    fn absence(&self, package: &Package<'_>) -> String {
        let name = label(package);
        if self.removed.contains(&package.index()) {
            return format!("\"{name}\" shall be removed");
        }
        if let Some(wanted) = self.wanted.get(&package.index()) {
            return format!("\"{name}\" would become {}", wanted.version());
        }
        match (package.installed(), package.candidate()) {
            (Some(installed), _) if package.selected_state() == PkgSelectedState::Hold => {
                format!("\"{name}\" is held at {}", installed.version())
            }
            (Some(installed), Some(candidate)) if installed.version() != candidate.version() => {
                format!("\"{name}\" can only become {}", candidate.version())
            }
            (Some(installed), _) => match super::mark::pinned(package) {
                Some(reason) => format!("\"{name}\": {reason}"),
                None => format!("\"{name}\" is at {}, the newest", installed.version()),
            },
            (None, Some(candidate)) => {
                format!("the repositories have \"{name}\" {} only", candidate.version())
            }
            (None, None) if package.has_versions() => format!("\"{name}\" is pinned away"),
            (None, None) => format!("no repository has \"{name}\""),
        }
    }

    fn tell(&mut self, sentence: String) {
        if self.found.len() < MOST_CLASHES && !self.found.contains(&sentence) {
            self.found.push(sentence);
        }
    }
}

/// Relations that do not hold among the packages as they are marked.
pub(super) fn broken(cache: &Cache) -> Vec<String> {
    let mut found = Vec::new();
    for package in cache.iter().filter(Package::is_inst_broken) {
        let Some(version) = package.install_version() else { continue };
        let depcache = cache.depcache();
        let kinds =
            [DepType::PreDepends, DepType::Depends, DepType::Conflicts, DepType::DpkgBreaks];
        let mut relations = Vec::new();
        for dependency in kinds.iter().filter_map(|kind| version.get_depends(kind)).flatten() {
            // The state of an or-group is that of its last member.
            let holds = dependency
                .last()
                .is_none_or(|base| depcache.dep_state(base) & rust_apt::DepFlags::DepGInstall != 0);
            if !holds {
                let verb = match dependency.dep_type() {
                    DepType::Conflicts => "conflicts with",
                    DepType::DpkgBreaks => "breaks",
                    _ => "needs",
                };
                relations.push(format!("{verb} {}", relation(dependency)));
            }
        }
        if !relations.is_empty() && found.len() < MOST_CLASHES {
            found.push(format!(
                "\"{}\" {} {}",
                label(&package),
                version.version(),
                relations.join(", ")
            ));
        }
    }
    found.sort();
    found
}

/// A relation as it stands in a control file.
fn relation(dependency: &Dependency<'_>) -> String {
    let alternatives: Vec<String> = dependency
        .iter()
        .map(|base| match (base.comp_type(), base.version()) {
            (Some(operator), Some(version)) => {
                // libapt keeps the strict operators in their short form.
                let operator = match operator {
                    "<" => "<<",
                    ">" => ">>",
                    other => other,
                };
                format!("{} ({operator} {version})", base.name())
            }
            _ => base.name().to_owned(),
        })
        .collect();
    alternatives.join(" | ")
}

/// The version that a package may be changed to.
fn replacement<'a>(package: &Package<'a>) -> Option<Version<'a>> {
    if package.selected_state() == PkgSelectedState::Hold {
        return package.installed();
    }
    package.candidate()
}
