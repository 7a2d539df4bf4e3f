//! From a marked package to a change in a plan.

use apt_ostree_proto::id::Architecture;
use apt_ostree_proto::package::{Action, Origin, PackageChange, PackageFile, UpdateClass};
use apt_ostree_proto::{ErrorCode, Failure, PackageName, Sha256, Version as VersionName};
use rust_apt::raw::quote_string;
use rust_apt::{Package, Version};

use super::cache::label;

/// What happens to a marked package, whole. `Untrusted` when no signature covers its new version.
/// The class is left at live: that is the daemon's decision.
pub(super) fn describe(package: &Package<'_>) -> Result<PackageChange, Failure> {
    let old = package.installed();
    let new = if package.marked_delete() { None } else { package.install_version() };
    let Some(shown) = new.as_ref().or(old.as_ref()) else {
        return Err(Failure::new(
            ErrorCode::Internal,
            format!("\"{}\" is marked for a change from nothing to nothing", label(package)),
        ));
    };
    let (origin, file) = match &new {
        Some(version) => {
            let (origin, file) = source(version)?;
            (origin, Some(file))
        }
        None => (old.as_ref().map(installed_origin).unwrap_or_default(), None),
    };
    let size = |version: &Option<Version<'_>>| {
        version.as_ref().map_or(0, |v| i64::try_from(v.installed_size()).unwrap_or(i64::MAX))
    };
    Ok(PackageChange {
        name: PackageName::parse(package.name()).map_err(|error| malformed(&error))?,
        architecture: Architecture::parse(shown.arch()).map_err(|error| malformed(&error))?,
        action: action(package, old.is_some()),
        old_version: old.as_ref().map(name_of).transpose()?,
        new_version: new.as_ref().map(name_of).transpose()?,
        source: shown.source_name().to_owned(),
        automatic: package.is_auto_installed(),
        origin,
        installed_growth_bytes: size(&new).saturating_sub(size(&old)),
        class: UpdateClass::Live,
        class_reason: None,
        file,
    })
}

/// The signed origin of a version and the file that it is unpacked from. Only lists that apt trusts
/// count: a mirror without a signature is no source even if it has the same version.
pub(super) fn source(version: &Version<'_>) -> Result<(Origin, PackageFile), Failure> {
    let mut found: Option<(Origin, PackageFile)> = None;
    let mut unsigned = None;
    for file in version.version_files() {
        let list = file.package_file();
        if !list.is_downloadable() {
            continue;
        }
        if !list.index_file().is_trusted() {
            unsigned = Some(list.site().unwrap_or("a local repository").to_owned());
            continue;
        }
        let record = file.lookup();
        let Some(digest) = record.hash_find("sha256".to_owned()) else { continue };
        let Ok(sha256) = Sha256::parse(digest) else { continue };
        let uri = list.index_file().archive_uri(&record.filename());
        match &mut found {
            // Another mirror of the same file; a version that was built twice stays out.
            Some((_, file)) if file.sha256 == sha256 => file.uris.push(uri),
            Some(_) => {}
            None => {
                let file = PackageFile {
                    uris: vec![uri],
                    cache_name: cache_name(version),
                    sha256,
                    size_bytes: version.size(),
                };
                found = Some((origin(&list, true), file));
            }
        }
    }
    found.ok_or_else(|| {
        let name = format!("\"{}\" {}", label(&version.parent()), version.version());
        match unsigned {
            Some(site) => Failure::new(
                ErrorCode::Untrusted,
                format!("{name} comes from {site}, which no trusted key has signed"),
            ),
            None => Failure::new(
                ErrorCode::Untrusted,
                format!("no signed repository offers {name} with a SHA-256 digest"),
            ),
        }
    })
}

/// Where an installed version came from, if a list still has it.
fn installed_origin(version: &Version<'_>) -> Origin {
    let lists = version.package_files().filter(|list| list.is_downloadable());
    lists.map(|list| origin(&list, list.index_file().is_trusted())).next().unwrap_or_default()
}

fn origin(list: &rust_apt::PackageFile<'_>, trusted: bool) -> Origin {
    let text = |field: Option<&str>| field.unwrap_or_default().to_owned();
    Origin {
        origin: text(list.origin()),
        label: text(list.label()),
        codename: text(list.codename().or_else(|| list.archive())),
        component: text(list.component()),
        site: text(list.site()),
        trusted,
    }
}

/// The file's name in apt's archive cache, as `pkgAcqArchive` makes it.
fn cache_name(version: &Version<'_>) -> String {
    let quoted = |text: &str, bad: &str| quote_string(text, bad.to_owned());
    let name = quoted(version.parent().name(), "_:");
    let number = quoted(version.version(), "_:");
    let architecture = quoted(version.arch(), "_:.");
    format!("{name}_{number}_{architecture}.deb")
}

fn action(package: &Package<'_>, installed: bool) -> Action {
    if package.marked_delete() {
        Action::Remove
    } else if !installed {
        Action::Install
    } else if package.marked_downgrade() {
        Action::Downgrade
    } else if package.marked_upgrade() {
        Action::Upgrade
    } else {
        Action::Reinstall
    }
}

fn name_of(version: &Version<'_>) -> Result<VersionName, Failure> {
    VersionName::parse(version.version()).map_err(|error| malformed(&error))
}

fn malformed(error: &apt_ostree_proto::id::InvalidName) -> Failure {
    Failure::caused(ErrorCode::Untrusted, "a package list is malformed", error)
}
