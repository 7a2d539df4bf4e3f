//! The overlays of the staged root: Documentation/filesystems/overlayfs.rst.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use apt_ostree::host::tree::layout::Stage;
use rustix::mount::{MountFlags, mount};

/// What keeps the upper directories plain, so that they *are* the change: no renamed directories, no
/// files without their data, no index. `volatile`: durability comes from the commit.
const OPTIONS: &str = "redirect_dir=off,metacopy=off,index=off,xino=off,volatile";

/// Mounts the three overlays onto the private root.
pub(super) fn mount_all(stage: &Stage, lower_usr: &Path) -> io::Result<()> {
    overlay(stage, "usr", &[&stage.shims(), lower_usr])?;
    overlay(stage, "etc", &[&stage.etc_snapshot()])?;
    overlay(stage, "var", &[Path::new("/var")])
}

/// The same above what was staged: what is written goes elsewhere, and nowhere from there.
pub(super) fn mount_all_to_try(stage: &Stage, lower_usr: &Path) -> io::Result<()> {
    let trial = stage.trial();
    match fs::remove_dir_all(&trial.directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for tree in ["usr", "etc", "var"] {
        let (staged, own) = (fs::metadata(stage.upper(tree))?, trial.upper(tree));
        fs::create_dir_all(&own)?;
        fs::create_dir_all(trial.work(tree))?;
        chown(&own, Some(staged.uid()), Some(staged.gid()))?;
        fs::set_permissions(&own, staged.permissions())?;
    }
    let upper = |tree| stage.upper(tree);
    above(&trial, stage, "usr", &[&upper("usr"), &stage.shims(), lower_usr])?;
    above(&trial, stage, "etc", &[&upper("etc"), &stage.etc_snapshot()])?;
    above(&trial, stage, "var", &[&upper("var"), Path::new("/var")])
}

fn overlay(stage: &Stage, tree: &str, lowers: &[&Path]) -> io::Result<()> {
    above(stage, stage, tree, lowers)
}

/// Mounts an overlay onto the private root, with its upper directory in `area`.
fn above(area: &Stage, stage: &Stage, tree: &str, lowers: &[&Path]) -> io::Result<()> {
    let lowers = lowers.iter().map(|path| text(path)).collect::<io::Result<Vec<_>>>()?.join(":");
    let (upper, work) = (area.upper(tree), area.work(tree));
    let (upper, work) = (text(&upper)?, text(&work)?);
    // One string, as mount(2) has it: fsconfig(2) takes no more than 255 bytes before Linux 6.5.
    let options = format!("lowerdir={lowers},upperdir={upper},workdir={work},{OPTIONS}");
    let options = CString::new(options)?;
    let target = stage.root().join(tree);
    Ok(mount_overlay(&target, &options)?)
}

fn mount_overlay(target: &Path, options: &CString) -> rustix::io::Result<()> {
    mount("overlay", target, "overlay", MountFlags::empty(), options.as_c_str())
}

/// The path as an overlay option; the characters that end one there are escaped.
fn text(path: &Path) -> io::Result<String> {
    let text = path.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
    Ok(text.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,"))
}
