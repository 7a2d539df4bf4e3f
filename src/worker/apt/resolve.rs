//! Which versions of which packages a selection means.

use std::collections::{HashMap, HashSet};

use apt_ostree::host::worker::tasks::ResolveRequest;
use apt_ostree_actors::port::Resolution;
use apt_ostree_proto::package::PackageChange;
use apt_ostree_proto::plan::Refusal;
use apt_ostree_proto::{ErrorCode, Failure, PackageName};
use rust_apt::cache::Upgrade;
use rust_apt::config::Config;
use rust_apt::error::AptErrors;
use rust_apt::{Cache, Package, PkgSelectedState, Version};

use super::cache::{self, label};
use super::clash::{self, Clashes};
use super::mark::{Wanted, cannot_go, downgrade_reason, pinned};
use super::{change, inputs};
use crate::output::Output;

/// apt's hooks around dpkg, which the sandbox does not run: apt.conf(5).
const HOOKS: &[&str] = &["DPkg::Pre-Invoke", "DPkg::Post-Invoke", "DPkg::Pre-Install-Pkgs"];

/// Decides what a selection means; changes nothing.
pub(crate) fn resolve(request: ResolveRequest, output: &Output) -> Result<Resolution, Failure> {
    let config = Config::new();
    let selection = request.selection;
    let inputs = inputs::digest(&config, &selection)?;
    let cache = cache::open(&config)?;
    keep(&cache, &request.kept);
    let is_whole = selection.is_whole_upgrade();
    let mut wanted = Wanted::find(&cache, &selection)?;
    if cache.depcache().broken_count() > 0 {
        return Err(Failure::new(
            ErrorCode::Unsatisfiable,
            format!("the installed packages do not fit: {}", clash::broken(&cache).join("; ")),
        )
        .with_hint("Mend the image: its packages must be installed completely."));
    }
    let mut refused = std::mem::take(&mut wanted.refused);
    let mut left = Vec::new();
    if is_whole {
        refuse_downgrades(&cache, &mut refused);
        let offered = upgradable(&cache, &mut refused);
        cache.upgrade(Upgrade::Upgrade).map_err(|errors| {
            cache::failure(ErrorCode::Unsatisfiable, "the upgrade cannot be worked out", &errors)
        })?;
        left.extend(offered.into_iter().filter(|version| !version.parent().marked_upgrade()));
    } else if !wanted.is_empty() {
        mark(&cache, &wanted)?;
    }
    check(&cache, &wanted)?;
    let mut changes = Vec::new();
    for package in cache.get_changes(true) {
        changes.push(change::describe(&package)?);
    }
    warn_of_foreign_releases(&changes, output);
    refused.extend(kept_back(&cache, left)?);
    changes.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
    refused.sort_by(|a, b| (&a.subject, &a.reason).cmp(&(&b.subject, &b.reason)));
    refused.dedup();
    Ok(Resolution { changes, refused, inputs: Some(inputs), hooks_not_run: hooks(&config) })
}

/// Makes the installed versions of the packages their candidates, so that nothing offers others.
fn keep(cache: &Cache, names: &[PackageName]) {
    let kept = cache.iter().filter(|p| names.iter().any(|name| name.as_str() == p.name()));
    for installed in kept.filter_map(|package| package.installed()) {
        installed.set_candidate();
    }
}

/// Marks single packages and what they then need.
fn mark(cache: &Cache, wanted: &Wanted<'_>) -> Result<(), Failure> {
    let automatic: HashSet<usize> = wanted
        .versions
        .values()
        .map(Version::parent)
        .filter(Package::is_auto_installed)
        .map(|package| package.index())
        .collect();
    for version in wanted.versions.values() {
        version.set_candidate();
    }
    for package in wanted.removals.values() {
        package.protect();
        package.mark_delete(false);
    }
    // Twice: the first round marks what was asked for, so that the second finds the dependencies
    // among it satisfied and does not choose others.
    for with_dependencies in [false, true] {
        for version in wanted.versions.values() {
            let package = version.parent();
            package.protect();
            package.mark_install(with_dependencies, true);
            if package.is_installed() {
                package.mark_auto(automatic.contains(&package.index()));
            }
        }
    }
    if cache.depcache().broken_count() == 0 {
        return Ok(());
    }
    let before = clash::broken(cache);
    let resolved = cache.resolve(true);
    if resolved.is_ok() && cache.depcache().broken_count() == 0 {
        return Ok(());
    }
    // The marks tell less than the relations do, but something at least where these are silent.
    let clashes = clashes(cache, wanted)?;
    Err(unsatisfiable(if clashes.is_empty() { before } else { clashes }, resolved.err().as_ref()))
}

/// Checks that libapt did what was asked for, and nothing that was not.
fn check(cache: &Cache, wanted: &Wanted<'_>) -> Result<(), Failure> {
    if cache.depcache().broken_count() > 0 {
        return Err(unsatisfiable(clash::broken(cache), None));
    }
    let mut missing = HashMap::new();
    for (index, version) in &wanted.versions {
        let planned = version.parent().install_version();
        if planned.is_none_or(|planned| planned.version() != version.version()) {
            missing.insert(*index, version.clone());
        }
    }
    let stays = wanted.removals.values().any(|package| !package.marked_delete());
    if !missing.is_empty() || stays {
        return Err(unsatisfiable(clashes(cache, wanted)?, None));
    }
    for package in cache.get_changes(true) {
        let name = label(&package);
        if package.marked_delete() {
            check_removal(cache, &package, wanted)?;
        } else if package.marked_downgrade() && !wanted.exact.contains(&package.index()) {
            return Err(Failure::new(
                ErrorCode::Unsatisfiable,
                format!("\"{name}\" would have to be downgraded"),
            )
            .with_hint(format!("Ask for the version: --install={name}=VERSION.")));
        }
    }
    Ok(())
}

/// A removal is asked for, or follows from one that is: the package needs something that goes.
fn check_removal(cache: &Cache, package: &Package<'_>, wanted: &Wanted<'_>) -> Result<(), Failure> {
    let name = label(package);
    if let Some(reason) = cannot_go(package) {
        return Err(Failure::new(
            ErrorCode::Unsatisfiable,
            format!("\"{name}\" would have to be removed, but {reason}"),
        ));
    }
    if wanted.removals.contains_key(&package.index()) || loses_a_need(package) {
        return Ok(());
    }
    let clashes = clashes(cache, wanted)?;
    let why = if clashes.is_empty() { String::new() } else { format!(": {}", clashes.join("; ")) };
    Err(Failure::new(ErrorCode::Unsatisfiable, format!("\"{name}\" would have to be removed{why}"))
        .with_hint(format!("If it may go, add --remove={name}.")))
}

/// The relations that keep `wanted` from being done. Unmarks everything.
fn clashes(cache: &Cache, wanted: &Wanted<'_>) -> Result<Vec<String>, Failure> {
    unmark(cache)?;
    Ok(Clashes::new(&wanted.versions, wanted.removals.keys().copied()).of_all())
}

/// Whether an installed package needs something that is marked for removal.
fn loses_a_need(package: &Package<'_>) -> bool {
    let Some(installed) = package.installed() else { return false };
    installed.dependencies().unwrap_or_default().into_iter().any(|dependency| {
        dependency.iter().any(|base| {
            let targets = base.all_targets();
            targets.iter().any(|target| target.is_installed() && target.parent().marked_delete())
        })
    })
}

/// Takes candidates back that are older than what is installed: a high pin alone is no request.
fn refuse_downgrades(cache: &Cache, refused: &mut Vec<Refusal>) {
    for package in cache.iter().filter(Package::is_installed) {
        if let (Some(installed), Some(candidate)) = (package.installed(), package.candidate())
            && candidate < installed
        {
            let reason = downgrade_reason(&installed, &candidate);
            refused.push(Refusal { subject: label(&package), reason });
            installed.set_candidate();
        }
    }
}

/// The newer versions that a whole upgrade could take. Those that a pin keeps away are refused.
/// Looked at beforehand: libapt forgets the candidates that it finds it cannot install.
fn upgradable<'a>(cache: &'a Cache, refused: &mut Vec<Refusal>) -> Vec<Version<'a>> {
    let mut offered = Vec::new();
    for package in cache.iter().filter(Package::is_installed) {
        if package.is_upgradable() {
            offered.extend(package.candidate());
        } else if let Some(reason) = pinned(&package) {
            refused.push(Refusal { subject: label(&package), reason });
        }
    }
    offered
}

/// Why the whole upgrade leaves newer versions out. Unmarks everything.
fn kept_back(cache: &Cache, left: Vec<Version<'_>>) -> Result<Vec<Refusal>, Failure> {
    let mut refused = Vec::new();
    let mut unmarked = false;
    for version in left {
        let package = version.parent();
        let reason = if package.selected_state() == PkgSelectedState::Hold {
            "it is held".to_owned()
        } else if package.phasing_applied() {
            "its update is being phased in and has not reached this host".to_owned()
        } else {
            if !unmarked {
                unmark(cache)?;
                unmarked = true;
            }
            let wanted = HashMap::from([(package.index(), version.clone())]);
            kept_because(&Clashes::new(&wanted, []).of_all())
        };
        refused.push(Refusal { subject: label(&package), reason });
    }
    Ok(refused)
}

/// Forgets all marks, and brings the candidates back that libapt has thrown away.
fn unmark(cache: &Cache) -> Result<(), Failure> {
    cache.depcache().clear_marked().map_err(|errors| {
        cache::failure(ErrorCode::Internal, "the package lists cannot be looked at again", &errors)
    })
}

fn kept_because(clashes: &[String]) -> String {
    if clashes.is_empty() {
        return "kept back because another package would have to be removed for it".to_owned();
    }
    format!("kept back because {}", clashes.join("; "))
}

fn unsatisfiable(clashes: Vec<String>, errors: Option<&AptErrors>) -> Failure {
    let mut reasons = clashes;
    if reasons.is_empty()
        && let Some(errors) = errors
    {
        reasons = cache::messages(errors);
    }
    if reasons.is_empty() {
        reasons.push("their relations exclude each other".to_owned());
    }
    Failure::new(
        ErrorCode::Unsatisfiable,
        format!("the packages cannot be installed together: {}", reasons.join("; ")),
    )
}

/// Tells of packages that the distribution made for another release than the host's: os-release(5).
/// Other vendors name their releases as they like.
fn warn_of_foreign_releases(changes: &[PackageChange], output: &Output) {
    let Ok(text) = std::fs::read_to_string("/etc/os-release") else { return };
    let field = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.map(|value| value.trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
    };
    let (vendor, codename) = (field("ID"), field("VERSION_CODENAME"));
    if codename.is_empty() {
        return;
    }
    for change in changes.iter().filter(|change| change.file.is_some()) {
        let origin = &change.origin;
        let (release, _pocket) = origin.codename.split_once('-').unwrap_or((&origin.codename, ""));
        if origin.origin.eq_ignore_ascii_case(&vendor) && !release.is_empty() && release != codename
        {
            output.warning(&format!(
                "\"{}\" comes from {}, while the host is {codename}",
                change.name, origin.codename
            ));
        }
    }
}

/// The hooks that the host has configured around dpkg.
fn hooks(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    for key in HOOKS {
        for command in config.find_vector(key) {
            found.push(format!("{key}: {}", cache::shown(&command)));
        }
    }
    found
}
