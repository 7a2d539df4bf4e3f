//! What transactions left that nobody needs any more.

use apt_ostree_proto::inspection::FindingKind;

use super::{Action, Found, Record, Sight};

/// Trees, refs and kept files of transactions that are over.
pub(super) fn examine(record: &Record, sight: &Sight) -> Vec<Found> {
    let mut found = Vec::new();
    for (id, live) in &sight.trees.live {
        if record.needs(*id) || record.running == Some(*id) {
            continue;
        }
        let expected = if record.fates.contains_key(id) {
            "nothing: the transaction was not kept"
        } else {
            "nothing: there is no record of the transaction"
        };
        let subject = format!("transaction {id}");
        if live.is_mounted {
            let text = "a process has its tree mounted";
            found.push(Found::new(FindingKind::HeldTree, subject.as_str(), expected, text));
            if live.has_stage {
                found.push(
                    Found::new(FindingKind::LeftoverTree, subject, expected, "a staging area")
                        .mended_by(Action::DropStage(*id)),
                );
            }
            continue;
        }
        if live.has_stage || live.has_files {
            let text = match (live.has_stage, live.has_files) {
                (true, false) => "a staging area",
                (true, true) => "a staging area and files",
                _ => "files",
            };
            found.push(
                Found::new(FindingKind::LeftoverTree, subject, expected, text)
                    .mended_by(Action::CleanUp),
            );
        }
        if let Some(commit) = &live.reference {
            let subject = format!("apt-ostree/live/{id}");
            let text = format!("commit {commit}");
            found.push(
                Found::new(FindingKind::LeftoverRef, subject, expected, text)
                    .mended_by(Action::CleanUp),
            );
        }
    }
    if sight.trees.trash > 0 {
        let text = format!("{} trees wait to be removed", sight.trees.trash);
        found.push(Found::new(FindingKind::Trash, "/sysroot/ostree/live/trash", "empty", text));
    }
    found
}
