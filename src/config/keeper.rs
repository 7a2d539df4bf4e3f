use std::cell::RefCell;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use apt_ostree_proto::Failure;

use super::Config;
use super::fragments::paths;

/// What the copy says to whoever finds it.
const HEAD: &str = "# The configuration that was used last, kept by apt-ostreed. Do not edit it: see \
                    apt-ostree config show.\n";

/// Keeps the last configuration that could be used, for as long as a newer one cannot.
#[derive(Debug)]
pub struct Keeper {
    root: PathBuf,
    copy: PathBuf,
    /// How the fragments looked when they were last read.
    seen: RefCell<Stamp>,
    /// Why they could not be used, until that was told.
    untold: RefCell<Option<Failure>>,
}

/// Tells fragments that were changed from those that were not: name, inode, size, time of change.
type Stamp = Vec<(PathBuf, u64, u64, i64, i64)>;

impl Keeper {
    /// Reads the configuration below `root`, or else the copy of the last that could be used.
    /// `InvalidConfiguration` when there is none.
    pub fn open(root: &Path, copy: &Path) -> Result<(Self, Config), Failure> {
        let keeper = Self {
            root: root.to_owned(),
            copy: copy.to_owned(),
            seen: RefCell::new(stamp(root)),
            untold: RefCell::default(),
        };
        let config = match Config::load(root) {
            Ok(config) => {
                keeper.keep(&config);
                config
            }
            Err(failure) => {
                let kept = keeper.kept().ok_or_else(|| failure.clone())?;
                tracing::warn!("{failure}; the last good one is used");
                keeper.untold.replace(Some(failure));
                kept
            }
        };
        Ok((keeper, config))
    }

    /// What has changed since this was last asked: another configuration, or why it cannot be used.
    pub fn changed(&self) -> Option<Result<Config, Failure>> {
        if let Some(failure) = self.untold.take() {
            return Some(Err(failure));
        }
        let now = stamp(&self.root);
        if *self.seen.borrow() == now {
            return None;
        }
        self.seen.replace(now);
        let loaded = Config::load(&self.root);
        match &loaded {
            Ok(config) => {
                tracing::info!("the configuration was changed, and holds from here on");
                self.keep(config);
            }
            Err(failure) => tracing::warn!("{failure}; the last good one is used"),
        }
        Some(loaded)
    }

    fn kept(&self) -> Option<Config> {
        let text = std::fs::read_to_string(&self.copy).ok()?;
        let config: Config = toml::from_str(&text)
            .inspect_err(
                |error| tracing::warn!(%error, "the last good configuration is not usable"),
            )
            .ok()?;
        super::rules::complaints(&config).is_empty().then_some(config)
    }

    /// What cannot be kept is missed only once the next one cannot be used.
    fn keep(&self, config: &Config) {
        if self.kept().as_ref() == Some(config) {
            return;
        }
        if let Err(error) = self.write(config) {
            tracing::warn!("the last good configuration cannot be kept: {error:#}");
        }
    }

    fn write(&self, config: &Config) -> anyhow::Result<()> {
        let text = format!("{HEAD}{}", toml::to_string_pretty(config)?);
        let directory = self.copy.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        let mut new = tempfile::NamedTempFile::new_in(directory)?;
        new.write_all(text.as_bytes())?;
        new.as_file().sync_all()?;
        new.persist(&self.copy)?;
        Ok(())
    }
}

/// A fragment that cannot be looked at is told when it is read.
fn stamp(root: &Path) -> Stamp {
    let look = |path: PathBuf| {
        let status = std::fs::metadata(&path).ok()?;
        Some((path, status.ino(), status.size(), status.ctime(), status.ctime_nsec()))
    };
    paths(root).unwrap_or_default().into_iter().filter_map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, text: &str) {
        let path = root.join("etc/apt-ostree/config.toml");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_last_good_configuration_is_used_until_there_is_another_good_one() {
        let directory = tempfile::tempdir().unwrap();
        let (root, copy) = (directory.path(), directory.path().join("state/good.toml"));
        write(root, "[health]\ndwell-seconds = 7");
        let (keeper, config) = Keeper::open(root, &copy).unwrap();
        assert_eq!(config.health.dwell_seconds, 7);
        assert!(keeper.changed().is_none());

        write(root, "[health]\ndwell-seconds = 9000000");
        let failure = keeper.changed().unwrap().unwrap_err();
        assert!(failure.message.contains("config.toml, line 2"), "{failure}");
        assert!(keeper.changed().is_none());

        // The next daemon finds the same.
        let (keeper, config) = Keeper::open(root, &copy).unwrap();
        assert_eq!(config.health.dwell_seconds, 7);
        assert!(keeper.changed().unwrap().is_err());
        assert!(keeper.changed().is_none());

        write(root, "[health]\ndwell-seconds = 8");
        assert_eq!(keeper.changed().unwrap().unwrap().health.dwell_seconds, 8);
        std::fs::remove_file(root.join("etc/apt-ostree/config.toml")).unwrap();
        assert_eq!(keeper.changed().unwrap().unwrap(), Config::default());
    }

    #[test]
    fn without_a_good_one_there_is_nothing_to_use() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "[");
        for copy in [None, Some("["), Some("[health]\ndwell-seconds = 9000000")] {
            let path = directory.path().join("good.toml");
            if let Some(text) = copy {
                std::fs::write(&path, text).unwrap();
            }
            assert!(Keeper::open(directory.path(), &path).is_err(), "{copy:?}");
        }
    }
}
