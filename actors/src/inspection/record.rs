//! What the journal says that the host is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use apt_ostree_proto::id::BootId;
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::status::LostJournal;
use apt_ostree_proto::{CommitId, Failure, TransactionId};

use crate::journal::{Fate, Journal, Payload, RecordedUpdate, UPDATES_KEPT};
use crate::port::{Delta, FileIdentity, Placement};

/// What the journal says.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The boot that the host is in.
    pub boot: Option<BootId>,
    /// The updates that were kept and have taken effect, newest first.
    pub updates: Vec<RecordedUpdate>,
    /// The commit of the update that takes effect with the next boot.
    pub awaits_boot: Option<CommitId>,
    /// How every transaction stands.
    pub fates: BTreeMap<TransactionId, Fate>,
    /// What files of `/etc` are since these updates, by their paths; none where one is gone.
    pub etc: BTreeMap<PathBuf, Option<FileIdentity>>,
    /// The transaction that ended stuck.
    pub stuck: Option<HistoryRecord>,
    /// The journal that was lost.
    pub loss: Option<LostJournal>,
    /// What contradicts itself in the database.
    pub contradictions: Vec<String>,
    /// What transactions cannot be read, and why.
    pub unreadable: BTreeMap<TransactionId, String>,
    /// The dry run that goes on meanwhile.
    pub running: Option<TransactionId>,
}

impl Record {
    /// Reads all of the journal.
    pub fn read(
        journal: &Journal,
        boot: Option<BootId>,
        running: Option<TransactionId>,
    ) -> Result<Self, Failure> {
        let contradictions = journal.contradictions()?;
        let unreadable = journal.unreadable()?;
        let fates = journal.fates()?;
        let updates = in_effect(journal, fates.updates)?;
        let awaits_boot = journal.awaiting_boot()?.and_then(|record| record.commit);
        let is_stuck = fates.all.values().any(|fate| *fate == Fate::Stuck);
        Ok(Self {
            boot,
            etc: etc_of(journal, &updates, &unreadable)?,
            updates,
            awaits_boot,
            fates: fates.all,
            stuck: if is_stuck { journal.stuck()? } else { None },
            loss: journal.loss()?,
            contradictions,
            unreadable,
            running,
        })
    }

    /// The newest update that was kept.
    pub fn newest(&self) -> Option<&RecordedUpdate> {
        self.updates.first()
    }

    /// Whether the newest update was made in the boot that the host is in.
    pub fn is_of_this_boot(&self, update: &RecordedUpdate) -> bool {
        self.boot.is_some() && update.boot == self.boot
    }

    /// The newest updates that follow each other without anybody else's tree between them, newest
    /// first.
    pub fn chain(&self) -> impl Iterator<Item = &RecordedUpdate> {
        let mut wanted: Option<&CommitId> = None;
        let mut is_first = true;
        self.updates.iter().take_while(move |update| {
            let follows = is_first || (wanted.is_some() && update.record.commit.as_ref() == wanted);
            is_first = false;
            wanted = update.record.base.as_ref();
            follows
        })
    }

    /// Transactions that have not ended, but for the one that runs.
    pub fn unfinished(&self) -> impl Iterator<Item = TransactionId> {
        let open = self.fates.iter().filter(|(_, how)| **how == Fate::Unfinished);
        open.map(|(id, _)| *id).filter(|id| Some(*id) != self.running)
    }

    /// Whether anything of the transaction has to stay where it is.
    pub fn needs(&self, id: TransactionId) -> bool {
        match self.fates.get(&id) {
            Some(Fate::Ended) | None => false,
            Some(Fate::Kept | Fate::Unfinished | Fate::Stuck | Fate::Unreadable) => true,
        }
    }

    /// The commits that the newest updates made, and those before them.
    pub fn commits(&self) -> BTreeSet<CommitId> {
        let records = self.updates.iter().take(newest()).map(|update| &update.record);
        let commits = records.flat_map(|record| [&record.commit, &record.base]);
        commits.flatten().cloned().collect()
    }
}

fn in_effect(
    journal: &Journal,
    mut updates: Vec<RecordedUpdate>,
) -> Result<Vec<RecordedUpdate>, Failure> {
    let records = updates.iter().map(|update| update.record.clone()).collect();
    let ids: BTreeSet<_> = journal.in_effect(records)?.iter().map(|record| record.id).collect();
    updates.retain(|update| ids.contains(&update.record.id));
    Ok(updates)
}

/// How many updates an inspection looks back: of so many the logs are kept.
fn newest() -> usize {
    usize::try_from(UPDATES_KEPT).unwrap_or(usize::MAX)
}

/// What the files of `/etc` are that the updates of the chain wrote.
fn etc_of(
    journal: &Journal,
    updates: &[RecordedUpdate],
    unreadable: &BTreeMap<TransactionId, String>,
) -> Result<BTreeMap<PathBuf, Option<FileIdentity>>, Failure> {
    let mut etc = BTreeMap::new();
    for update in updates.iter().take(newest()) {
        let id = update.record.id;
        if unreadable.contains_key(&id) {
            break;
        }
        let Some(recorded) = journal.recorded(id)? else { break };
        let delta = recorded.entries.into_iter().rev().find_map(|entry| match entry.payload {
            Some(Payload::Committed(committed)) => Some(committed.delta),
            _ => None,
        });
        for (path, after) in delta.into_iter().flat_map(written) {
            // The newest update has the last word.
            etc.entry(path).or_insert(after);
        }
    }
    Ok(etc)
}

fn written(delta: Delta) -> impl Iterator<Item = (PathBuf, Option<FileIdentity>)> {
    let in_etc = delta.entries.into_iter().filter(|entry| entry.place == Placement::Etc);
    in_etc.map(|entry| (entry.path, entry.after))
}
