//! Which transactions' trees are in use: what any process's mount namespace shows.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use apt_ostree_actors::port::PortResult;
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};

use super::mountinfo;

/// Transactions whose tree any process's mount namespace shows.
pub fn mounted_transactions() -> PortResult<BTreeSet<TransactionId>> {
    let processes = fs::read_dir("/proc").map_err(|error| {
        Failure::caused(ErrorCode::Internal, "the processes cannot be listed", &error)
    })?;
    let mut seen = BTreeSet::new();
    let mut mounted = BTreeSet::new();
    for process in processes.flatten() {
        // One look a namespace; processes that are gone by now hold nothing.
        let Ok(namespace) = fs::read_link(process.path().join("ns/mnt")) else { continue };
        if !seen.insert(namespace) {
            continue;
        }
        if let Ok(text) = fs::read_to_string(process.path().join("mountinfo")) {
            let mounts = mountinfo::parse(&text);
            mounted.extend(mounts.iter().filter_map(|mount| transaction_of(&mount.root)));
        }
    }
    Ok(mounted)
}

/// Whether process 1 sees the transaction's tree, and with it whoever has no mounts of its own.
pub(super) fn is_mounted_on_host(transaction: TransactionId) -> PortResult<bool> {
    let text = fs::read_to_string("/proc/1/mountinfo").map_err(|error| {
        Failure::caused(ErrorCode::Internal, "what is mounted cannot be read", &error)
    })?;
    let mounts = mountinfo::parse(&text);
    Ok(mounts.iter().any(|mount| transaction_of(&mount.root) == Some(transaction)))
}

/// The transaction whose directory a mount's root is in.
fn transaction_of(root: &Path) -> Option<TransactionId> {
    let names: Vec<&str> = root.iter().map(|name| name.to_str().unwrap_or("")).collect();
    let start = names.windows(3).position(|pair| pair[0] == "ostree" && pair[1] == "live")?;
    names[start + 2].parse().ok().map(TransactionId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_of_any_part_of_a_live_tree_holds_it() {
        for (root, transaction) in [
            ("/ostree/live/7/tree/usr", Some(7)),
            ("/@/ostree/live/12/tree/usr/lib/modules", Some(12)),
            ("/ostree/live", None),
            ("/ostree/deploy/debian/deploy/x.0/usr", None),
            ("/ostree/live/x/tree", None),
        ] {
            assert_eq!(transaction_of(Path::new(root)), transaction.map(TransactionId), "{root}");
        }
    }
}
