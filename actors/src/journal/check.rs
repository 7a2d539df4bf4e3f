//! Reading the whole journal to see what it is worth: what cannot be read is named, and the rest is read
//! all the same.

use std::collections::BTreeMap;

use apt_ostree_proto::id::BootId;
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::status::Outcome;
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use rusqlite::Row;

use super::{Journal, aside, column, sql_id};
use crate::saga;

/// How many contradictions SQLite is asked for: whoever reads more learns nothing new.
const MOST_CONTRADICTIONS: u32 = 20;
/// What outcome a transaction has whose end nobody can know any more.
const UNREADABLE: &str = "unreadable";

/// What the journal says of all its transactions.
#[derive(Clone, Debug, Default)]
pub struct Fates {
    /// How each one stands.
    pub all: BTreeMap<TransactionId, Fate>,
    /// Those that were kept, newest first, with the boot that each began in.
    pub updates: Vec<RecordedUpdate>,
    /// What cannot be read, and why.
    pub unreadable: BTreeMap<TransactionId, String>,
}

/// How a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It changed the host and was kept.
    Kept,
    /// It has ended in any other way.
    Ended,
    /// It has not ended.
    Unfinished,
    /// It has ended stuck.
    Stuck,
    /// It cannot be told.
    Unreadable,
}

/// A transaction that changed the host and was kept.
#[derive(Clone, Debug)]
pub struct RecordedUpdate {
    /// Its record.
    pub record: HistoryRecord,
    /// The boot that it began in.
    pub boot: Option<BootId>,
}

impl Journal {
    /// How every transaction stands. A row that cannot be read is no error.
    pub fn fates(&self) -> Result<Fates, Failure> {
        let mut fates = Fates::default();
        self.read(|connection| {
            let query = "SELECT id, outcome, record, boot FROM transactions ORDER BY id DESC";
            let mut statement = connection.prepare(query)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let number: i64 = row.get(0)?;
                fates.take(TransactionId(number.unsigned_abs()), row);
            }
            Ok(())
        })?;
        Ok(fates)
    }

    /// What contradicts itself in the database, in SQLite's words; nothing when it is whole. Reads all
    /// of it.
    pub fn contradictions(&self) -> Result<Vec<String>, Failure> {
        let lines = self.read(|connection| {
            let mut lines: Vec<String> = Vec::new();
            connection.pragma(None, "integrity_check", MOST_CONTRADICTIONS, |row| {
                lines.push(row.get(0)?);
                Ok(())
            })?;
            Ok(lines)
        });
        match lines {
            Ok(lines) => Ok(lines.into_iter().filter(|line| line != "ok").collect()),
            // A check that breaks off has found something.
            Err(failure) => Ok(vec![failure.message]),
        }
    }

    /// The transactions whose record or log cannot be read or makes no sense, and why. Reads all of
    /// them.
    pub fn unreadable(&self) -> Result<BTreeMap<TransactionId, String>, Failure> {
        let Fates { all, mut unreadable, .. } = self.fates()?;
        for (id, fate) in all {
            let why = match self.recorded(id) {
                Ok(None) => None,
                Ok(Some(recorded)) => {
                    let next = saga::next(&recorded.steps, &recorded.marks());
                    next.err().map(|illegal| illegal.to_string())
                }
                Err(failure) => Some(failure.message),
            };
            let given_up = || (fate == Fate::Unreadable).then(|| "it was given up".to_owned());
            if let Some(why) = why.or_else(given_up) {
                unreadable.entry(id).or_insert(why);
            }
        }
        Ok(unreadable)
    }

    /// Gives up the transactions that have not ended and whose logs cannot be read: nobody can unwind
    /// them. Answers whether there were any; the loss is written down. Idempotent.
    pub fn give_up_unreadable(&self) -> Result<bool, Failure> {
        let mut given_up = Vec::new();
        for (id, why) in self.unreadable()? {
            let is_open = |outcome: Option<String>| {
                outcome.is_none_or(|outcome| outcome == Outcome::Stuck.name())
            };
            if is_open(self.outcome_of(id)?) {
                given_up.push((id, why));
            }
        }
        let Some((id, why)) = given_up.first() else { return Ok(false) };
        self.note_loss(&format!("the log of transaction {id} cannot be read: {why}"), None)?;
        self.write(|connection| {
            let commit = connection.unchecked_transaction()?;
            for (id, _) in &given_up {
                let query = "UPDATE transactions SET outcome = ?2 WHERE id = ?1";
                commit.execute(query, rusqlite::params![sql_id(*id), UNREADABLE])?;
            }
            commit.commit()
        })?;
        Ok(true)
    }

    /// Keeps a copy of the database beside it, and forgets what cannot be read. Answers the copy's
    /// name; none when all can be read. Idempotent.
    pub fn forget_unreadable(&self) -> Result<Option<String>, Failure> {
        let unreadable = self.unreadable()?;
        if unreadable.is_empty() {
            return Ok(None);
        }
        let name = aside::free_name(&self.directory, "unreadable").map_err(|error| {
            let what = "no copy of the journal can be made";
            Failure::caused(ErrorCode::StateUnreadable, what, &error)
        })?;
        let copy = self.directory.join(&name);
        self.write(|connection| {
            connection.execute("VACUUM INTO ?1", [copy.to_string_lossy()]).map(drop)
        })?;
        self.sync_directory()?;
        self.write(|connection| {
            let commit = connection.unchecked_transaction()?;
            for id in unreadable.keys() {
                let id = sql_id(*id);
                commit.execute("DELETE FROM entries WHERE transaction_id = ?1", [id])?;
                commit.execute("DELETE FROM transactions WHERE id = ?1", [id])?;
            }
            commit.commit()
        })?;
        Ok(Some(name))
    }

    fn outcome_of(&self, id: TransactionId) -> Result<Option<String>, Failure> {
        self.read(|connection| {
            let query = "SELECT outcome FROM transactions WHERE id = ?1";
            connection.query_row(query, [sql_id(id)], |row| row.get(0))
        })
    }
}

impl Fates {
    fn take(&mut self, id: TransactionId, row: &Row<'_>) {
        let fate = self.read(id, row).unwrap_or_else(|error| {
            self.unreadable.insert(id, error.to_string());
            Fate::Unreadable
        });
        self.all.insert(id, fate);
    }

    fn read(&mut self, id: TransactionId, row: &Row<'_>) -> rusqlite::Result<Fate> {
        let outcome: Option<String> = row.get(1)?;
        let Some(outcome) = outcome else { return Ok(Fate::Unfinished) };
        if outcome == UNREADABLE {
            return Ok(Fate::Unreadable);
        }
        let record: HistoryRecord = column(row, 2)?;
        match Outcome::parse(&outcome) {
            Some(Outcome::Committed | Outcome::Forced) => {
                let boot: Option<String> = row.get(3)?;
                let boot = boot.and_then(|text| BootId::parse(text).ok());
                self.updates.push(RecordedUpdate { record, boot });
                Ok(Fate::Kept)
            }
            Some(Outcome::Stuck) => Ok(Fate::Stuck),
            Some(_) => Ok(Fate::Ended),
            None => Err(rusqlite::Error::InvalidColumnName(format!(
                "transaction {id} has an unknown outcome"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use apt_ostree_proto::request::{Caller, Target, UpdateRequest};
    use apt_ostree_proto::step::Step;

    use super::*;
    use crate::journal::Entry;
    use crate::journal::tests::finished;
    use crate::saga::Mark;

    fn journal_of(outcomes: &[Option<Outcome>]) -> (tempfile::TempDir, Journal) {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        for outcome in outcomes {
            let request = UpdateRequest::new(Target::Pending);
            let steps = Step::FROM_COMMIT;
            let id = journal.begin("x", &request, &Caller::default(), steps, None).unwrap();
            journal.append(id, &Entry::new(Mark::Started(Step::Plan))).unwrap();
            if let Some(outcome) = outcome {
                let entry = Entry::new(Mark::Finished(*outcome));
                journal.finish(&finished(id, *outcome), &entry).unwrap();
            }
        }
        (directory, journal)
    }

    fn spoil(journal: &Journal, statement: &str) {
        journal.connection.execute_batch(statement).unwrap();
    }

    #[test]
    fn a_row_that_cannot_be_read_is_named_and_hides_no_other() {
        let (_directory, journal) =
            journal_of(&[Some(Outcome::Committed), Some(Outcome::Committed), None]);
        assert!(journal.unreadable().unwrap().is_empty());
        assert_eq!(journal.contradictions().unwrap(), Vec::<String>::new());
        spoil(&journal, "UPDATE transactions SET record = '{\"id\":' WHERE id = 1");
        let fates = journal.fates().unwrap();
        assert_eq!(
            fates.all.into_values().collect::<Vec<_>>(),
            [Fate::Unreadable, Fate::Kept, Fate::Unfinished]
        );
        assert_eq!(fates.updates.len(), 1);
        let unreadable = journal.unreadable().unwrap();
        assert_eq!(unreadable.keys().collect::<Vec<_>>(), [&TransactionId(1)]);
        assert!(!journal.give_up_unreadable().unwrap(), "it had ended");
    }

    #[test]
    fn a_log_that_no_saga_wrote_is_found() {
        let (_directory, journal) = journal_of(&[None]);
        journal.append(TransactionId(1), &Entry::new(Mark::Undone(Step::Switch))).unwrap();
        let why = journal.unreadable().unwrap().remove(&TransactionId(1)).unwrap();
        assert!(why.contains("switch"), "{why}");
    }

    #[test]
    fn what_is_given_up_is_written_down_as_lost_and_taken_up_by_nobody() {
        let (_directory, journal) = journal_of(&[Some(Outcome::Committed), None]);
        spoil(&journal, "UPDATE entries SET mark = '\"surprise\"' WHERE transaction_id = 2");
        assert!(journal.give_up_unreadable().unwrap());
        assert!(!journal.give_up_unreadable().unwrap());
        assert!(journal.unfinished().unwrap().is_empty());
        let loss = journal.loss().unwrap().unwrap();
        assert!(loss.reason.contains("transaction 2") && loss.is_suspect(), "{loss:?}");
        journal.set_suspects(Vec::new()).unwrap();
        assert!(!journal.loss().unwrap().unwrap().is_suspect());
        journal.accept_loss().unwrap();
        assert_eq!(journal.loss().unwrap(), None);
    }

    #[test]
    fn what_is_forgotten_is_kept_in_a_copy() {
        let (directory, journal) = journal_of(&[Some(Outcome::Failed), Some(Outcome::Failed)]);
        assert_eq!(journal.forget_unreadable().unwrap(), None);
        spoil(&journal, "UPDATE transactions SET record = 'x' WHERE id = 2");
        let copy = journal.forget_unreadable().unwrap().unwrap();
        assert_eq!(journal.forget_unreadable().unwrap(), None);
        assert_eq!(journal.fates().unwrap().all.len(), 1);
        let copy = rusqlite::Connection::open(directory.path().join(copy)).unwrap();
        let count = "SELECT count(*) FROM transactions";
        let rows: i64 = copy.query_row(count, [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 2);
    }
}
