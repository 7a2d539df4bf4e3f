//! Installing packages with the real dpkg, in the root that this process runs in.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use apt_ostree::host::packages::status::{self, Status};
use apt_ostree::host::worker::tasks::InstallRequest;
use apt_ostree_proto::package::{Action, PackageChange};
use apt_ostree_proto::{ErrorCode, Failure};
use rust_apt::config::Config;
use rust_apt::error::AptErrors;
use rust_apt::progress::{AcquireProgress, InstallProgress};
use rust_apt::{Cache, Package};

use super::cache::{self, label, together};
use super::install_output::{Transcript, blame, capture};
use super::refresh::Watcher;
use crate::output::Output;

/// The environment that maintainer scripts get on top of the caller's.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
    // needrestart and apt-listchanges ask and act on their own; both heed these.
    ("NEEDRESTART_SUSPEND", "1"),
    ("APT_LISTCHANGES_FRONTEND", "none"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("LC_ALL", "C.UTF-8"),
    ("HOME", "/root"),
];

/// Everything that the host may have configured to run around dpkg: apt.conf(5).
const HOOKS: &[&str] = &[
    "DPkg::Pre-Invoke",
    "DPkg::Post-Invoke",
    "DPkg::Pre-Install-Pkgs",
    "DPkg::Tools",
    "DPkg::Chroot-Directory",
    "APT::Update::Pre-Invoke",
    "APT::Update::Post-Invoke",
    "APT::Update::Post-Invoke-Success",
];

/// dpkg's options. The admin's configuration files stay, without a question. No fsync: what is
/// installed here is thrown away or committed as a whole.
const DPKG_OPTIONS: &[&str] = &["--force-confdef", "--force-confold", "--force-unsafe-io"];

/// How much of the output's end is in a failure.
const LINES_IN_FAILURE: usize = 20;
/// How many things that are not as they should be are named.
const MOST_NAMED: usize = 10;

/// Changes exactly the packages of the request, in an order that libapt stands for, and checks that
/// dpkg's database says so afterwards.
pub(crate) fn install(request: &InstallRequest, output: &Output) -> Result<(), Failure> {
    let config = Config::new();
    configure(&config, request);
    check_files(&config, &request.changes)?;
    let cache = cache::open(&config)?;
    mark(&cache, &request.changes)?;
    check_marks(&cache, &request.changes)?;
    find_archives(&cache, output)?;
    let (result, transcript) = run_dpkg(cache, output)?;
    if let Err(errors) = result {
        return Err(failed(&errors, &transcript));
    }
    check_result(&config, &request.changes, &transcript)
}

/// Variables that maintainer scripts must see.
pub(crate) fn script_environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    ENVIRONMENT.iter().copied()
}

/// Whether this process has them already.
pub(crate) fn has_script_environment() -> bool {
    ENVIRONMENT.iter().all(|(key, value)| std::env::var_os(key).is_some_and(|set| set == *value))
}

fn configure(config: &Config, request: &InstallRequest) {
    for hook in HOOKS {
        config.clear(hook);
    }
    // The admin's own options stay, but for those that would decide about configuration files.
    let own = config.find_vector("DPkg::Options");
    let kept = own.iter().map(String::as_str).filter(|option| !option.starts_with("--force-conf"));
    let options: Vec<&str> = kept.chain(DPKG_OPTIONS.iter().copied()).collect();
    config.clear("DPkg::Options");
    config.set_vector("DPkg::Options", &options);
    config.set("DPkg::Path", &request.path);
    config.set("DPkg::Use-Pty", "false");
    // Nobody else is in this root, and there is no network that an unprivileged user should fetch by.
    config.set("APT::Sandbox::User", "root");
    if let Some(archives) = &request.archives {
        config.set("Dir::Cache::archives", &archives.to_string_lossy());
    }
}

/// Whether all files are there in their sizes: libapt would go and fetch what is missing.
fn check_files(config: &Config, changes: &[PackageChange]) -> Result<(), Failure> {
    let archives = PathBuf::from(config.dir("Dir::Cache::archives", "/var/cache/apt/archives/"));
    for change in changes {
        let Some(file) = &change.file else { continue };
        let path = archives.join(&file.cache_name);
        let size = path.metadata().map_err(|error| {
            let what = format!("the file of \"{}\" is not at {}", change.name, path.display());
            Failure::caused(ErrorCode::InstallFailed, &what, &error)
        })?;
        if size.len() != file.size_bytes {
            return Err(Failure::new(
                ErrorCode::InstallFailed,
                format!(
                    "{} has {} bytes instead of {}",
                    path.display(),
                    size.len(),
                    file.size_bytes
                ),
            ));
        }
    }
    Ok(())
}

/// Marks exactly `changes`, without anything that they need.
pub(super) fn mark(cache: &Cache, changes: &[PackageChange]) -> Result<(), Failure> {
    together(cache, || {
        for change in changes {
            let package = find(cache, change)?;
            let Some(wanted) = &change.new_version else {
                package.mark_delete(false);
                continue;
            };
            let version = package.get_version(wanted.as_str()).ok_or_else(|| {
                Failure::new(
                    ErrorCode::StalePlan,
                    format!("\"{}\" {wanted} is no longer in the package lists", change.name),
                )
            })?;
            version.set_candidate();
            if change.action == Action::Reinstall {
                package.mark_reinstall(true);
            } else {
                package.mark_install(false, true);
            }
            package.mark_auto(change.automatic);
        }
        Ok(())
    })
}

fn find<'a>(cache: &'a Cache, change: &PackageChange) -> Result<Package<'a>, Failure> {
    // Packages for all architectures are filed under the host's own.
    let name = match change.architecture.as_str() {
        "all" => change.name.as_str().to_owned(),
        architecture => format!("{}:{architecture}", change.name),
    };
    cache.get(&name).filter(Package::has_versions).ok_or_else(|| {
        Failure::new(ErrorCode::StalePlan, format!("\"{name}\" is no longer in the package lists"))
    })
}

/// Whether libapt will change what was asked for, and nothing else.
fn check_marks(cache: &Cache, changes: &[PackageChange]) -> Result<(), Failure> {
    let planned: BTreeSet<(String, Option<String>)> = changes
        .iter()
        .map(|change| {
            (change.name.to_string(), change.new_version.as_ref().map(ToString::to_string))
        })
        .collect();
    let marked: BTreeSet<(String, Option<String>)> = cache
        .get_changes(false)
        .map(|package| {
            let version = package.install_version().filter(|_| !package.marked_delete());
            (package.name().to_owned(), version.map(|version| version.version().to_owned()))
        })
        .collect();
    if planned != marked {
        let off: Vec<String> = planned
            .symmetric_difference(&marked)
            .take(MOST_NAMED)
            .map(|(name, version)| format!("{name} {}", version.as_deref().unwrap_or("(removed)")))
            .collect();
        return Err(Failure::new(
            ErrorCode::StalePlan,
            format!("libapt would not do what the plan says: {}", off.join(", ")),
        ));
    }
    let broken: Vec<String> =
        cache.iter().filter(Package::is_inst_broken).take(MOST_NAMED).map(|p| label(&p)).collect();
    if broken.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::Unsatisfiable,
        format!("the plan would leave these without what they need: {}", broken.join(", ")),
    ))
}

/// Lets libapt find the files in the archive cache.
fn find_archives(cache: &Cache, output: &Output) -> Result<(), Failure> {
    if cache.get_changes(false).all(|package| package.marked_delete()) {
        return Ok(());
    }
    let complaints = Rc::new(RefCell::new(Vec::new()));
    let watcher = Watcher { output, complaints: Rc::clone(&complaints) };
    cache.get_archives(&mut AcquireProgress::new(watcher)).map_err(|error| {
        let mut reasons = complaints.take();
        reasons.extend(cache::messages(&error.into()));
        Failure::new(
            ErrorCode::InstallFailed,
            format!("the package files cannot be used: {}", reasons.join("; ")),
        )
    })
}

fn run_dpkg(cache: Cache, output: &Output) -> Result<(Result<(), AptErrors>, Transcript), Failure> {
    capture(output, |status| cache.do_install(&mut InstallProgress::fd(status.as_raw_fd())))
        .map_err(|error| {
            Failure::caused(ErrorCode::InstallFailed, "dpkg's output cannot be read", &error)
        })
}

fn failed(errors: &AptErrors, transcript: &Transcript) -> Failure {
    let what = match blame(&transcript.last) {
        Some((package, what)) => format!("\"{package}\" failed: {what}"),
        None => format!("dpkg failed: {}", cache::messages(errors).join("; ")),
    };
    with_output(Failure::new(ErrorCode::InstallFailed, what), transcript)
}

fn with_output(failure: Failure, transcript: &Transcript) -> Failure {
    let lines = transcript.last.len().saturating_sub(LINES_IN_FAILURE);
    let tail: Vec<&str> = transcript.last.iter().skip(lines).map(String::as_str).collect();
    if tail.is_empty() {
        return failure;
    }
    let message = format!("{}\n{}", failure.message, tail.join("\n"));
    Failure { message, ..failure }
}

/// Whether dpkg's database holds the planned versions, all of them configured, and nothing half done.
fn check_result(
    config: &Config,
    changes: &[PackageChange],
    transcript: &Transcript,
) -> Result<(), Failure> {
    let path = config.file("Dir::State::status", "/var/lib/dpkg/status");
    let text = std::fs::read_to_string(Path::new(&path)).map_err(|error| {
        Failure::caused(ErrorCode::InstallFailed, &format!("{path} cannot be read"), &error)
    })?;
    let database = Status::parse(&text);
    let mut wrong = Vec::new();
    for change in changes {
        let found = database.installed(change.name.as_str(), change.architecture.as_str());
        let version = found.map(|package| package.version.as_str());
        if version != change.new_version.as_ref().map(apt_ostree_proto::Version::as_str) {
            wrong.push(format!("{} is {}", change.name, version.unwrap_or("not installed")));
        }
    }
    wrong
        .extend(database.packages().filter(|p| p.is_unfinished()).map(status::Package::state_line));
    if wrong.is_empty() {
        wrong.extend(audit()?);
    }
    if wrong.is_empty() {
        return Ok(());
    }
    wrong.truncate(MOST_NAMED);
    let failure = Failure::new(
        ErrorCode::InstallFailed,
        format!("dpkg did not do what the plan says: {}", wrong.join("; ")),
    );
    Err(with_output(failure, transcript))
}

/// What `dpkg --audit` has to say, line by line.
fn audit() -> Result<Vec<String>, Failure> {
    let run = Command::new("dpkg").arg("--audit").output().map_err(|error| {
        Failure::caused(ErrorCode::InstallFailed, "dpkg --audit did not start", &error)
    })?;
    let text = String::from_utf8_lossy(&run.stdout);
    let mut lines: Vec<String> =
        text.lines().filter(|line| !line.trim().is_empty()).map(cache::shown).collect();
    if !run.status.success() && lines.is_empty() {
        lines.push(format!("dpkg --audit failed: {}", run.status));
    }
    Ok(lines)
}
