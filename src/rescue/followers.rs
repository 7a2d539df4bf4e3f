//! Services whose mount namespaces a collapse of PID 1's does not reach.
//!
//! A service with a mount of its own below `/usr` (a directory that it may not see, say) keeps the tree
//! that it began under, for an unmount does not spread to a mount that others hang on. Every later tree
//! comes on top of that one, and is no longer where PID 1's is. A service that no update restarts would
//! keep them all, and with them their directories on the disk.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::USR;
use crate::mount::mountinfo;
use crate::mount::usr::UsrStack;
use crate::namespace;
use crate::reply::{Tried, Trouble};

/// The mount namespace of such a service.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) namespace: File,
    /// Its number, as `/proc/PID/ns/mnt` shows it.
    pub(crate) inode: u64,
}

/// Finds them, from within PID 1's mount namespace: two trees of ours or more are on one another, the
/// one on top comes and goes with PID 1's, and what it stands on is shared, so that an unmount in a
/// copy of the namespace spreads to it. Only namespaces of the host's own user namespace are looked at:
/// from a copy of another nothing spreads, and whoever made it decides what its paths lead to, and how
/// many mounts it has.
pub(crate) fn find() -> Result<Vec<Follower>, Trouble> {
    let Some(group) = namespace::stack()?.layers.last().and_then(|top| top.mount.peer_group) else {
        return Ok(Vec::new());
    };
    let host = inode_of(Path::new("/proc/1/ns/user"));
    let mut seen: BTreeSet<u64> = inode_of(Path::new("/proc/1/ns/mnt")).into_iter().collect();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").tried(|| "look into /proc".to_owned())? {
        let process = entry.tried(|| "look into /proc".to_owned())?.path();
        let link = process.join("ns/mnt");
        // No process, or one that has ended.
        let Some(inode) = inode_of(&link) else { continue };
        if seen.insert(inode)
            && let Ok(namespace) = File::open(&link)
            && namespace::owner(namespace.as_fd()).is_ok_and(|owner| Some(owner) == host)
            && std::fs::read(process.join("mountinfo")).is_ok_and(|text| is_piled(&text, group))
        {
            found.push(Follower { namespace, inode });
        }
    }
    Ok(found)
}

fn inode_of(link: &Path) -> Option<u64> {
    std::fs::metadata(link).ok().map(|status| status.ino())
}

fn is_piled(text: &[u8], group: u64) -> bool {
    let Ok(mounts) = mountinfo::parse(text) else { return false };
    let stack = UsrStack::of(&mounts, Path::new(USR));
    let [.., under, top] = stack.layers.as_slice() else { return false };
    let follows = [top.mount.master, top.mount.peer_group].contains(&Some(group));
    stack.foreign().is_none() && follows && under.mount.peer_group.is_some()
}

#[cfg(test)]
mod tests {
    use super::is_piled;

    const OLD: &str = "20 1 8:1 /ostree/deploy/debian/deploy/0123abcd.0/usr /usr ro shared:7 master:2 - ext4 /dev/sda rw\n\
         21 20 0:30 / /usr/lib/modules ro - tmpfs tmpfs ro\n";

    #[test]
    fn a_service_with_a_covered_tree_that_a_copy_can_reach_is_found() {
        for (top, expected) in [
            ("30 20 8:1 /ostree/live/1/tree/usr /usr ro shared:8 master:4", true),
            // It follows nobody, or somebody else: an unmount would uncover an older tree there.
            ("30 20 8:1 /ostree/live/1/tree/usr /usr ro", false),
            ("30 20 8:1 /ostree/live/1/tree/usr /usr ro shared:8 master:5", false),
            ("30 20 0:40 / /usr ro master:4", false),
        ] {
            let text = format!("{OLD}{top} - ext4 /dev/sda rw\n");
            assert_eq!(is_piled(text.as_bytes(), 4), expected, "{top}");
        }
        assert!(!is_piled(OLD.as_bytes(), 2), "nothing is covered");
        let private = OLD.replace("shared:7 ", "");
        let top = "30 20 8:1 /ostree/live/1/tree/usr /usr ro shared:8 master:4 - ext4 d rw\n";
        assert!(!is_piled(format!("{private}{top}").as_bytes(), 4), "out of a copy's reach");
        assert!(!is_piled(b"nonsense", 4));
    }
}
