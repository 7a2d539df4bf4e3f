use apt_ostree_proto::{CommitId, PointName, TransactionId};
use serde::{Deserialize, Serialize};

/// What a clean-up keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// The newest updates, newest first.
    pub updates: Vec<Undoable>,
    /// How many of them it shall be possible to undo.
    pub count: usize,
    /// How many bytes the trees that they lead back to may occupy in the repository, if there is a
    /// limit. The newest can be undone in any case.
    pub bytes: Option<u64>,
    /// Transactions whose kept files of `/etc` and `/var` stay, for the way back to a named point.
    pub files: Vec<TransactionId>,
    /// The named points and their commits.
    pub points: Vec<(PointName, CommitId)>,
}

/// An update that may be undone one day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undoable {
    /// The update.
    pub id: TransactionId,
    /// The commit that ran before.
    pub base: CommitId,
}

impl Retention {
    /// The updates that are to be kept if bytes do not matter.
    pub fn wanted(&self) -> &[Undoable] {
        &self.updates[..self.count.min(self.updates.len())]
    }

    /// How many of the wanted updates can be kept, when the trees that they lead back to occupy so
    /// many bytes each, beside everything newer.
    pub fn fitting(&self, sizes: &[u64]) -> usize {
        let Some(limit) = self.bytes else { return sizes.len() };
        let mut total: u64 = 0;
        let fits = |size: &&u64| {
            total = total.saturating_add(**size);
            total <= limit
        };
        sizes.iter().take_while(fits).count().max(1).min(sizes.len())
    }

    /// The transactions whose trees stay when `kept` updates can be undone: theirs, and the one that
    /// undoing the oldest of them goes back to, which is mounted without a new checkout then.
    pub fn trees(&self, kept: usize) -> impl Iterator<Item = TransactionId> + '_ {
        self.updates.iter().take(kept + 1).map(|update| update.id)
    }

    /// The transactions whose kept files stay when `kept` updates can be undone.
    pub fn files(&self, kept: usize) -> impl Iterator<Item = TransactionId> + '_ {
        self.trees(kept).chain(self.files.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::sim_commit;

    fn retention(count: usize, bytes: Option<u64>) -> Retention {
        let update = |id| Undoable { id: TransactionId(id), base: sim_commit(id) };
        let updates = [9, 8, 7, 6].map(update).to_vec();
        Retention { updates, count, bytes, ..Retention::default() }
    }

    #[test]
    fn the_oldest_go_first_and_the_newest_always_stays() {
        let sizes = [10, 20, 30];
        for (limit, kept) in
            [(None, 3), (Some(60), 3), (Some(59), 2), (Some(30), 2), (Some(29), 1), (Some(0), 1)]
        {
            assert_eq!(retention(3, limit).fitting(&sizes), kept, "{limit:?}");
        }
        assert_eq!(retention(3, Some(0)).fitting(&[]), 0);
        assert_eq!(retention(3, Some(u64::MAX)).fitting(&[u64::MAX, u64::MAX]), 2);
    }

    #[test]
    fn the_tree_that_the_oldest_kept_update_leads_back_to_stays() {
        let retention = retention(9, None);
        assert_eq!(retention.wanted().len(), 4);
        let ids = |kept| retention.trees(kept).map(|id| id.0).collect::<Vec<_>>();
        assert_eq!(ids(1), [9, 8]);
        assert_eq!(ids(4), [9, 8, 7, 6]);
    }
}
