//! `/run/reboot-required`, by which Debian's programs tell that a boot is due, and beside it the names of
//! the packages that it is due for: what unattended-upgrades, update-notifier and monitoring plugins read.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use apt_ostree_actors::port::{PortResult, RebootAdvice};
use apt_ostree_proto::{ErrorCode, Failure, PackageName};

/// What Debian's own scripts write there.
const TEXT: &str = "*** System restart required ***\n";
const FLAG: &str = "reboot-required";
const PACKAGES: &str = "reboot-required.pkgs";

/// See [`apt_ostree_actors::port::Files::advise_reboot`]; `run` is `/run`.
pub(super) fn tell(run: &Path, advice: &RebootAdvice) -> PortResult<()> {
    write(run, advice).map_err(|error| {
        let what = format!("{} cannot be written", run.join(FLAG).display());
        Failure::caused(ErrorCode::Internal, &what, &error)
    })
}

fn write(run: &Path, advice: &RebootAdvice) -> io::Result<()> {
    let path = run.join(PACKAGES);
    let before = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    let withdrawn: BTreeSet<&str> = advice.withdrawn.iter().map(PackageName::as_str).collect();
    let waiting: BTreeSet<&str> = advice.waiting.iter().map(PackageName::as_str).collect();
    let stays = |name: &&str| !withdrawn.contains(name) && !waiting.contains(name);
    let names: Vec<&str> = before.lines().filter(stays).chain(waiting.iter().copied()).collect();
    if names.is_empty() {
        // Where nobody named a package, somebody else raised the flag for another reason.
        if !before.is_empty() {
            remove(&path)?;
            remove(&run.join(FLAG))?;
        }
        return Ok(());
    }
    let text: String = names.iter().flat_map(|name| [name, "\n"]).collect();
    replace(run, PACKAGES, &text)?;
    replace(run, FLAG, TEXT)
}

/// Nobody reads half a file, whoever writes it too.
fn replace(run: &Path, name: &str, text: &str) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(name).tempfile_in(run)?;
    file.write_all(text.as_bytes())?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode)?;
    file.persist(run.join(name))?;
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<PackageName> {
        names.iter().map(|name| PackageName::parse(*name).unwrap()).collect()
    }

    #[test]
    fn packages_are_added_and_withdrawn_beside_what_others_wrote() {
        let run = tempfile::tempdir().unwrap();
        let packages = || fs::read_to_string(run.path().join(PACKAGES)).unwrap_or_default();
        let tell = |waiting: &[&str], withdrawn: &[&str]| {
            let advice = RebootAdvice { waiting: names(waiting), withdrawn: names(withdrawn) };
            tell(run.path(), &advice).unwrap();
        };
        tell(&[], &["linux-image-1"]);
        assert!(!run.path().join(FLAG).exists());
        fs::write(run.path().join(PACKAGES), "dbus\n").unwrap();
        for _ in 0..2 {
            tell(&["linux-image-2", "libc6"], &["linux-image-1"]);
            assert_eq!(packages(), "dbus\nlibc6\nlinux-image-2\n");
        }
        assert_eq!(fs::read_to_string(run.path().join(FLAG)).unwrap(), TEXT);
        tell(&[], &["linux-image-2", "libc6"]);
        assert_eq!(packages(), "dbus\n");
        assert!(run.path().join(FLAG).exists());
        tell(&[], &["dbus"]);
        assert!(!run.path().join(FLAG).exists() && !run.path().join(PACKAGES).exists());
        // A flag that somebody raised without a package is not ours to take down.
        fs::write(run.path().join(FLAG), TEXT).unwrap();
        tell(&[], &["dbus"]);
        assert!(run.path().join(FLAG).exists());
    }
}
