//! What is mounted on `/usr`, told from a mountinfo file.

use std::path::{Path, PathBuf};

use super::mountinfo::MountInfo;

/// The mounts on `/usr` of one mount namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsrStack {
    /// The mounts on `/usr` itself, the covered ones first. Empty when `/usr` is part of the root
    /// mount.
    pub layers: Vec<Layer>,
    /// Mount points below `/usr` that can be seen, parents first.
    pub below: Vec<MountInfo>,
}

/// One mount on `/usr`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The mount.
    pub mount: MountInfo,
    /// Whose it is.
    pub owner: Owner,
}

/// Whose a mount on `/usr` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// `OSTree`'s own mount of the booted deployment.
    Deployment,
    /// Ours, by its transaction.
    Live(u64),
    /// Somebody else's: what it is, for people.
    Foreign(String),
}

impl UsrStack {
    /// Finds the mounts on and below `usr` (which is `/usr` but for tests).
    pub fn of(mounts: &[MountInfo], usr: &Path) -> Self {
        let mut layers: Vec<Layer> = Vec::new();
        let here: Vec<&MountInfo> =
            mounts.iter().filter(|mount| mount.mount_point == usr).collect();
        // The lowest one is mounted on something that is not itself on /usr; each next on the one before.
        let mut next = here
            .iter()
            .find(|mount| here.iter().all(|other| other.id != mount.parent || other.id == mount.id))
            .copied();
        while let Some(mount) = next {
            layers.push(Layer { mount: mount.clone(), owner: owner(mount) });
            next =
                here.iter().find(|other| other.parent == mount.id && other.id != mount.id).copied();
        }
        let below = below(mounts, usr, layers.last().map(|layer| layer.mount.id));
        Self { layers, below }
    }

    /// The first mount that is neither the deployment's nor ours, by what it is.
    pub fn foreign(&self) -> Option<&str> {
        self.layers.iter().find_map(|layer| match &layer.owner {
            Owner::Foreign(what) => Some(what.as_str()),
            Owner::Deployment | Owner::Live(_) => None,
        })
    }
}

/// The mounts below `usr` that the mount `top` carries, directly or not: what hangs on a covered
/// mount cannot be seen. Of mounts on one another only the top one counts.
fn below(mounts: &[MountInfo], usr: &Path, top: Option<u64>) -> Vec<MountInfo> {
    let mut found: Vec<&MountInfo> = Vec::new();
    // A parent may stand behind its child in the file, so walk until nothing new is found.
    loop {
        let before = found.len();
        for mount in mounts {
            let inside = mount.mount_point != usr && mount.mount_point.starts_with(usr);
            let carried = match top {
                Some(top) => {
                    mount.parent == top || found.iter().any(|known| known.id == mount.parent)
                }
                None => true,
            };
            if inside && carried && found.iter().all(|known| known.id != mount.id) {
                found.push(mount);
            }
        }
        if found.len() == before {
            break;
        }
    }
    let covered = |mount: &MountInfo| {
        found.iter().any(|other| other.parent == mount.id && other.mount_point == mount.mount_point)
    };
    let mut visible: Vec<MountInfo> =
        found.iter().filter(|mount| !covered(mount)).map(|mount| (*mount).clone()).collect();
    visible.sort_by(|left, right| left.mount_point.cmp(&right.mount_point));
    visible
}

fn owner(mount: &MountInfo) -> Owner {
    if let Some(transaction) = live_transaction(&mount.root) {
        return Owner::Live(transaction);
    }
    if is_deployment(&mount.root) {
        return Owner::Deployment;
    }
    let options = &mount.super_options;
    Owner::Foreign(if mount.source == "sysext" || options.contains("/run/systemd/sysext") {
        "a merged system extension (systemd-sysext)".to_owned()
    } else if mount.file_system == "overlay"
        && (options.contains("ostree-unlock-ovl") || options.contains(".usr-ovl-upper"))
    {
        "the writable overlay of 'ostree admin unlock'".to_owned()
    } else {
        let root: String = mount.root.to_string_lossy().chars().take(LONGEST_QUOTE).collect();
        format!("a mount of type {:?} from {root:?}", mount.file_system)
    })
}

/// How much of a foreign mount's root is quoted.
const LONGEST_QUOTE: usize = 120;

/// `…/ostree/live/N/tree/usr`: what stands before it depends on where `OSTree`'s directory is within
/// its file system (a subvolume, a partition of its own).
fn live_transaction(root: &Path) -> Option<u64> {
    let tail = after(root, "ostree/live")?;
    let mut parts = tail.iter();
    let transaction = parts.next()?.to_str()?.parse().ok()?;
    let rest: PathBuf = parts.collect();
    (rest == Path::new("tree/usr")).then_some(transaction)
}

/// `…/ostree/deploy/OS/deploy/COMMIT.N/usr`.
fn is_deployment(root: &Path) -> bool {
    after(root, "ostree/deploy").is_some_and(|tail| {
        let parts: Vec<_> = tail.iter().collect();
        parts.len() == 4 && parts[1] == "deploy" && parts[3] == "usr"
    })
}

/// What follows the last occurrence of `middle` in `path`.
fn after<'a>(path: &'a Path, middle: &str) -> Option<&'a Path> {
    path.ancestors()
        .find(|ancestor| ancestor.ends_with(middle))
        .and_then(|ancestor| path.strip_prefix(ancestor).ok())
}

#[cfg(test)]
mod tests {
    use super::super::mountinfo;
    use super::*;

    fn stack(text: &str) -> UsrStack {
        UsrStack::of(&mountinfo::parse(text.as_bytes()).unwrap(), Path::new("/usr"))
    }

    const DEPLOYMENT: &str = "10 1 8:1 /ostree/deploy/debian/deploy/0123abcd.0/usr /usr ro shared:2 - ext4 /dev/sda rw\n";

    #[test]
    fn each_mount_on_usr_is_told_by_its_owner() {
        for (root, source, options, kind, expected) in [
            (
                "/ostree/deploy/debian/deploy/0123abcd.0/usr",
                "/dev/sda",
                "rw",
                "ext4",
                Owner::Deployment,
            ),
            (
                "/@root/ostree/deploy/os/deploy/0123.1/usr",
                "/dev/sda",
                "rw",
                "btrfs",
                Owner::Deployment,
            ),
            ("/ostree/live/17/tree/usr", "/dev/sda", "rw", "ext4", Owner::Live(17)),
            ("/sub/ostree/live/3/tree/usr", "/dev/sda", "rw", "ext4", Owner::Live(3)),
            (
                "/",
                "sysext",
                "ro,lowerdir=/run/systemd/sysext/meta/usr:/usr",
                "overlay",
                Owner::Foreign("a merged system extension (systemd-sysext)".to_owned()),
            ),
            (
                "/",
                "overlay",
                "rw,lowerdir=usr,upperdir=/var/tmp/ostree-unlock-ovl.X1/upper",
                "overlay",
                Owner::Foreign("the writable overlay of 'ostree admin unlock'".to_owned()),
            ),
            (
                "/ostree/live/x/tree/usr",
                "d",
                "rw",
                "ext4",
                Owner::Foreign(
                    "a mount of type \"ext4\" from \"/ostree/live/x/tree/usr\"".to_owned(),
                ),
            ),
            (
                "/ostree/live/1/tree/usr/lib",
                "d",
                "rw",
                "ext4",
                Owner::Foreign(
                    "a mount of type \"ext4\" from \"/ostree/live/1/tree/usr/lib\"".to_owned(),
                ),
            ),
        ] {
            let stack = stack(&format!("10 1 8:1 {root} /usr ro - {kind} {source} {options}"));
            assert_eq!(stack.layers[0].owner, expected, "{root}");
        }
    }

    #[test]
    fn mounts_are_ordered_by_what_they_stand_on_and_not_by_the_file() {
        let stack = stack(&format!(
            "12 11 8:1 /ostree/live/2/tree/usr /usr ro - ext4 d rw\n\
             11 10 8:1 /ostree/live/1/tree/usr /usr ro - ext4 d rw\n{DEPLOYMENT}"
        ));
        let owners: Vec<_> = stack.layers.iter().map(|layer| layer.owner.clone()).collect();
        assert_eq!(owners, [Owner::Deployment, Owner::Live(1), Owner::Live(2)]);
        assert_eq!(stack.foreign(), None);
    }

    #[test]
    fn a_foreign_mount_is_found_below_ours_too() {
        let stack = stack(&format!(
            "{DEPLOYMENT}11 10 0:40 / /usr ro - overlay sysext ro\n\
             12 11 8:1 /ostree/live/2/tree/usr /usr ro - ext4 d rw\n"
        ));
        assert_eq!(stack.foreign(), Some("a merged system extension (systemd-sysext)"));
    }

    #[test]
    fn only_mounts_that_can_be_seen_below_usr_are_carried() {
        let stack = stack(&format!(
            "{DEPLOYMENT}20 10 8:2 / /usr/local rw - ext4 d rw\n\
             11 10 8:1 /ostree/live/2/tree/usr /usr ro - ext4 d rw\n\
             32 31 8:4 / /usr/local/share/deep rw - ext4 d rw\n\
             30 11 8:3 / /usr/local rw - ext4 d rw\n\
             31 30 8:5 / /usr/local rw - ext4 d rw\n\
             40 1 8:6 / /usrx rw - ext4 d rw\n"
        ));
        let ids: Vec<_> = stack.below.iter().map(|mount| mount.id).collect();
        assert_eq!(ids, [31, 32]);
    }

    #[test]
    fn usr_may_be_part_of_the_root_mount() {
        let stack =
            stack("1 0 0:30 / / ro - overlay composefs ro\n2 1 8:2 / /usr/local rw - ext4 d rw\n");
        assert!(stack.layers.is_empty());
        assert_eq!(stack.below.len(), 1);
    }
}
