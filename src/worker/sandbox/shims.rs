//! What maintainer scripts find instead of the service manager.

use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use apt_ostree::host::sandbox::task::{KnownUnit, SandboxRequest};
use apt_ostree::host::tree::layout::Stage;

/// Tools that only note what was wished.
const RECORDING: &[&str] = &["deb-systemd-invoke", "invoke-rc.d", "service"];
const RECORD: &str = include_str!("shim/record.sh");
const SYSTEMCTL: &str = include_str!("shim/systemctl.sh");
const UPDATE_INITRAMFS: &str = include_str!("shim/update-initramfs.sh");
const POLICY: &str = include_str!("shim/policy-rc.d.sh");

/// Makes the sandbox's `/run` anew, and the lower directory that lies above the running `/usr`.
pub(super) fn write(stage: &Stage, request: &SandboxRequest) -> io::Result<()> {
    remove(&stage.run())?;
    remove(&stage.shims())?;
    let run = stage.run();
    // The scripts take a running systemd from this directory: sd_booted(3).
    for directory in ["shim", "rec", "lock", "systemd/system"] {
        directory_for_all(&run, Path::new(directory))?;
    }
    for tool in RECORDING {
        script(&run.join("shim").join(tool), RECORD)?;
    }
    script(&run.join("shim/systemctl"), SYSTEMCTL)?;
    if !request.kernel_changes {
        script(&run.join("shim/update-initramfs"), UPDATE_INITRAMFS)?;
    }
    fs::write(run.join("rec/units"), table(&request.units))?;
    write_policy(&stage.shims(), &request.lower_usr)
}

/// The lower directory shows through as the directories' owner and mode, so it has those of the
/// tree below.
fn write_policy(shims: &Path, usr: &Path) -> io::Result<()> {
    fs::create_dir_all(shims.join("sbin"))?;
    script(&shims.join("sbin/policy-rc.d"), POLICY)?;
    for (own, below) in
        [(shims.join("sbin"), usr.join("sbin")), (shims.to_path_buf(), usr.to_path_buf())]
    {
        let status = fs::metadata(below)?;
        chown(&own, Some(status.uid()), Some(status.gid()))?;
        fs::set_permissions(&own, fs::Permissions::from_mode(status.mode() & 0o7777))?;
    }
    Ok(())
}

fn table(units: &[KnownUnit]) -> String {
    units.iter().fold(String::new(), |mut table, unit| {
        let KnownUnit { name, load, active, sub } = unit;
        // Writing to a String cannot fail.
        writeln!(table, "{name}\t{load}\t{active}\t{sub}").unwrap_or_default();
        table
    })
}

fn directory_for_all(root: &Path, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(root.join(directory))?;
    for part in directory.ancestors() {
        fs::set_permissions(root.join(part), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn script(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
