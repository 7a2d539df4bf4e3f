//! Two hundred changed files in a tree of 50,000 and in one of 150,000.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::guest::Guest;
use super::row::{Goal, Row, median, median_seconds};
use super::support::Repository;

const SMALL: usize = 50_000;
const LARGE: usize = 150_000;
const CHANGED: usize = 200;
const COMMITS: &str = "5";
const UPDATES: usize = 3;

/// What one size of tree takes.
struct Measured {
    commit_milliseconds: f64,
    update_seconds: f64,
}

/// The commit alone, and the whole update of a package of 200 files.
pub(super) fn run() -> Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let packages: Result<Vec<PathBuf>> =
        (0..=UPDATES).map(|version| package(directory.path(), version)).collect();
    let packages = packages?;
    let (small, large) = (measure(SMALL, &packages)?, measure(LARGE, &packages)?);
    Ok(vec![
        Row::new(
            "commit",
            "200 changed files committed to 150,000 files, against 50,000",
            (large.commit_milliseconds, Some(small.commit_milliseconds)),
            "ms",
            Goal::Share(1.3),
        ),
        Row::new(
            "update-size",
            "the whole update of such a package until the units answer",
            (large.update_seconds, Some(small.update_seconds)),
            "s",
            Goal::Shown,
        ),
    ])
}

fn measure(files: usize, packages: &[PathBuf]) -> Result<Measured> {
    let guest = Guest::boot()?;
    grow(&guest, files);
    guest.host.reboot();
    let commits: Vec<f64> = guest.inside(&["commit", COMMITS])?;
    eprintln!("  commits to {files} files: {commits:.0?} ms");
    let mut updates: Vec<Duration> = Vec::new();
    for (version, package) in packages.iter().enumerate() {
        guest.host.mirror().publish(&Repository::default().with(package.clone()));
        guest.make_ready();
        let applied = guest.apply(&["apply-live", "--no-refresh", "--install=bench-files"], 0)?;
        eprintln!("  update of {files} files: {}", applied.profile());
        // The first one installs what the others change.
        if version > 0 {
            updates.push(applied.until_answer());
        }
    }
    Ok(Measured {
        commit_milliseconds: median(commits)?,
        update_seconds: median_seconds(&updates)?,
    })
}

/// Deploys a commit with as many files as are missing, small ones in directories of a hundred.
fn grow(guest: &Guest, files: usize) {
    guest.host.shell(&format!(
        "repo=/sysroot/ostree/repo
        base=$(ostree rev-parse --repo=$repo debian/test/host)
        there=$(ostree ls --repo=$repo -R $base | wc -l)
        unshare --mount sh -ec '
            mount -o remount,bind,rw /sysroot
            mount -o remount,rw /boot 2> /dev/null || true
            tree=/sysroot/bulk
            python3 -I - $tree $(({files} - $1)) <<PYTHON
import os, sys
for number in range(int(sys.argv[2])):
    directory = \"%s/usr/share/bulk/%d\" % (sys.argv[1], number // 100)
    if number % 100 == 0:
        os.makedirs(directory)
    with open(\"%s/%d\" % (directory, number), \"w\") as file:
        file.write(\"file %d\\n\" % number)
PYTHON
            ostree config --repo=$3 set core.fsync false
            ostree commit --repo=$3 --branch=bench/bulk --base=$2 --tree=dir=$tree \
                --owner-uid=0 --owner-gid=0 --consume > /dev/null
            ostree config --repo=$3 unset core.fsync
            rm -rf $tree
            ostree admin deploy --os=debian bench/bulk > /dev/null
        ' - $there $base $repo
        sync"
    ));
}

/// `bench-files` of 200 files, all of which differ from one version to the next.
fn package(directory: &Path, version: usize) -> Result<PathBuf> {
    let tree = directory.join(format!("tree-{version}"));
    let files = tree.join("usr/share/bench-files");
    std::fs::create_dir_all(&files)?;
    std::fs::create_dir_all(tree.join("DEBIAN"))?;
    std::fs::write(
        tree.join("DEBIAN/control"),
        format!(
            "Package: bench-files\nVersion: {}\nArchitecture: all\n\
            Maintainer: bench <bench@localhost>\nDescription: bench\n",
            version + 1
        ),
    )?;
    for number in 0..CHANGED {
        std::fs::write(files.join(number.to_string()), format!("{version} {number}\n"))?;
    }
    let file = directory.join(format!("bench-files_{}_all.deb", version + 1));
    let made = Command::new("dpkg-deb")
        .args(["--root-owner-group", "--build"])
        .args([&tree, &file])
        .stdout(Stdio::null())
        .status()?;
    ensure!(made.success(), "dpkg-deb failed");
    Ok(file)
}
