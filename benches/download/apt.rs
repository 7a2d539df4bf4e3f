//! The peer: apt-get with a root of its own.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::packages::File;

/// apt with a root of its own, and nothing installed in it.
pub(super) struct Apt {
    root: PathBuf,
    packages: Vec<String>,
    bytes: u64,
}

impl Apt {
    /// Sets up the root and fetches the index.
    pub(super) fn new(root: PathBuf, mirror: &str, files: &[File]) -> Result<Self> {
        for directory in [
            "etc/apt/apt.conf.d",
            "etc/apt/preferences.d",
            "etc/apt/sources.list.d",
            "var/lib/apt/lists/partial",
            "var/lib/dpkg",
            "var/cache/apt/archives/partial",
        ] {
            std::fs::create_dir_all(root.join(directory))?;
        }
        std::fs::write(root.join("var/lib/dpkg/status"), "")?;
        std::fs::write(root.join("etc/apt/apt.conf"), "")?;
        let source = format!("deb [trusted=yes] {mirror} ./\n");
        std::fs::write(root.join("etc/apt/sources.list"), source)?;
        let packages = files.iter().map(|file| file.name.clone()).collect();
        let apt = Self { root, packages, bytes: files.iter().map(|file| file.size_bytes).sum() };
        apt.run(&["update"])?;
        Ok(apt)
    }

    /// Fetches all packages into an empty cache.
    pub(super) fn fetch(&self) -> Result<Duration> {
        for entry in std::fs::read_dir(self.archives())? {
            let path = entry?.path();
            if path.is_file() {
                std::fs::remove_file(path)?;
            }
        }
        let took = self.fetch_again()?;
        let mut bytes = 0;
        for entry in std::fs::read_dir(self.archives())? {
            let entry = entry?;
            let is_package = entry.path().extension().is_some_and(|extension| extension == "deb");
            bytes += if is_package { entry.metadata()?.len() } else { 0 };
        }
        ensure!(bytes == self.bytes, "apt-get fetched {bytes} bytes of {}", self.bytes);
        Ok(took)
    }

    /// The same with everything in the cache: what apt takes for all the rest.
    pub(super) fn fetch_again(&self) -> Result<Duration> {
        let mut words = vec!["install", "--download-only", "--yes", "--quiet=2"];
        words.extend(self.packages.iter().map(String::as_str));
        let begun = Instant::now();
        self.run(&words)?;
        Ok(begun.elapsed())
    }

    fn archives(&self) -> PathBuf {
        self.root.join("var/cache/apt/archives")
    }

    fn run(&self, words: &[&str]) -> Result<()> {
        let root = self.root.display();
        let output = Command::new("apt-get")
            // Nothing of the machine's own configuration.
            .env("APT_CONFIG", self.root.join("etc/apt/apt.conf"))
            .env_remove("http_proxy")
            .args(["-o", &format!("Dir={root}"), "-o", "APT::Sandbox::User=root"])
            .args(["-o", &format!("Dir::State::status={root}/var/lib/dpkg/status")])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .context("apt-get cannot be run")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "apt-get {} failed: {errors}", words.join(" "));
        Ok(())
    }
}
