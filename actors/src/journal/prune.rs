//! What is forgotten of old transactions, so that neither the file nor a look at it grows for ever.
//!
//! A transaction has a record, which the history shows, and a log: its plan, what its steps left for
//! each other and for an undo. Both go by number, not by age: a host that is updated once a year keeps
//! the same.

use std::collections::BTreeSet;

use apt_ostree_proto::{Failure, TransactionId};
use rusqlite::{Connection, params};

use super::Journal;
use super::points::{LONGEST_WAY_BACK, oldest_point};

/// How much is kept.
#[derive(Clone, Copy, Debug)]
struct Limits {
    records: u32,
    logs: u32,
    updates: u32,
}

/// Of so many transactions the records stay: years of updates, and some 20 MB at the most.
pub const RECORDS_KEPT: u32 = 1_000;
/// Of so many newest transactions the logs stay, and with them the plans that `--plan=` finds: two days
/// of hourly checks, and some 10 MB of large upgrades.
const LOGS_KEPT: u32 = 50;
/// Of so many newest updates and rollbacks that were kept, the logs stay whatever came after them: a
/// rollback reads from them what was changed besides `/usr`.
pub const UPDATES_KEPT: u32 = 20;

const LIMITS: Limits = Limits { records: RECORDS_KEPT, logs: LOGS_KEPT, updates: UPDATES_KEPT };

/// What no limit reaches: transactions that are not over, which recovery or `repair` takes up, the newest
/// updates, and those on the way back to a named point.
const NEEDED: &str = "(outcome IS NULL OR outcome = 'stuck' OR id IN
    (SELECT id FROM transactions WHERE outcome IN ('committed', 'forced') ORDER BY id DESC LIMIT ?2)
    OR id > ?3 AND id IN
    (SELECT id FROM transactions WHERE outcome IN ('committed', 'forced') ORDER BY id DESC LIMIT ?4))";

impl Journal {
    /// Forgets what nothing needs any more, in one commit; answers the transactions whose logs stay.
    /// Idempotent.
    pub fn prune(&self) -> Result<BTreeSet<TransactionId>, Failure> {
        self.prune_to(LIMITS)
    }

    fn prune_to(&self, limits: Limits) -> Result<BTreeSet<TransactionId>, Failure> {
        self.write(|connection| {
            let commit = connection.unchecked_transaction()?;
            let with_logs = kept(&commit, limits.logs, limits.updates)?;
            let with_records = kept(&commit, limits.records.max(limits.logs), limits.updates)?;
            for id in ids(&commit, "SELECT DISTINCT transaction_id FROM entries", [])? {
                if !with_logs.contains(&id) {
                    commit.execute("DELETE FROM entries WHERE transaction_id = ?1", [id])?;
                }
            }
            for id in ids(&commit, "SELECT id FROM transactions", [])? {
                if !with_records.contains(&id) {
                    commit.execute("DELETE FROM transactions WHERE id = ?1", [id])?;
                }
            }
            commit.commit()?;
            Ok(with_logs.into_iter().map(|id| TransactionId(id.unsigned_abs())).collect())
        })
    }
}

/// The transactions that stay when the newest `newest` and the newest `updates` do.
fn kept(connection: &Connection, newest: u32, updates: u32) -> rusqlite::Result<BTreeSet<i64>> {
    let query = format!(
        "SELECT id FROM transactions WHERE {NEEDED}
         OR id IN (SELECT id FROM transactions ORDER BY id DESC LIMIT ?1)"
    );
    let point = oldest_point(connection)?.unwrap_or(i64::MAX);
    ids(connection, &query, params![newest, updates, point, LONGEST_WAY_BACK])
}

fn ids(
    connection: &Connection,
    query: &str,
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<BTreeSet<i64>> {
    connection.prepare(query)?.query_map(parameters, |row| row.get(0))?.collect()
}

#[cfg(test)]
mod tests {
    use apt_ostree_proto::request::{Caller, Selection, Target, UpdateRequest};
    use apt_ostree_proto::status::Outcome;
    use apt_ostree_proto::step::Step;

    use super::*;
    use crate::journal::Entry;
    use crate::journal::tests::finished;
    use crate::saga::Mark;

    const FEW: Limits = Limits { records: 6, logs: 3, updates: 2 };

    /// A journal with transactions that ended so, or have not.
    fn journal_of(outcomes: &[Option<Outcome>]) -> (tempfile::TempDir, Journal) {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        let request = UpdateRequest::new(Target::Packages(Selection::default()));
        for outcome in outcomes {
            let id = journal
                .begin("upgrade", &request, &Caller::default(), Step::FROM_PACKAGES, None)
                .unwrap();
            journal.append(id, &Entry::new(Mark::Started(Step::Plan))).unwrap();
            if let Some(outcome) = outcome {
                let entry = Entry::new(Mark::Finished(*outcome));
                journal.finish(&finished(id, *outcome), &entry).unwrap();
            }
        }
        (directory, journal)
    }

    fn with_records(journal: &Journal) -> Vec<u64> {
        (1..=30).filter(|id| journal.recorded(TransactionId(*id)).unwrap().is_some()).collect()
    }

    fn with_logs(journal: &Journal) -> Vec<u64> {
        let has_log = |id: &u64| {
            let recorded = journal.recorded(TransactionId(*id)).unwrap();
            recorded.is_some_and(|recorded| !recorded.entries.is_empty())
        };
        (1..=30).filter(has_log).collect()
    }

    #[test]
    fn old_logs_go_first_and_old_records_later() {
        let (_directory, journal) = journal_of(&[Some(Outcome::Planned); 10]);
        for _ in 0..2 {
            let logs = journal.prune_to(FEW).unwrap();
            assert_eq!(logs, [8, 9, 10].map(TransactionId).into());
            assert_eq!(with_logs(&journal), [8, 9, 10]);
            assert_eq!(with_records(&journal), [5, 6, 7, 8, 9, 10]);
        }
        assert_eq!(journal.history(100).unwrap().len(), 6);
    }

    #[test]
    fn what_recovery_repair_and_a_rollback_need_stays() {
        let mut outcomes = vec![Some(Outcome::Planned); 20];
        outcomes[0] = None;
        outcomes[1] = Some(Outcome::Stuck);
        for kept in [2, 3, 4] {
            outcomes[kept] = Some(Outcome::Committed);
        }
        outcomes[4] = Some(Outcome::Forced);
        let (_directory, journal) = journal_of(&outcomes);
        journal.prune_to(FEW).unwrap();
        assert_eq!(with_logs(&journal), [1, 2, 4, 5, 18, 19, 20]);
        assert_eq!(with_records(&journal), [1, 2, 4, 5, 15, 16, 17, 18, 19, 20]);
        assert_eq!(journal.unfinished().unwrap()[0].id, TransactionId(1));
        assert_eq!(journal.stuck().unwrap().unwrap().id, TransactionId(2));
        assert_eq!(journal.newest_update().unwrap().unwrap().id, TransactionId(5));
        assert_eq!(journal.kept_since(TransactionId(4)).unwrap().len(), 2);
        assert!(journal.kept_since(TransactionId(3)).unwrap().is_empty());
    }

    #[test]
    fn what_the_way_back_to_a_named_point_needs_stays_until_the_name_is_removed() {
        let (_directory, journal) = journal_of(&[Some(Outcome::Committed); 10]);
        let name = apt_ostree_proto::PointName::parse("p").unwrap();
        let point = apt_ostree_proto::point::Point {
            name: name.clone(),
            after: TransactionId(4),
            commit: crate::sim::sim_commit(4),
            named_seconds: 0,
            uid: 0,
        };
        journal.add_point(&point).unwrap();
        let few = Limits { records: 3, ..FEW };
        journal.prune_to(few).unwrap();
        assert_eq!(with_logs(&journal), [5, 6, 7, 8, 9, 10]);
        assert_eq!(with_records(&journal), [5, 6, 7, 8, 9, 10]);
        journal.remove_point(&name).unwrap();
        journal.prune_to(few).unwrap();
        assert_eq!(with_logs(&journal), [8, 9, 10]);
    }

    #[test]
    fn numbers_are_not_given_again_when_all_is_forgotten() {
        let (_directory, journal) = journal_of(&[Some(Outcome::Failed); 4]);
        journal.prune_to(Limits { records: 0, logs: 0, updates: 0 }).unwrap();
        assert!(with_records(&journal).is_empty());
        let request = UpdateRequest::new(Target::Pending);
        let id = journal.begin("x", &request, &Caller::default(), &[Step::Plan], None).unwrap();
        assert_eq!(id, TransactionId(5));
    }

    #[test]
    fn a_few_transactions_stay_whole() {
        let (_directory, journal) = journal_of(&[Some(Outcome::Failed); 4]);
        assert_eq!(journal.prune().unwrap().len(), 4);
        assert_eq!(with_logs(&journal), [1, 2, 3, 4]);
    }
}
