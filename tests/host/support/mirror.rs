//! The mirror of one host: what it offers and what goes wrong with it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::scripts::{built, run_script};

/// The mirror of a running host.
#[derive(Debug)]
pub(crate) struct Mirror<'host> {
    run: &'host Path,
}

/// What is unusual about a repository, as options of `repository.sh`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Repository {
    options: Vec<String>,
    packages: Vec<PathBuf>,
}

/// Names of what the archive has newer for the image, as `upgrades.sh` found out.
pub(crate) fn real_upgrades() -> Vec<String> {
    let list = Path::new(&run_script("upgrades.sh", [""; 0], &[])).join("real.list");
    std::fs::read_to_string(list)
        .expect("upgrades.sh wrote it")
        .lines()
        .filter_map(|line| Some(line.split_once(' ')?.0.to_owned()))
        .collect()
}

/// A package that goes with this value.
#[derive(Debug)]
pub(crate) struct EmptyPackage {
    pub(crate) path: PathBuf,
    _directory: tempfile::TempDir,
}

/// Builds a package of nothing but its name and version, and of these further control fields.
pub(crate) fn empty_package(name: &str, version: &str, fields: &str) -> EmptyPackage {
    let directory = tempfile::tempdir().expect("there is room for a package");
    let work = directory.path().join("work");
    let package = directory.path().join(format!("{name}_{version}_all.deb"));
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\n{fields}\
         Maintainer: The apt-ostree test host <test@example.org>\nDescription: has no files\n"
    );
    std::fs::create_dir_all(work.join("DEBIAN"))
        .and_then(|()| std::fs::write(work.join("DEBIAN/control"), control))
        .expect("the directory is writable");
    let status = Command::new("dpkg-deb")
        .args(["--root-owner-group", "--build", "."])
        .arg(&package)
        .current_dir(&work)
        .stdout(Stdio::null())
        .status()
        .expect("dpkg-deb can be run");
    assert!(status.success(), "dpkg-deb: {status}");
    EmptyPackage { path: package, _directory: directory }
}

impl<'host> Mirror<'host> {
    pub(crate) fn new(run: &'host Path) -> Self {
        Self { run }
    }

    /// Replaces what goes wrong: one `PATTERN FAULT VALUE [TIMES]` a line, nothing for a healthy mirror.
    pub(crate) fn set_faults(&self, faults: &str) {
        let path = self.run.join("mirror.control");
        // A reader must see the old text or the new one.
        let new = path.with_extension("new");
        std::fs::write(&new, faults)
            .and_then(|()| std::fs::rename(&new, &path))
            .expect("the run directory is writable");
    }

    /// The access log: status, method, path, bytes, range.
    pub(crate) fn log(&self) -> Vec<String> {
        std::fs::read_to_string(self.run.join("mirror.log"))
            .expect("the mirror writes a log")
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Offers newer versions of `count` packages in all, repacked ones where the archive has too few.
    /// `None` if the archive alone offers more than that.
    pub(crate) fn offer_upgrades(&self, count: usize) -> Option<Vec<String>> {
        let directory = PathBuf::from(run_script("repack.sh", [count.to_string()], &[]));
        let list = std::fs::read_to_string(directory.join("repacked.list")).unwrap_or_default();
        let repacked = list.lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned()));
        let names: Vec<String> = real_upgrades().into_iter().chain(repacked).collect();
        let packages = std::fs::read_dir(&directory)
            .expect("repack.sh made it")
            .map(|entry| entry.expect("readable directory").path().into_os_string())
            .filter(|path| path.to_string_lossy().ends_with(".deb"));
        let target = self.run.join("mirror/repacked").into_os_string();
        run_script(
            "repository.sh",
            [OsString::from("--origin=repacked"), target].into_iter().chain(packages),
            &[],
        );
        (names.len() == count).then_some(names)
    }

    /// Replaces the repository of toys.
    pub(crate) fn publish(&self, repository: &Repository) {
        repository.write(&self.run.join("mirror/toys"));
    }
}

impl Repository {
    /// hello-svc in this version: 2 is good, 3 does not start, 4 cannot be configured, 5 is never done with it.
    pub(crate) fn hello(version: u32) -> Self {
        Self::default().with(built(&format!("hello-svc/hello-svc_{version}_")))
    }

    /// The package of the workers in this version: see `workers/build.sh`.
    pub(crate) fn worker_package(version: u32) -> PathBuf {
        run_script("workers/build.sh", [""; 0], &[]);
        built(&format!("workers/workers_{version}_"))
    }

    /// Units of every kind in this version: see `unit-toys/build.sh`.
    pub(crate) fn unit_toys(version: u32) -> Self {
        run_script("unit-toys/build.sh", [""; 0], &[]);
        Self::default().with(built(&format!("unit-toys/unit-toys_{version}_")))
    }

    /// Files that others keep in memory: see `reader-toys/build.sh`.
    pub(crate) fn reader_package() -> PathBuf {
        run_script("reader-toys/build.sh", [""; 0], &[]);
        built("reader-toys/reader-toys_")
    }

    /// A Python program whose module differs from one version to the next: see `module-toy/build.sh`.
    pub(crate) fn module_toy(version: u32) -> Self {
        run_script("module-toy/build.sh", [""; 0], &[]);
        Self::default().with(built(&format!("module-toy/module-toy_{version}_")))
    }

    /// A package of the release that the image has not, and all that it needs.
    pub(crate) fn of_the_release(package: &str) -> Vec<PathBuf> {
        let directory = run_script("extra.sh", [package], &[]);
        let entries = std::fs::read_dir(directory).expect("extra.sh made it");
        entries.map(|entry| entry.expect("readable directory").path()).collect()
    }

    /// A newer version of `package`, which came with `with`: `suffix` is at the end of its version and of
    /// the files that are called `files`.
    pub(crate) fn newer(suffix: &str, package: &str, with: &str, files: &str) -> PathBuf {
        let start = format!("{package}_");
        let is_it = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start))
        };
        let of_the_release = Self::of_the_release(with);
        let path = of_the_release.iter().find(|path| is_it(path)).expect("it came with that");
        let arguments = [suffix.as_ref(), path.as_os_str(), files.as_ref()];
        PathBuf::from(run_script("newer.sh", arguments, &[]))
    }

    /// A package that takes effect with the next boot, by its name and version: see `boot-toy/build.sh`.
    pub(crate) fn boot_package(package: &str) -> PathBuf {
        run_script("boot-toy/build.sh", [""; 0], &[]);
        built(&format!("boot-toy/{package}_"))
    }

    /// A package that must be refused, by what is wrong with it: see `broken/build.sh`.
    pub(crate) fn broken(reason: &str) -> Self {
        run_script("broken/build.sh", [""; 0], &[]);
        Self::default().with(built(&format!("broken/{reason}.deb")))
    }

    /// Makes `directory` this repository.
    pub(crate) fn write(&self, directory: &Path) {
        let options = self.options.iter().map(OsString::from);
        let packages = self.packages.iter().map(|path| path.clone().into_os_string());
        let target = directory.to_owned().into_os_string();
        run_script("repository.sh", options.chain([target]).chain(packages), &[]);
    }

    /// Offers this package too.
    pub(crate) fn with(mut self, package: PathBuf) -> Self {
        self.packages.push(package);
        self
    }

    /// Adds an option of `repository.sh`, such as `--signed=wrong`.
    pub(crate) fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }
}
