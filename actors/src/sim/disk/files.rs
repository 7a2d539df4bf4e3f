//! `/etc` and `/var` of the simulated disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use apt_ostree_proto::TransactionId;
use async_trait::async_trait;

use super::{DiskState, SimDisk};
use crate::context::StepContext;
use crate::port::{
    Delta, DeltaEntry, DeltaSource, FileIdentity, Files, Placement, PortResult, RebootAdvice,
};

#[async_trait(?Send)]
impl Files for SimDisk {
    async fn prepare(&self, source: &DeltaSource, context: &StepContext) -> PortResult<Delta> {
        let entries = match source {
            DeltaSource::Stage => self.delta.borrow().clone(),
            DeltaSource::Trees { .. } => Vec::new(),
            DeltaSource::Reverse { deltas } => deltas.iter().flat_map(reversed).collect(),
        };
        let transaction = context.transaction;
        let live_data = match source {
            DeltaSource::Stage => self.live_data.borrow().clone(),
            DeltaSource::Trees { .. } | DeltaSource::Reverse { .. } => Vec::new(),
        };
        self.call("files.prepare", |state| {
            if let DeltaSource::Reverse { deltas } = source {
                deltas.iter().try_for_each(|delta| state.require_files(delta))?;
            }
            state.kept_files.insert(transaction);
            let (entries, kept) = planned(&state.files, entries);
            Ok(Delta { transaction, entries, kept, live_data })
        })
        .await
    }

    async fn apply(&self, delta: &Delta) -> PortResult<Vec<String>> {
        self.call("files.apply", |state| Ok(exchange(state, delta.entries.iter().cloned()))).await
    }

    async fn revert(&self, delta: &Delta) -> PortResult<Vec<String>> {
        self.call("files.revert", |state| Ok(exchange(state, reversed(delta)))).await
    }

    async fn append_logs(&self, _: TransactionId) -> PortResult<()> {
        self.call("files.append_logs", |_| Ok(())).await
    }

    async fn discard(&self, transaction: TransactionId) -> PortResult<()> {
        self.call("files.discard", |state| {
            state.kept_files.remove(&transaction);
            Ok(())
        })
        .await
    }

    async fn advise_reboot(&self, advice: &RebootAdvice) -> PortResult<()> {
        self.call("files.advise_reboot", |state| {
            for package in &advice.withdrawn {
                state.awaiting_boot.remove(package);
            }
            state.awaiting_boot.extend(advice.waiting.iter().cloned());
            Ok(())
        })
        .await
    }

    async fn identify(&self, paths: &[PathBuf]) -> PortResult<Vec<Option<FileIdentity>>> {
        self.call("files.identify", |state| {
            let file = |path: &PathBuf| state.files.get(&(Placement::Etc, path.clone())).cloned();
            Ok(paths.iter().map(file).collect())
        })
        .await
    }
}

fn reversed(delta: &Delta) -> impl Iterator<Item = DeltaEntry> + use<> {
    let mut entries = delta.entries.clone();
    entries.reverse();
    entries.into_iter().map(|mut entry| {
        std::mem::swap(&mut entry.before, &mut entry.after);
        entry
    })
}

/// What of `entries` is to be done to these files, each path once; and what was edited since, and stays.
fn planned(
    files: &BTreeMap<(Placement, PathBuf), FileIdentity>,
    entries: Vec<DeltaEntry>,
) -> (Vec<DeltaEntry>, Vec<String>) {
    let mut planned: Vec<DeltaEntry> = Vec::new();
    let mut kept = Vec::new();
    for entry in entries {
        let is_same =
            |other: &&mut DeltaEntry| (other.place, &other.path) == (entry.place, &entry.path);
        let earlier = planned.iter_mut().find(is_same);
        let live = match &earlier {
            Some(earlier) => earlier.after.clone(),
            None => files.get(&(entry.place, entry.path.clone())).cloned(),
        };
        if live == entry.after {
            continue;
        }
        if live != entry.before {
            kept.push(edited(&entry.path));
            continue;
        }
        match earlier {
            Some(earlier) => earlier.after = entry.after,
            None => planned.push(entry),
        }
    }
    planned.retain(|entry| entry.before != entry.after);
    (planned, kept)
}

fn edited(path: &Path) -> String {
    format!("{} was edited since", path.display())
}

/// Exchanges file by file; answers what is neither in the state before nor in the one after.
fn exchange(state: &mut DiskState, entries: impl Iterator<Item = DeltaEntry>) -> Vec<String> {
    let mut kept = Vec::new();
    for DeltaEntry { place, path, before, after } in entries {
        let key = (place, path);
        let live = state.files.get(&key).cloned();
        if live == after {
            continue;
        }
        if live != before {
            kept.push(edited(&key.1));
            continue;
        }
        match after {
            Some(after) => drop(state.files.insert(key, after)),
            None => drop(state.files.remove(&key)),
        }
    }
    kept
}
