//! The journal and the history: one SQLite file.
//!
//! Durability: WAL with `synchronous=FULL`, so that an entry that was written survives a power cut
//! (<https://sqlite.org/pragma.html#pragma_synchronous>); entries that no effect waits for are
//! flushed with the next one. The directory is fsynced once the file is
//! there. A ballast file stands beside it and is given up when the disk is full, so that an undo
//! needs no new space.
//!
//! Schema changes are additive: an older daemon can recover what a newer one wrote.

mod aside;
mod at_boot;
mod check;
mod entry;
mod opening;
mod points;
mod prune;
mod schema;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use apt_ostree_proto::id::BootId;
use apt_ostree_proto::plan::Plan;
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::request::{Caller, Target, UpdateRequest};
use apt_ostree_proto::status::Outcome;
use apt_ostree_proto::step::Step;
use apt_ostree_proto::{ErrorCode, Failure, PlanId, TransactionId};
use rusqlite::{Connection, ErrorCode as SqliteCode, OptionalExtension, params};

use crate::saga::Mark;
pub use at_boot::FollowUp;
pub use check::{Fate, Fates, RecordedUpdate};
pub use entry::{Committed, Entry, Payload};
pub use opening::Surroundings;
use opening::Unusable;
use points::id_of;
pub use points::{LONGEST_WAY_BACK, Standing};
pub use prune::{RECORDS_KEPT, UPDATES_KEPT};

/// The database's file name within the state directory.
const DATABASE: &str = "state.db";
/// Given up when the disk is full.
const BALLAST: &str = "ballast";
/// Enough for every entry and page that the longest unwind writes: a few hundred rows and the WAL
/// that SQLite grows before it checkpoints (1,000 pages of 4 KiB).
const BALLAST_BYTES: u64 = 8 << 20;

/// The most that one look at the history answers. Bus daemons cut connections over messages of more
/// than 32 MiB or 128 MiB, and a client has to draw it.
const LARGEST_HISTORY_BYTES: u64 = 8 << 20;

/// What to do about a row that cannot be read.
const DAMAGED: &str = "See what is damaged with apt-ostree status --verify; apt-ostree repair forgets it, \
                       and keeps a copy.";

/// The journal of one host. Blocking: call it off the arbiter.
#[derive(Debug)]
pub struct Journal {
    connection: Connection,
    directory: PathBuf,
}

/// A transaction as the journal has it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its number.
    pub id: TransactionId,
    /// What was asked for, in one line.
    pub title: String,
    /// What was asked for.
    pub request: UpdateRequest,
    /// Who asked.
    pub caller: Caller,
    /// Its steps.
    pub steps: Vec<Step>,
    /// The boot that it began in.
    pub boot: Option<BootId>,
    /// When it began, in seconds since 1970.
    pub started_seconds: i64,
    /// Its log.
    pub entries: Vec<Entry>,
}

impl Recorded {
    /// The log without what it carries.
    pub fn marks(&self) -> Vec<Mark> {
        self.entries.iter().map(|entry| entry.mark).collect()
    }
}

impl Journal {
    /// Opens the journal in `directory`, making both where they are missing. `StateUnreadable` when
    /// the file is no journal of ours or is damaged; it is left as it is.
    ///
    /// [`Journal::open_on`] makes up for that.
    pub fn open(directory: &Path) -> Result<Self, Failure> {
        make_directory(directory)?;
        Self::try_open(directory).map_err(|unusable| unusable.failure(directory))
    }

    fn try_open(directory: &Path) -> Result<Self, Unusable> {
        let connection = opening::connect(directory)?;
        let journal = Self { connection, directory: directory.to_owned() };
        journal.sync_directory().map_err(|failure| {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
            Unusable::Inaccessible(rusqlite::Error::SqliteFailure(code, Some(failure.message)))
        })?;
        journal.lay_ballast();
        Ok(journal)
    }

    /// Whether there is a journal in `directory`.
    pub fn is_in(directory: &Path) -> bool {
        directory.join(DATABASE).exists()
    }

    /// Begins a transaction and gives it its number. Durable when it returns.
    pub fn begin(
        &self,
        title: &str,
        request: &UpdateRequest,
        caller: &Caller,
        steps: &[Step],
        boot: Option<&BootId>,
    ) -> Result<TransactionId, Failure> {
        self.write(|connection| insert_transaction(connection, title, request, caller, steps, boot))
    }

    /// Adds one entry to a transaction's log. Durable when it returns, with all before it, if
    /// [`Mark::must_be_durable`] says so.
    pub fn append(&self, id: TransactionId, entry: &Entry) -> Result<(), Failure> {
        if entry.mark.must_be_durable() {
            return self.insert(id, entry);
        }
        // Within a WAL this leaves out the flush of each commit, and nothing else; the next entry's
        // flush is one of the whole log.
        let flushing =
            |how| self.write(|connection| connection.pragma_update(None, "synchronous", how));
        flushing("NORMAL")?;
        let inserted = self.insert(id, entry);
        flushing("FULL").and(inserted)
    }

    fn insert(&self, id: TransactionId, entry: &Entry) -> Result<(), Failure> {
        self.write(|connection| {
            connection.execute(
                "INSERT INTO entries (transaction_id, mark, payload, at_milliseconds)
                 VALUES (?1, ?2, ?3, ?4)",
                params![
                    sql_id(id),
                    json(&entry.mark)?,
                    entry.payload.as_ref().map(json).transpose()?,
                    entry.at_milliseconds,
                ],
            )?;
            Ok(())
        })
    }

    /// Ends a transaction: its last entry and its history record, in one commit.
    pub fn finish(&self, record: &HistoryRecord, entry: &Entry) -> Result<(), Failure> {
        self.write(|connection| {
            let commit = connection.unchecked_transaction()?;
            end_transaction(&commit, record, entry)?;
            commit.commit()
        })
    }

    /// Takes a transaction that ended stuck up again, in one commit.
    pub fn reopen(&self, id: TransactionId, entry: &Entry) -> Result<(), Failure> {
        self.write(|connection| {
            let commit = connection.unchecked_transaction()?;
            commit.execute(
                "INSERT INTO entries (transaction_id, mark, at_milliseconds) VALUES (?1, ?2, ?3)",
                params![sql_id(id), json(&entry.mark)?, entry.at_milliseconds],
            )?;
            commit.execute(
                "UPDATE transactions SET outcome = NULL, record = NULL WHERE id = ?1",
                [sql_id(id)],
            )?;
            commit.commit()
        })
    }

    /// The transaction that ended stuck, if one did. There is one at the most: nothing is begun
    /// while there is.
    pub fn stuck(&self) -> Result<Option<HistoryRecord>, Failure> {
        self.read(|connection| {
            connection
                .query_row(
                    "SELECT record FROM transactions WHERE outcome = ?1 ORDER BY id DESC LIMIT 1",
                    [Outcome::Stuck.name()],
                    |row| column(row, 0),
                )
                .optional()
        })
    }

    /// Transactions that have not ended, oldest first.
    pub fn unfinished(&self) -> Result<Vec<Recorded>, Failure> {
        let ids = self.read(|connection| {
            connection
                .prepare("SELECT id FROM transactions WHERE outcome IS NULL ORDER BY id")?
                .query_map([], |row| row.get::<_, i64>(0))?
                .collect::<Result<Vec<i64>, _>>()
        })?;
        let load = |id: i64| self.recorded(TransactionId(id.unsigned_abs()));
        ids.into_iter().filter_map(|id| load(id).transpose()).collect()
    }

    /// One transaction with its log.
    pub fn recorded(&self, id: TransactionId) -> Result<Option<Recorded>, Failure> {
        self.read(|connection| {
            let head = connection
                .query_row(
                    "SELECT title, request, caller, steps, boot, started_seconds
                     FROM transactions WHERE id = ?1",
                    [sql_id(id)],
                    |row| {
                        let steps: String = row.get(3)?;
                        let boot: Option<String> = row.get(4)?;
                        Ok(Recorded {
                            id,
                            title: row.get(0)?,
                            request: column(row, 1)?,
                            caller: column(row, 2)?,
                            steps: steps.split(',').filter_map(Step::parse).collect(),
                            boot: boot.and_then(|text| BootId::parse(text).ok()),
                            started_seconds: row.get(5)?,
                            entries: Vec::new(),
                        })
                    },
                )
                .optional()?;
            let Some(mut recorded) = head else { return Ok(None) };
            recorded.entries = connection
                .prepare(
                    "SELECT mark, payload, at_milliseconds FROM entries
                     WHERE transaction_id = ?1 ORDER BY sequence",
                )?
                .query_map([sql_id(id)], |row| {
                    let payload: Option<String> = row.get(1)?;
                    Ok(Entry {
                        mark: column(row, 0)?,
                        payload: payload.map(|text| parse(1, &text)).transpose()?,
                        at_milliseconds: row.get(2)?,
                    })
                })?
                .collect::<Result<_, _>>()?;
            Ok(Some(recorded))
        })
    }

    /// The newest `limit` records of transactions that have ended, newest first: no more than
    /// [`RECORDS_KEPT`], nor than one message of the bus carries.
    pub fn history(&self, limit: u32) -> Result<Vec<HistoryRecord>, Failure> {
        self.read(|connection| {
            let mut query = connection.prepare(
                "SELECT record FROM transactions WHERE record IS NOT NULL
                 ORDER BY id DESC LIMIT ?1",
            )?;
            let mut rows = query.query([limit.min(RECORDS_KEPT)])?;
            let (mut records, mut bytes) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let record = column::<HistoryRecord>(row, 0).map_err(|error| {
                    // An inspection names it; it hides no other.
                    tracing::warn!(%error, "a record of the journal cannot be read");
                });
                let Ok(record) = record else { continue };
                bytes += row.get_ref(0)?.as_str()?.len() as u64;
                if bytes > LARGEST_HISTORY_BYTES && !records.is_empty() {
                    break;
                }
                records.push(record);
            }
            Ok(records)
        })
    }

    /// The record of one transaction that has ended.
    pub fn record(&self, id: TransactionId) -> Result<Option<HistoryRecord>, Failure> {
        self.read(|connection| {
            connection
                .query_row(
                    "SELECT record FROM transactions WHERE id = ?1 AND record IS NOT NULL",
                    [sql_id(id)],
                    |row| column(row, 0),
                )
                .optional()
        })
    }

    /// The newest `limit` transactions that changed the host and were kept, newest first.
    pub fn newest_kept(&self, limit: u32) -> Result<Vec<HistoryRecord>, Failure> {
        self.read(|connection| {
            connection
                .prepare(
                    "SELECT record FROM transactions WHERE outcome IN (?1, ?2)
                     ORDER BY id DESC LIMIT ?3",
                )?
                .query_map(
                    params![Outcome::Committed.name(), Outcome::Forced.name(), limit],
                    |row| column(row, 0),
                )?
                .collect()
        })
    }

    /// The newest update that was kept and not rolled back since.
    pub fn newest_update(&self) -> Result<Option<HistoryRecord>, Failure> {
        let standing = self.standing()?;
        for id in standing.kept.iter().filter(|id| !standing.undone.contains(id)) {
            let record = self.record(*id)?;
            let is_update =
                |record: &HistoryRecord| !matches!(record.request.target, Target::Before(_));
            if record.as_ref().is_some_and(is_update) {
                return Ok(record);
            }
        }
        Ok(None)
    }

    /// The transactions from the newest down to `id` that changed the host and were kept.
    pub fn kept_since(&self, id: TransactionId) -> Result<Vec<HistoryRecord>, Failure> {
        let kept: Vec<HistoryRecord> = self.read(|connection| {
            connection
                .prepare(
                    "SELECT record FROM transactions WHERE outcome IN (?1, ?2) AND id >= ?3
                     ORDER BY id DESC",
                )?
                .query_map(
                    params![Outcome::Committed.name(), Outcome::Forced.name(), sql_id(id)],
                    |row| column(row, 0),
                )?
                .collect()
        })?;
        let has_it = kept.last().is_some_and(|oldest: &HistoryRecord| oldest.id == id);
        Ok(if has_it { kept } else { Vec::new() })
    }

    /// The newest plan with this id, where it was made on this host and is not too old to be kept.
    pub fn plan(&self, id: &PlanId) -> Result<Option<Plan>, Failure> {
        self.plan_and_request(id.as_str()).map(|found| found.map(|(plan, _)| plan))
    }

    /// The newest plan whose id begins with `prefix`, and the request that it was made for.
    pub fn plan_and_request(&self, prefix: &str) -> Result<Option<(Plan, UpdateRequest)>, Failure> {
        self.read(|connection| {
            connection
                .query_row(
                    "SELECT json_extract(entries.payload, '$.plan'), transactions.request
                     FROM entries JOIN transactions ON transactions.id = transaction_id
                     WHERE json_extract(payload, '$.plan.id') GLOB ?1 || '*'
                     ORDER BY sequence DESC LIMIT 1",
                    [prefix],
                    |row| Ok((column(row, 0)?, column(row, 1)?)),
                )
                .optional()
        })
    }

    fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Failure> {
        query(&self.connection).map_err(|error| {
            Failure::caused(ErrorCode::StateUnreadable, "cannot read the state database", &error)
                .with_hint(DAMAGED)
        })
    }

    /// Runs a write; on a full disk gives up the ballast and tries once more.
    fn write<T>(&self, act: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, Failure> {
        let full =
            |error: &rusqlite::Error| error.sqlite_error_code() == Some(SqliteCode::DiskFull);
        let result = match act(&self.connection) {
            Err(error) if full(&error) && self.drop_ballast() => act(&self.connection),
            result => result,
        };
        result.map_err(|error| {
            let code = if full(&error) { ErrorCode::NoSpace } else { ErrorCode::StateUnreadable };
            Failure::caused(code, "cannot write the state database", &error)
        })
    }

    fn ballast(&self) -> PathBuf {
        self.directory.join(BALLAST)
    }

    /// Lays the ballast where it is missing and there is room for it.
    fn lay_ballast(&self) {
        let lay = || -> std::io::Result<()> {
            let file = std::fs::OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(self.ballast())?;
            if file.metadata()?.len() < BALLAST_BYTES {
                let flags = rustix::fs::FallocateFlags::empty();
                rustix::fs::fallocate(&file, flags, 0, BALLAST_BYTES)?;
            }
            Ok(())
        };
        if let Err(error) = lay() {
            tracing::warn!(%error, "no room for the journal's ballast");
        }
    }

    fn drop_ballast(&self) -> bool {
        tracing::warn!("the disk is full: giving up the journal's ballast");
        std::fs::remove_file(self.ballast()).is_ok()
    }

    fn sync_directory(&self) -> Result<(), Failure> {
        std::fs::File::open(&self.directory).and_then(|d| d.sync_all()).map_err(|error| {
            let what = format!("cannot sync {}", self.directory.display());
            Failure::caused(ErrorCode::StateUnreadable, &what, &error)
        })
    }
}

fn make_directory(directory: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(directory).map_err(|error| {
        let what = format!("cannot make {}", directory.display());
        Failure::caused(ErrorCode::StateUnreadable, &what, &error)
    })
}

/// Seconds since 1970.
pub fn seconds_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn insert_transaction(
    connection: &Connection,
    title: &str,
    request: &UpdateRequest,
    caller: &Caller,
    steps: &[Step],
    boot: Option<&BootId>,
) -> rusqlite::Result<TransactionId> {
    let names: Vec<&str> = steps.iter().map(|step| step.name()).collect();
    connection.execute(
        "INSERT INTO transactions (title, request, caller, steps, boot, started_seconds)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            title,
            json(request)?,
            json(caller)?,
            names.join(","),
            boot.map(BootId::as_str),
            seconds_now(),
        ],
    )?;
    Ok(id_of(connection.last_insert_rowid()))
}

fn end_transaction(
    connection: &Connection,
    record: &HistoryRecord,
    entry: &Entry,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO entries (transaction_id, mark, at_milliseconds) VALUES (?1, ?2, ?3)",
        params![sql_id(record.id), json(&entry.mark)?, entry.at_milliseconds],
    )?;
    connection.execute(
        "UPDATE transactions SET outcome = ?2, record = ?3 WHERE id = ?1",
        params![sql_id(record.id), record.outcome.name(), json(record)?],
    )?;
    Ok(())
}

fn sql_id(id: TransactionId) -> i64 {
    i64::try_from(id.0).unwrap_or(i64::MAX)
}

fn json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

fn parse<T: serde::de::DeserializeOwned>(index: usize, text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            index,
            rusqlite::types::Type::Text,
            Box::new(error),
        )
    })
}

fn column<T: serde::de::DeserializeOwned>(
    row: &rusqlite::Row<'_>,
    index: usize,
) -> rusqlite::Result<T> {
    parse(index, &row.get::<_, String>(index)?)
}

#[cfg(test)]
pub(crate) mod tests;
