//! The overlays of the staged root: Documentation/filesystems/overlayfs.rst.

use std::ffi::CString;
use std::io;
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

fn overlay(stage: &Stage, tree: &str, lowers: &[&Path]) -> io::Result<()> {
    let lowers = lowers.iter().map(|path| text(path)).collect::<io::Result<Vec<_>>>()?.join(":");
    let (upper, work) = (stage.upper(tree), stage.work(tree));
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
