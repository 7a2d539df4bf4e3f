//! A scratch apt root in a temporary directory: a repository of small packages, signed with a key
//! of its own, and a dpkg database. Needs apt-utils, dpkg-deb and gpg; no root.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use apt_ostree::host::worker::{converse, tasks};
use apt_ostree_actors::context::{Report, Reporter, StepContext};
use apt_ostree_actors::port::{PortResult, Resolution};
use apt_ostree_proto::TransactionId;
use apt_ostree_proto::package::PackageSpec;
use apt_ostree_proto::request::Selection;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// One package to build: name, version, further control fields.
pub(crate) struct Deb {
    pub name: &'static str,
    pub version: &'static str,
    pub fields: &'static str,
    /// Scripts and files by their path below the package's tree.
    pub files: &'static [(&'static str, &'static str)],
}

impl Deb {
    pub(crate) fn new(name: &'static str, version: &'static str, fields: &'static str) -> Self {
        Self { name, version, fields, files: &[] }
    }

    pub(crate) fn with(self, files: &'static [(&'static str, &'static str)]) -> Self {
        Self { files, ..self }
    }

    fn control(&self) -> String {
        let mut text = format!(
            "Package: {}\nVersion: {}\nArchitecture: amd64\nMaintainer: T <t@example.org>\n\
             Installed-Size: 10\nDescription: a test\n",
            self.name, self.version
        );
        for field in self.fields.lines().map(str::trim).filter(|line| !line.is_empty()) {
            writeln!(text, "{field}").expect("written");
        }
        text
    }
}

pub(crate) struct Scratch {
    directory: TempDir,
}

impl Scratch {
    /// A root with `installed` in its dpkg database and `offered` in its signed repository.
    pub(crate) fn new(installed: &[Deb], offered: &[Deb]) -> Self {
        let scratch = Self { directory: TempDir::new().expect("a temporary directory") };
        for directory in [
            "etc/apt/apt.conf.d",
            "etc/apt/preferences.d",
            "etc/apt/sources.list.d",
            "etc/apt/auth.conf.d",
            "var/lib/apt/lists/partial",
            "var/cache/apt/archives/partial",
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "var/lib/dpkg/triggers",
            "var/log/apt",
            "repo/pool",
            "repo/dists/stable/main/binary-amd64",
            "gpg",
        ] {
            fs::create_dir_all(scratch.path(directory)).expect("a directory");
        }
        scratch.write_configuration();
        scratch.write_status(installed, &[]);
        run(Command::new("chmod").arg("700").arg(scratch.path("gpg")));
        scratch.make_key("signer");
        scratch.export_key("signer", "etc/apt/key.asc");
        for deb in offered {
            scratch.build(deb);
        }
        scratch.index("");
        scratch.sign("signer");
        scratch.write_sources("");
        scratch
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join(relative)
    }

    pub(crate) fn write(&self, relative: &str, text: &str) {
        fs::write(self.path(relative), text).expect("a file");
    }

    pub(crate) fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.path(relative)).expect("a file")
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }

    fn write_configuration(&self) {
        let root = self.root().display();
        self.write(
            "apt.conf",
            &format!(
                "Dir \"{root}/\";\nDir::State::status \"{root}/var/lib/dpkg/status\";\n\
                 APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\n\
                 APT::Sandbox::User \"{}\";\nAcquire::Languages \"none\";\nAcquire::Retries \"0\";\n\
                 DPkg::Options {{ \"--root={root}\"; \"--force-not-root\"; \
                 \"--force-script-chrootless\"; \"--log={root}/dpkg.log\"; }};\n",
                std::env::var("USER").unwrap_or_else(|_| "root".to_owned())
            ),
        );
    }

    /// Writes the dpkg database; the packages named in `held` are held.
    pub(crate) fn write_status(&self, installed: &[Deb], held: &[&str]) {
        let mut text = String::new();
        for deb in installed {
            let want = if held.contains(&deb.name) { "hold" } else { "install" };
            writeln!(text, "{}Status: {want} ok installed\n", deb.control()).expect("written");
            self.write(&format!("var/lib/dpkg/info/{}.list", deb.name), "/.\n");
        }
        self.write("var/lib/dpkg/status", &text);
    }

    pub(crate) fn write_sources(&self, options: &str) {
        // With `file:`, apt's lists would be links to the repository's own files.
        let key = self.path("etc/apt/key.asc");
        let line = format!(
            "deb [signed-by={} {options}] copy:{} stable main\n",
            key.display(),
            self.path("repo").display()
        );
        self.write("etc/apt/sources.list", &line);
    }

    pub(crate) fn build(&self, deb: &Deb) {
        let tree = self.path(&format!("build/{}_{}", deb.name, deb.version));
        fs::create_dir_all(tree.join("DEBIAN")).expect("a directory");
        fs::write(tree.join("DEBIAN/control"), deb.control()).expect("a file");
        for (path, text) in deb.files {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(&path, text).expect("a file");
            if path.starts_with(tree.join("DEBIAN")) && !path.ends_with("conffiles") {
                run(Command::new("chmod").arg("755").arg(&path));
            }
        }
        run(Command::new("dpkg-deb").args(["-Znone", "-b"]).arg(&tree).arg(self.path("repo/pool")));
    }

    /// Writes the indexes anew; `release_options` are apt-ftparchive's `-o` values, space separated.
    pub(crate) fn index(&self, release_options: &str) {
        let packages = run(Command::new("apt-ftparchive")
            .args(["packages", "pool"])
            .current_dir(self.path("repo")));
        let index = self.path("repo/dists/stable/main/binary-amd64/Packages");
        fs::write(&index, packages.stdout).expect("a file");
        let mut command = Command::new("apt-ftparchive");
        for option in [
            "Origin=Debian",
            "Label=Scratch",
            "Suite=stable",
            "Codename=bookworm",
            "Components=main",
            "Architectures=amd64",
        ]
        .into_iter()
        .chain(release_options.split_whitespace())
        {
            command.arg("-o").arg(format!("APT::FTPArchive::Release::{option}"));
        }
        let release = run(command.args(["release", "dists/stable"]).current_dir(self.path("repo")));
        fs::write(self.path("repo/dists/stable/Release"), release.stdout).expect("a file");
        match fs::remove_file(self.path("repo/dists/stable/InRelease")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }

    fn gpg(&self) -> Command {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(self.path("gpg")).args(["--batch", "--yes", "--quiet"]);
        command.args(["--pinentry-mode", "loopback", "--passphrase", ""]);
        command
    }

    pub(crate) fn make_key(&self, name: &str) {
        let user = format!("{name} <{name}@example.org>");
        run(self.gpg().args(["--quick-generate-key", &user, "ed25519", "sign", "never"]));
    }

    fn export_key(&self, name: &str, relative: &str) {
        let key = run(self.gpg().args(["--armor", "--export"]).arg(name));
        fs::write(self.path(relative), key.stdout).expect("a file");
    }

    pub(crate) fn sign(&self, name: &str) {
        let release = self.path("repo/dists/stable");
        run(self
            .gpg()
            .args(["--local-user", name, "--clearsign", "--output"])
            .arg(release.join("InRelease"))
            .arg(release.join("Release")));
    }

    /// Runs a task of the worker that was built with this test.
    pub(crate) async fn task<Request: Serialize, Answer: DeserializeOwned>(
        &self,
        task: &str,
        request: &Request,
    ) -> (PortResult<Answer>, Vec<Report>) {
        let (report, mut reports) = Reporter::channel();
        let cancel = CancellationToken::new();
        let context = StepContext { transaction: TransactionId(1), cancel, report };
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_apt-ostree-worker"));
        command.arg(task).env("APT_CONFIG", self.path("apt.conf"));
        let answer = converse(command, task, request, &context).await;
        drop(context);
        let mut seen = Vec::new();
        while let Some(report) = reports.recv().await {
            seen.push(report);
        }
        (answer, seen)
    }

    pub(crate) async fn refresh(&self) -> PortResult<()> {
        self.task(tasks::REFRESH, &()).await.0
    }

    pub(crate) async fn resolve(&self, selection: Selection) -> PortResult<Resolution> {
        self.task(tasks::RESOLVE, &tasks::ResolveRequest { selection, kept: Vec::new() }).await.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The agent that gpg started has its socket in the scratch directory.
        let kill = Command::new("gpgconf")
            .arg("--homedir")
            .arg(self.path("gpg"))
            .args(["--kill", "gpg-agent"])
            .stderr(Stdio::null())
            .status();
        if let Err(error) = kill {
            eprintln!("gpg-agent may be left over: {error}");
        }
    }
}

pub(crate) fn selection(upgrade: &[&str], install: &[&str], remove: &[&str]) -> Selection {
    let specs = |names: &[&str]| {
        names.iter().map(|name| PackageSpec::parse(name).expect("a name")).collect()
    };
    Selection { upgrade: specs(upgrade), install: specs(install), remove: specs(remove) }
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    output
}
