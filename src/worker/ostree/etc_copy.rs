//! A copy of `/etc` as it is when a deployment is made of it. After a power cut it tells what was edited
//! later, which only a clean shutdown would have merged: see `apt_ostree::early`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use apt_ostree::early::{COPY, PREVIOUS};
use apt_ostree::host::paths;
use apt_ostree_proto::{ErrorCode, Failure};
use ostree::Deployment;

use super::copy::copy_tree;
use super::staging::{make_closed_directory, remove_tree};

/// Where the copy is until there is a deployment that it belongs to.
const UNNAMED: &str = "new";

/// Takes the copy. To come before the deployment is made: what is edited in between is in both then.
pub(super) fn take() -> Result<(), Failure> {
    let directory = Path::new(paths::ETC_COPIES).join(UNNAMED);
    remove_tree(&directory)?;
    make_closed_directory(&directory)
        .and_then(|()| copy_tree(Path::new("/etc"), &directory.join(COPY)))
        .map_err(|error| failed(&error))
}

/// Names the copy after the deployment. Durable with the boot configuration, for which libostree syncs
/// the file system.
pub(super) fn keep_for(deployment: &Deployment, booted: &Deployment) -> Result<(), Failure> {
    let directory = Path::new(paths::ETC_COPIES).join(UNNAMED);
    let place = directory.with_file_name(name(deployment));
    remove_tree(&place)?;
    fs::write(directory.join(PREVIOUS), name(booted))
        .and_then(|()| fs::rename(&directory, &place))
        .map_err(|error| failed(&error))
}

/// Removes the copies of deployments that are no more.
pub(super) fn clean_up(deployments: &[Deployment]) -> Result<(), Failure> {
    let known: BTreeSet<String> = deployments.iter().map(name).collect();
    for copy in copies().map_err(|error| failed(&error))? {
        if !copy.file_name().is_some_and(|name| known.contains(&*name.to_string_lossy())) {
            remove_tree(&copy)?;
        }
    }
    Ok(())
}

fn copies() -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(paths::ETC_COPIES) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The deployment's directory: COMMIT.SERIAL.
fn name(deployment: &Deployment) -> String {
    format!("{}.{}", deployment.csum(), deployment.deployserial())
}

fn failed(error: &io::Error) -> Failure {
    let code = if error.kind() == io::ErrorKind::StorageFull {
        ErrorCode::NoSpace
    } else {
        ErrorCode::DeployFailed
    };
    Failure::caused(code, "/etc cannot be copied for the new deployment", error)
}
