//! Forgets old transactions: in the journal, and the files with what their tools printed.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use apt_ostree_proto::TransactionId;

use super::Parts;

/// Forgets what nothing needs any more. A failure costs space only, and is told in the log.
pub(super) async fn prune(parts: Parts) {
    let logs = parts.settings.log_directory();
    let pruned = parts.journal.with(move |journal| {
        let kept = journal.prune()?;
        if let Err(error) = remove_logs(&logs, &kept) {
            tracing::warn!(%error, "old logs cannot be removed from {}", logs.display());
        }
        Ok(())
    });
    if let Err(failure) = pruned.await {
        tracing::warn!(%failure, "old transactions cannot be forgotten");
    }
}

/// Removes the logs of all transactions but `kept`; what is no log of a transaction stays.
fn remove_logs(directory: &Path, kept: &BTreeSet<TransactionId>) -> io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok());
        if number.is_some_and(|number| !kept.contains(&TransactionId(number))) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_logs_of_forgotten_transactions_go() {
        let directory = tempfile::tempdir().unwrap();
        remove_logs(&directory.path().join("none"), &BTreeSet::new()).unwrap();
        for name in ["7.log", "8.log", "08.log.gz", "notes.log", "9"] {
            std::fs::write(directory.path().join(name), name).unwrap();
        }
        remove_logs(directory.path(), &[TransactionId(8)].into()).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["08.log.gz", "8.log", "9", "notes.log"]);
    }
}
