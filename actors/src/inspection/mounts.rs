//! `/usr`: as recorded, read-only, and nobody else's.

use apt_ostree_proto::inspection::FindingKind;

use super::{Action, Found, Record, Sight};
use crate::port::{LayerOwner, UsrLayer};

/// What is wrong with the mounts on `/usr`.
pub(super) fn examine(record: &Record, sight: &Sight) -> Vec<Found> {
    let mut found = Vec::new();
    let layers = &sight.usr.layers;
    for layer in layers {
        if let LayerOwner::Foreign(what) = &layer.owner {
            let expected = "the booted deployment's tree, or an update's";
            found.push(Found::new(FindingKind::UsrForeign, "/usr", expected, what.as_str()));
        }
    }
    let is_ours = |layer: &&UsrLayer| !matches!(layer.owner, LayerOwner::Foreign(_));
    if let Some(top) = layers.last().filter(is_ours) {
        if !top.read_only {
            found.push(
                Found::new(FindingKind::UsrWritable, "/usr", "mounted read-only", "writable")
                    .mended_by(Action::ProtectUsr),
            );
        }
        if let (LayerOwner::Live(_), Some(peer)) = (&top.owner, top.peers.first()) {
            let text = format!("it follows the mounts at {}", peer.display());
            found.push(Found::new(FindingKind::UsrShared, "/usr", "a mount of its own", text));
        }
        if let LayerOwner::Live(id) = top.owner
            && !record.fates.contains_key(&id)
        {
            let text = format!("the tree of transaction {id}, of which there is no record");
            found.push(Found::new(FindingKind::UnrecordedTree, "/usr", "a recorded tree", text));
        }
    }
    if layers.len() > 1 && layers.iter().all(|layer| is_ours(&layer)) {
        let text = format!("{} mounts on top of one another", layers.len());
        found.push(Found::new(FindingKind::UsrCovered, "/usr", "one mount", text));
    }
    for id in &sight.usr.helpers {
        if record.running != Some(*id) {
            let subject = format!("transaction {id}");
            let text = "its rescue guard listens, or its mount namespace is pinned";
            found.push(
                Found::new(FindingKind::HelperLeft, subject, "over", text)
                    .mended_by(Action::StandDown(*id)),
            );
        }
    }
    found
}
