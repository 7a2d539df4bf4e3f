//! From what a caller wrote to a package of the cache.

use apt_ostree_proto::package::PackageSpec;
use apt_ostree_proto::{ErrorCode, Failure};
use rust_apt::config::Config;
use rust_apt::{Cache, Package, PackageSort, Version};

use super::cache::label;

/// How many names or versions are offered in place of one that does not exist.
const MOST_OFFERS: usize = 5;
/// From this likeness on, a name may have been meant for another one; `openssh-sever` and
/// `openssh-server` have 0.98.
const LIKELY: f64 = 0.9;

/// Finds the package that `spec` means: of the host's own architecture, or of a foreign one that has
/// it when the own one has not.
pub(super) fn package<'a>(cache: &'a Cache, spec: &PackageSpec) -> Result<Package<'a>, Failure> {
    let architectures = Config::new().get_architectures();
    let name = spec.name.as_str();
    let wanted: Vec<&str> = match &spec.architecture {
        None => architectures.iter().map(String::as_str).collect(),
        Some(asked) if asked.as_str() == "all" => {
            architectures.first().map(String::as_str).into_iter().collect()
        }
        Some(asked) if architectures.iter().any(|known| known == asked.as_str()) => {
            vec![asked.as_str()]
        }
        Some(asked) => {
            let known = architectures.join(", ");
            return Err(Failure::new(
                ErrorCode::NotFound,
                format!("\"{spec}\": architecture {asked} is not enabled on this host ({known})"),
            )
            .with_hint(format!("Enable it in the image with dpkg --add-architecture {asked}.")));
        }
    };
    let found =
        wanted.iter().filter_map(|architecture| cache.get(&format!("{name}:{architecture}")));
    let mut virtual_package = None;
    for package in found {
        if package.has_versions() {
            return Ok(package);
        }
        if package.has_provides() && virtual_package.is_none() {
            virtual_package = Some(package);
        }
    }
    match virtual_package {
        Some(package) => only_provider(spec, &package),
        None => Err(unknown(cache, spec)),
    }
}

/// The version that was asked for; none when `spec` leaves it to the candidate.
pub(super) fn version<'a>(
    package: &Package<'a>,
    spec: &PackageSpec,
) -> Result<Option<Version<'a>>, Failure> {
    let Some(wanted) = &spec.version else { return Ok(None) };
    if let Some(version) = package.get_version(wanted.as_str()) {
        Ok(Some(version))
    } else {
        let known: Vec<String> =
            package.versions().take(MOST_OFFERS).map(|v| v.version().to_owned()).collect();
        Err(Failure::new(
            ErrorCode::NotFound,
            format!("\"{}\" has no version {wanted}", label(package)),
        )
        .with_hint(format!("Known versions: {}.", known.join(", "))))
    }
}

fn only_provider<'a>(spec: &PackageSpec, package: &Package<'a>) -> Result<Package<'a>, Failure> {
    let mut providers: Vec<Package<'a>> = Vec::new();
    for provider in package.provides() {
        let owner = provider.package();
        let offered = owner.candidate().is_some_and(|candidate| {
            candidate.provides().any(|provided| provided.name() == spec.name.as_str())
        });
        if offered && !providers.contains(&owner) {
            providers.push(owner);
        }
    }
    if providers.len() == 1
        && let Some(provider) = providers.pop()
    {
        return Ok(provider);
    }
    let mut names: Vec<String> = providers.iter().map(label).collect();
    names.sort();
    names.truncate(MOST_OFFERS);
    let failure = Failure::new(
        ErrorCode::NotFound,
        format!("\"{spec}\" is a virtual package: name the one that is meant"),
    );
    if names.is_empty() {
        return Err(failure.with_hint("No installable package provides it."));
    }
    Err(failure.with_hint(format!("It is provided by {}.", names.join(", "))))
}

fn unknown(cache: &Cache, spec: &PackageSpec) -> Failure {
    let name = spec.name.as_str();
    let mut close: Vec<(f64, String)> = Vec::new();
    for package in cache.packages(&PackageSort::default()) {
        let likeness = strsim::jaro_winkler(name, package.name());
        if likeness >= LIKELY && !close.iter().any(|(_, known)| known == package.name()) {
            close.push((likeness, package.name().to_owned()));
        }
    }
    close.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    close.truncate(MOST_OFFERS);
    let failure = Failure::new(ErrorCode::NotFound, format!("there is no package \"{spec}\""));
    if close.is_empty() {
        return failure.with_hint("Check the name, or refresh the package lists.");
    }
    let names: Vec<String> = close.into_iter().map(|(_, name)| name).collect();
    failure.with_hint(format!("Similar names: {}.", names.join(", ")))
}
