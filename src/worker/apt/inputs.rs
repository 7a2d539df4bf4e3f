//! The digest of everything that a plan's packages are decided from.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use apt_ostree_proto::request::Selection;
use apt_ostree_proto::{ErrorCode, Failure, Sha256};
use rust_apt::config::Config;
use sha2::{Digest, Sha256 as Hasher};

/// Settings that change what libapt decides.
const SETTINGS: &[&str] =
    &["APT::Default-Release", "APT::Install-Recommends", "APT::Install-Suggests", "APT::Solver"];

/// The digest of dpkg's status (which holds the holds), the lists, pins, automatic flags, settings
/// and the selection. Release files stand for the lists that they sign; of the lists themselves only
/// name and size count, so that a refresh that brings nothing new leaves a plan valid.
pub(super) fn digest(config: &Config, selection: &Selection) -> Result<Sha256, Failure> {
    let mut hasher = Hasher::new();
    let unreadable = |path: &Path, error: &io::Error| {
        Failure::caused(ErrorCode::Internal, &format!("{} cannot be read", path.display()), error)
    };
    let mut files = vec![
        PathBuf::from(config.file("Dir::State::status", "/var/lib/dpkg/status")),
        PathBuf::from(config.file("Dir::State::extended_states", "/var/lib/apt/extended_states")),
        PathBuf::from(config.file("Dir::Etc::preferences", "/etc/apt/preferences")),
        PathBuf::from(config.file("Dir::Etc::sourcelist", "/etc/apt/sources.list")),
    ];
    for directory in ["Dir::Etc::preferencesparts", "Dir::Etc::sourceparts"] {
        let directory = PathBuf::from(config.dir(directory, ""));
        files.extend(entries(&directory).map_err(|error| unreadable(&directory, &error))?);
    }
    let lists = PathBuf::from(config.dir("Dir::State::lists", "/var/lib/apt/lists/"));
    for list in entries(&lists).map_err(|error| unreadable(&lists, &error))? {
        let name = list.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if name.ends_with("Release") {
            files.push(list);
        } else if name.contains("_Packages") {
            let size = list.metadata().map_err(|error| unreadable(&list, &error))?.len();
            hasher.update(format!("{name} {size}\n"));
        }
    }
    for path in files {
        hasher.update(format!("{}\n", path.display()));
        absorb(&mut hasher, &path).map_err(|error| unreadable(&path, &error))?;
    }
    for key in SETTINGS {
        hasher.update(format!("{key} {}\n", config.find(key, "")));
    }
    hasher.update(config.get_architectures().join(" "));
    let selection = serde_json::to_vec(selection).map_err(|error| {
        Failure::caused(ErrorCode::Internal, "the selection cannot be written", &error)
    })?;
    hasher.update(selection);
    Sha256::parse(format!("{:x}", hasher.finalize()))
        .map_err(|error| Failure::caused(ErrorCode::Internal, "a digest is none", &error))
}

/// The regular files of a directory by name; none when it does not exist.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(paths),
        Err(error) => return Err(error),
        Ok(entries) => {
            for entry in entries {
                let path = entry?.path();
                if path.is_file() {
                    paths.push(path);
                }
            }
        }
    }
    paths.sort();
    Ok(paths)
}

/// Hashes a file with its length; a missing one counts as such.
fn absorb(hasher: &mut Hasher, path: &Path) -> io::Result<()> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            hasher.update(b"absent\n");
            return Ok(());
        }
        other => other?,
    };
    hasher.update(format!("{}\n", file.metadata()?.len()));
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            count => hasher.update(&buffer[..count]),
        }
    }
}
