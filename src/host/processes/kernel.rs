//! The kernel that runs, and the one that boots next.

use std::fs;
use std::path::Path;

use apt_ostree_proto::outdated::Kernel;

use crate::host::packages::version;
use crate::host::tree::state::StateReader;

/// There where the host is itself a container, whose kernel is another host's: `container(5)`'s
/// interface as systemd leaves it.
const CONTAINER: &str = "/run/systemd/container";

/// The host's kernels; none in a container.
pub(super) fn of_host() -> Option<Kernel> {
    if Path::new(CONTAINER).exists() {
        return None;
    }
    let running = rustix::system::uname().release().to_string_lossy().into_owned();
    let next = StateReader::default().next().ok()?;
    Some(Kernel { running, expected: newest_in(&next.directory.join("usr/lib/modules")) })
}

/// The newest release below a tree's modules: `RELEASE/vmlinuz`, where OSTree looks for a kernel.
fn newest_in(modules: &Path) -> Option<String> {
    let entries = fs::read_dir(modules).ok()?.flatten();
    let with_kernel = entries.filter(|entry| entry.path().join("vmlinuz").exists());
    let releases = with_kernel.filter_map(|entry| entry.file_name().into_string().ok());
    releases.max_by(|one, other| version::compare(one, other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_of_a_tree_boots() {
        let tree = tempfile::tempdir().unwrap();
        assert_eq!(newest_in(&tree.path().join("missing")), None);
        for release in ["6.1.0-9-amd64", "6.1.0-10-amd64"] {
            fs::create_dir(tree.path().join(release)).unwrap();
            fs::write(tree.path().join(release).join("vmlinuz"), "").unwrap();
        }
        fs::create_dir(tree.path().join("6.9.0-without-kernel")).unwrap();
        assert_eq!(newest_in(tree.path()).as_deref(), Some("6.1.0-10-amd64"));
    }
}
