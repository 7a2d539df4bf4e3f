//! Named rollback points, what retention kept last, and what of the history is still in effect.

use std::collections::{BTreeMap, BTreeSet};

use apt_ostree_proto::point::{KeptUpdate, Point};
use apt_ostree_proto::record::{HistoryEntry, HistoryRecord, RollbackState};
use apt_ostree_proto::status::Outcome;
use apt_ostree_proto::{CommitId, Failure, PointName, TransactionId};
use rusqlite::{Connection, Row, params};

use super::{Journal, sql_id};

/// How many updates may lie between a named point and the present for a rollback to it: what they changed in
/// `/etc` and `/var` is kept until the name is removed. Four years of weekly updates, and some 40 MB of log.
pub const LONGEST_WAY_BACK: u32 = 200;

/// What changed the host and was kept, without what a record holds.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// All such transactions, newest first.
    pub kept: Vec<TransactionId>,
    /// Those of them that were rolled back since, and not brought back.
    pub undone: BTreeSet<TransactionId>,
}

impl Standing {
    /// Reads transactions, newest first, each with the one that it went back before.
    fn of(rows: impl IntoIterator<Item = (TransactionId, Option<TransactionId>)>) -> Self {
        let mut standing = Self::default();
        let mut undone_from = TransactionId(u64::MAX);
        for (id, goes_before) in rows {
            standing.kept.push(id);
            if id >= undone_from {
                // What a rollback that was undone itself had undone is in effect again.
                standing.undone.insert(id);
            } else if let Some(before) = goes_before {
                undone_from = undone_from.min(before);
            }
        }
        standing
    }

    /// The oldest transaction after `point`: undoing it and all later ones leads to the point.
    pub fn first_after(&self, point: &Point) -> Option<TransactionId> {
        self.later_than(point).last()
    }

    /// The transactions after `point`, newest first.
    pub fn later_than(&self, point: &Point) -> impl Iterator<Item = TransactionId> + use<'_> {
        let after = point.after;
        self.kept.iter().copied().take_while(move |id| *id > after)
    }
}

impl Journal {
    /// What changed the host and was kept.
    pub fn standing(&self) -> Result<Standing, Failure> {
        self.read(|connection| {
            let rows = connection
                .prepare(
                    "SELECT id, json_extract(request, '$.target.before') FROM transactions
                     WHERE outcome IN (?1, ?2) ORDER BY id DESC",
                )?
                .query_map([Outcome::Committed.name(), Outcome::Forced.name()], |row| {
                    let before: Option<i64> = row.get(1)?;
                    Ok((id_of(row.get(0)?), before.map(id_of)))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            Ok(Standing::of(rows))
        })
    }

    /// The named points, oldest first.
    pub fn points(&self) -> Result<Vec<Point>, Failure> {
        self.read(points)
    }

    /// The point of this name.
    pub fn point(&self, name: &PointName) -> Result<Option<Point>, Failure> {
        Ok(self.points()?.into_iter().find(|point| point.name == *name))
    }

    /// Adds a point. Durable when it returns.
    pub fn add_point(&self, point: &Point) -> Result<(), Failure> {
        self.write(|connection| {
            connection
                .execute(
                    "INSERT INTO points (name, after_id, commit_id, named_seconds, uid)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        point.name.as_str(),
                        sql_id(point.after),
                        point.commit.as_str(),
                        point.named_seconds,
                        point.uid,
                    ],
                )
                .map(drop)
        })
    }

    /// Removes a point; answers whether there was one. Durable when it returns.
    pub fn remove_point(&self, name: &PointName) -> Result<bool, Failure> {
        self.write(|connection| {
            let removed =
                connection.execute("DELETE FROM points WHERE name = ?1", [name.as_str()])?;
            Ok(removed > 0)
        })
    }

    /// The updates that can be undone, as the last clean-up left them, newest first.
    pub fn kept_updates(&self) -> Result<Vec<KeptUpdate>, Failure> {
        self.read(|connection| {
            connection
                .prepare(
                    "SELECT transaction_id, commit_id, bytes FROM kept_updates
                     ORDER BY transaction_id DESC",
                )?
                .query_map([], |row| {
                    let bytes: i64 = row.get(2)?;
                    Ok(KeptUpdate {
                        id: id_of(row.get(0)?),
                        commit: commit(row, 1)?,
                        bytes: bytes.unsigned_abs(),
                    })
                })?
                .collect()
        })
    }

    /// Writes down what a clean-up left, in place of what an earlier one did.
    pub fn set_kept_updates(&self, kept: &[KeptUpdate]) -> Result<(), Failure> {
        self.write(|connection| {
            let change = connection.unchecked_transaction()?;
            change.execute("DELETE FROM kept_updates", [])?;
            for update in kept {
                change.execute(
                    "INSERT INTO kept_updates (transaction_id, commit_id, bytes)
                     VALUES (?1, ?2, ?3)",
                    params![
                        sql_id(update.id),
                        update.commit.as_str(),
                        i64::try_from(update.bytes).unwrap_or(i64::MAX),
                    ],
                )?;
            }
            change.commit()
        })
    }

    /// The records with what has become of their transactions since.
    pub fn annotate(&self, records: Vec<HistoryRecord>) -> Result<Vec<HistoryEntry>, Failure> {
        let standing = self.standing()?;
        let points = self.points()?;
        let kept: BTreeMap<TransactionId, u64> =
            self.kept_updates()?.into_iter().map(|update| (update.id, update.bytes)).collect();
        let following: Vec<(Option<TransactionId>, &CommitId)> =
            points.iter().map(|point| (standing.first_after(point), &point.commit)).collect();
        let awaiting = self.awaiting_boot()?.map(|record| record.id);
        let entry = |record: HistoryRecord| {
            let changed = matches!(record.outcome, Outcome::Committed | Outcome::Forced);
            let follows_point = following.iter().any(|(first, commit)| {
                *first == Some(record.id) && record.base.as_ref() == Some(*commit)
            });
            let rollback = if standing.undone.contains(&record.id) {
                RollbackState::Undone
            } else if kept.contains_key(&record.id) || follows_point {
                RollbackState::Possible
            } else {
                RollbackState::Gone
            };
            let named = points.iter().filter(|point| changed && point.after == record.id);
            HistoryEntry {
                rollback: changed.then_some(rollback),
                kept_bytes: kept.get(&record.id).copied(),
                points: named.map(|point| point.name.clone()).collect(),
                awaits_boot: awaiting == Some(record.id),
                record,
            }
        };
        Ok(records.into_iter().map(entry).collect())
    }

    /// The commits that records name and that begin so, each once.
    pub fn commits_beginning(&self, prefix: &str) -> Result<BTreeSet<CommitId>, Failure> {
        self.read(|connection| {
            connection
                .prepare(
                    "SELECT json_extract(record, '$.commit') AS found FROM transactions
                     WHERE found GLOB ?1 || '*'
                     UNION SELECT json_extract(record, '$.base') AS found FROM transactions
                     WHERE found GLOB ?1 || '*'",
                )?
                .query_map([prefix], |row| commit(row, 0))?
                .collect()
        })
    }
}

/// The transaction that the oldest point follows; none without points.
pub(super) fn oldest_point(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection.query_row("SELECT min(after_id) FROM points", [], |row| row.get(0))
}

fn points(connection: &Connection) -> rusqlite::Result<Vec<Point>> {
    connection
        .prepare(
            "SELECT name, after_id, commit_id, named_seconds, uid FROM points
             ORDER BY after_id, named_seconds, name",
        )?
        .query_map([], |row| {
            Ok(Point {
                name: PointName::parse(row.get::<_, String>(0)?).map_err(|e| malformed(0, e))?,
                after: id_of(row.get(1)?),
                commit: commit(row, 2)?,
                named_seconds: row.get(3)?,
                uid: row.get(4)?,
            })
        })?
        .collect()
}

fn commit(row: &Row<'_>, index: usize) -> rusqlite::Result<CommitId> {
    CommitId::parse(row.get::<_, String>(index)?).map_err(|error| malformed(index, error))
}

fn malformed(index: usize, error: apt_ostree_proto::id::InvalidName) -> rusqlite::Error {
    let kind = rusqlite::types::Type::Text;
    rusqlite::Error::FromSqlConversionFailure(index, kind, Box::new(error))
}

pub(super) fn id_of(id: i64) -> TransactionId {
    TransactionId(id.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use apt_ostree_proto::request::{Caller, Target, UpdateRequest};
    use apt_ostree_proto::step::Step;

    use super::*;
    use crate::journal::Entry;
    use crate::journal::tests::finished;
    use crate::saga::Mark;
    use crate::sim::sim_commit;

    fn point(name: &str, after: u64) -> Point {
        Point {
            name: PointName::parse(name).unwrap(),
            after: TransactionId(after),
            commit: sim_commit(after),
            named_seconds: 5,
            uid: 7,
        }
    }

    fn standing(rows: &[(u64, Option<u64>)]) -> Vec<u64> {
        let ids = rows.iter().map(|(id, before)| (TransactionId(*id), before.map(TransactionId)));
        Standing::of(ids).undone.into_iter().map(|id| id.0).collect()
    }

    #[test]
    fn a_rollback_undoes_a_range_and_its_own_rollback_brings_that_back() {
        assert_eq!(standing(&[(3, None), (2, None), (1, None)]), [0; 0]);
        assert_eq!(standing(&[(4, Some(2)), (3, None), (2, None), (1, None)]), [2, 3]);
        // 5 undoes the rollback 4.
        assert_eq!(standing(&[(5, Some(4)), (4, Some(2)), (3, None), (2, None)]), [4]);
        // 6 is applied on top of a rollback, and undone with it.
        assert_eq!(standing(&[(7, Some(4)), (6, None), (4, Some(2)), (2, None)]), [4, 6]);
        assert_eq!(standing(&[(5, Some(1)), (4, Some(3)), (3, None), (1, None)]), [1, 3, 4]);
    }

    #[test]
    fn points_are_found_by_their_names_and_removed_once() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        let (late, early) = (point("late", 4), point("early", 0));
        journal.add_point(&late).unwrap();
        journal.add_point(&early).unwrap();
        assert!(journal.add_point(&point("late", 5)).is_err(), "a name is given once");
        assert_eq!(journal.points().unwrap(), [early, late.clone()]);
        assert_eq!(journal.point(&late.name).unwrap(), Some(late.clone()));
        assert!(journal.remove_point(&late.name).unwrap());
        assert!(!journal.remove_point(&late.name).unwrap());
        assert_eq!(journal.point(&late.name).unwrap(), None);
    }

    #[test]
    fn what_a_clean_up_kept_takes_the_place_of_what_the_last_one_did() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        let kept =
            |id: u64| KeptUpdate { id: TransactionId(id), commit: sim_commit(id), bytes: id };
        journal.set_kept_updates(&[kept(1), kept(2)]).unwrap();
        assert_eq!(journal.kept_updates().unwrap(), [kept(2), kept(1)]);
        journal.set_kept_updates(&[kept(3)]).unwrap();
        assert_eq!(journal.kept_updates().unwrap(), [kept(3)]);
    }

    #[test]
    fn the_history_says_what_can_be_undone_what_was_and_what_cannot_be_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        let end = |target: Target, outcome: Outcome| {
            let request = UpdateRequest::new(target);
            let id = journal.begin("x", &request, &Caller::default(), &[Step::Plan], None).unwrap();
            let base = Some(sim_commit(id.0 - 1));
            let record = HistoryRecord { base, request, ..finished(id, outcome) };
            journal.finish(&record, &Entry::new(Mark::Finished(outcome))).unwrap();
        };
        end(Target::Pending, Outcome::Committed);
        end(Target::Pending, Outcome::Committed);
        end(Target::Pending, Outcome::RolledBack);
        end(Target::Pending, Outcome::Forced);
        end(Target::Pending, Outcome::Committed);
        end(Target::Before(TransactionId(5)), Outcome::Committed);
        let id = TransactionId(6);
        journal.set_kept_updates(&[KeptUpdate { id, commit: sim_commit(5), bytes: 9 }]).unwrap();
        // Named by the commit that ran before 2.
        journal.add_point(&point("p", 1)).unwrap();

        let entries = journal.annotate(journal.history(10).unwrap()).unwrap();
        let told: Vec<_> = entries.iter().rev().map(|entry| entry.rollback).collect();
        let (possible, gone) = (Some(RollbackState::Possible), Some(RollbackState::Gone));
        assert_eq!(told, [gone, possible, None, gone, Some(RollbackState::Undone), possible]);
        assert_eq!(entries[0].kept_bytes, Some(9));
        assert_eq!(entries[5].points, [PointName::parse("p").unwrap()]);
        assert_eq!(journal.newest_update().unwrap().unwrap().id, TransactionId(4));
    }

    #[test]
    fn commits_are_found_by_how_they_begin() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        let request = UpdateRequest::new(Target::Pending);
        let id = journal.begin("x", &request, &Caller::default(), &[Step::Plan], None).unwrap();
        let (base, commit) = (Some(sim_commit(1)), Some(sim_commit(0x10)));
        let record = HistoryRecord { base, commit, ..finished(id, Outcome::Committed) };
        journal.finish(&record, &Entry::new(Mark::Finished(Outcome::Committed))).unwrap();
        assert_eq!(journal.commits_beginning(&"0".repeat(12)).unwrap().len(), 2);
        let whole = sim_commit(0x10);
        assert_eq!(journal.commits_beginning(whole.as_str()).unwrap(), [whole].into());
        assert!(journal.commits_beginning("abc").unwrap().is_empty());
    }
}
