//! Opening the journal of a host, whatever has become of it.
//!
//! What cannot be read is never guessed at. A file that a newer version wrote is left as it is, and
//! nothing is done on the host. One that is damaged, or of another host, is kept aside under a name
//! that says so, and a new one is begun; that a journal was lost stays written down until
//! `apt-ostree repair` goes on without it.

use std::collections::BTreeMap;
use std::path::Path;

use apt_ostree_proto::status::LostJournal;
use apt_ostree_proto::{CommitId, ErrorCode, Failure, TransactionId};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode as SqliteCode, OptionalExtension};

use super::{DATABASE, Journal, aside, json, parse, schema, seconds_now, sql_id};

/// What of the host a journal is held against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// A digest of the machine's identity; none where the host has no lasting one.
    pub machine: Option<String>,
    /// The OS name of the booted deployment.
    pub os_name: Option<String>,
    /// The transactions that left anything on the disk, each with the commit that its ref names.
    pub trees: BTreeMap<TransactionId, Option<CommitId>>,
}

/// Why a database cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// A newer version wrote it, in a way that this one does not know.
    Newer {
        /// The schema that it has.
        found: i64,
        /// The newest that this version knows.
        known: i64,
    },
    /// It is no database, not ours, or not whole.
    Damaged(String),
    /// It cannot be reached at the moment: permissions, space, the disk.
    Inaccessible(rusqlite::Error),
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        let damaged = match &error {
            rusqlite::Error::SqliteFailure(failure, _) => matches!(
                failure.code,
                // `Unknown` is SQLITE_ERROR: a table or column is missing.
                SqliteCode::DatabaseCorrupt | SqliteCode::NotADatabase | SqliteCode::Unknown
            ),
            rusqlite::Error::SqlInputError { .. }
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..) => true,
            _ => false,
        };
        if damaged { Self::Damaged(error.to_string()) } else { Self::Inaccessible(error) }
    }
}

impl Unusable {
    pub(super) fn failure(&self, directory: &Path) -> Failure {
        let path = directory.join(DATABASE);
        let what = format!("cannot open {}", path.display());
        match self {
            Self::Newer { found, known } => Failure::new(
                ErrorCode::StateUnreadable,
                format!(
                    "{what}: it was written by a newer version (schema {found}, known {known})"
                ),
            )
            .with_hint(format!(
                "Install the newer version of apt-ostree again, or move {} away.",
                path.display()
            )),
            Self::Damaged(why) => {
                Failure::new(ErrorCode::StateUnreadable, format!("{what}: {why}"))
            }
            Self::Inaccessible(error) => Failure::caused(ErrorCode::StateUnreadable, &what, error),
        }
    }
}

/// Opens the database. One that cannot be used stays as it is, with all that belongs to it.
pub(super) fn connect(directory: &Path) -> Result<Connection, Unusable> {
    let connection = Connection::open(directory.join(DATABASE))?;
    // The end of a connection would write the log into the database, and remove it.
    let keep_log = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    connection.set_db_config(keep_log, true)?;
    schema::check(&connection)?;
    connection.set_db_config(keep_log, false)?;
    schema::prepare(&connection)?;
    Ok(connection)
}

impl Journal {
    /// Opens the journal of the host with these surroundings, making what is missing. Never hands out
    /// a number that something on the disk goes by. Errors: `StateUnreadable` for a database that a
    /// newer version wrote, or that cannot be reached; both are left as they are.
    pub fn open_on(directory: &Path, surroundings: &Surroundings) -> Result<Self, Failure> {
        super::make_directory(directory)?;
        let highest = surroundings.trees.keys().next_back().copied();
        aside::keep_orphans(directory)?;
        let was_there = aside::holds_something(&directory.join(DATABASE))?;
        let journal = match Self::try_open(directory) {
            Ok(journal) => journal,
            Err(Unusable::Damaged(why)) => {
                let kept = aside::keep(directory, "unreadable")?;
                let reason = format!("the journal could not be read: {why}");
                return Self::begin_anew(directory, surroundings, &reason, Some(kept));
            }
            Err(unusable) => return Err(unusable.failure(directory)),
        };
        if let Some(highest) = highest.filter(|_| !was_there) {
            let reason = format!("the journal was gone, and there were trees up to {highest}");
            drop(journal);
            return Self::begin_anew(directory, surroundings, &reason, None);
        }
        if let Some(whose) = journal.whose(surroundings)? {
            drop(journal);
            let kept = aside::keep(directory, "foreign")?;
            let reason = format!("the journal was that of another host: {whose}");
            return Self::begin_anew(directory, surroundings, &reason, Some(kept));
        }
        let newest = journal.highest_number()?;
        if let Some(highest) = highest.filter(|highest| *highest > newest) {
            let text =
                format!("the journal ends with transaction {newest}, and the host with {highest}");
            journal.note_loss(&format!("an older journal was put back: {text}"), None)?;
        }
        journal.settle(surroundings)?;
        Ok(journal)
    }

    fn begin_anew(
        directory: &Path,
        surroundings: &Surroundings,
        reason: &str,
        kept_as: Option<String>,
    ) -> Result<Self, Failure> {
        let journal = Self::open(directory)?;
        journal.note_loss(reason, kept_as)?;
        journal.settle(surroundings)?;
        Ok(journal)
    }

    /// Writes down whose journal it is, and lets numbers begin above all that the disk goes by.
    fn settle(&self, surroundings: &Surroundings) -> Result<(), Failure> {
        let highest = surroundings.trees.keys().next_back().copied().unwrap_or(TransactionId(0));
        let known = (self.note(MACHINE)?, self.note(OS_NAME)?, self.highest_number()?);
        if known.2 >= highest
            && (surroundings.machine.is_none() || known.0 == surroundings.machine)
            && (surroundings.os_name.is_none() || known.1 == surroundings.os_name)
        {
            return Ok(());
        }
        self.write(|connection| {
            let commit = connection.unchecked_transaction()?;
            for (key, value) in [(MACHINE, &surroundings.machine), (OS_NAME, &surroundings.os_name)]
            {
                if let Some(value) = value {
                    set_note(&commit, key, value)?;
                }
            }
            let number = [sql_id(highest)];
            let raised = commit.execute(
                "UPDATE sqlite_sequence SET seq = max(seq, ?1) WHERE name = 'transactions'",
                number,
            )?;
            if raised == 0 {
                let new = "INSERT INTO sqlite_sequence (name, seq) VALUES ('transactions', ?1)";
                commit.execute(new, number)?;
            }
            commit.commit()
        })
    }

    /// Whose journal it is when it is not this host's. A host whose identity was made anew is known by
    /// its trees: a ref of an update that the journal knows names the commit that the journal has.
    pub fn whose(&self, surroundings: &Surroundings) -> Result<Option<String>, Failure> {
        let differs = |noted: &Option<String>, is: &Option<String>| match (noted, is) {
            (Some(noted), Some(is)) => noted != is,
            _ => false,
        };
        let (machine, os_name) = (self.note(MACHINE)?, self.note(OS_NAME)?);
        let is_other_machine = differs(&machine, &surroundings.machine);
        if !is_other_machine && !differs(&os_name, &surroundings.os_name) {
            return Ok(None);
        }
        let is_known = self.fates()?.updates.iter().any(|update| {
            let reference = surroundings.trees.get(&update.record.id).and_then(Option::as_ref);
            reference.is_some() && reference == update.record.commit.as_ref()
        });
        Ok((!is_known).then(|| {
            if is_other_machine {
                "it was written on another machine".to_owned()
            } else {
                format!("it is of the OS \"{}\"", os_name.unwrap_or_default().escape_debug())
            }
        }))
    }

    /// The highest number that was ever given.
    fn highest_number(&self) -> Result<TransactionId, Failure> {
        self.read(|connection| {
            let query = "SELECT seq FROM sqlite_sequence WHERE name = 'transactions'";
            let number: Option<i64> =
                connection.query_row(query, [], |row| row.get(0)).optional()?;
            Ok(TransactionId(number.unwrap_or(0).unsigned_abs()))
        })
    }

    /// The journal that was lost, until [`Journal::accept_loss`].
    pub fn loss(&self) -> Result<Option<LostJournal>, Failure> {
        let Some(text) = self.note(LOSS)? else { return Ok(None) };
        self.read(|_| parse(0, &text).map(Some))
    }

    /// Writes down that a journal, or a part of one, cannot be used; an earlier loss stays.
    pub(super) fn note_loss(&self, reason: &str, kept_as: Option<String>) -> Result<(), Failure> {
        tracing::error!(
            "{reason}{}",
            kept_as.as_ref().map_or(String::new(), |name| { format!("; it is kept as {name}") })
        );
        if self.loss()?.is_some() {
            return Ok(());
        }
        let reason = reason.chars().take(LONGEST_REASON).collect();
        let loss = LostJournal { reason, kept_as, at_seconds: seconds_now(), suspects: None };
        self.set_loss(&loss)
    }

    /// Writes down what looks like an interrupted update that the lost journal knew of.
    pub fn set_suspects(&self, suspects: Vec<String>) -> Result<(), Failure> {
        match self.loss()? {
            Some(loss) => self.set_loss(&LostJournal { suspects: Some(suspects), ..loss }),
            None => Ok(()),
        }
    }

    /// Goes on without what was lost. Idempotent.
    pub fn accept_loss(&self) -> Result<(), Failure> {
        self.write(|connection| {
            connection.execute("DELETE FROM host WHERE key = ?1", [LOSS]).map(drop)
        })
    }

    fn set_loss(&self, loss: &LostJournal) -> Result<(), Failure> {
        self.write(|connection| set_note(connection, LOSS, &json(loss)?))
    }

    fn note(&self, key: &str) -> Result<Option<String>, Failure> {
        self.read(|connection| {
            let query = "SELECT value FROM host WHERE key = ?1";
            connection.query_row(query, [key], |row| row.get(0)).optional()
        })
    }
}

/// Keys of the table about the host.
const MACHINE: &str = "machine";
const OS_NAME: &str = "os-name";
const LOSS: &str = "loss";

/// How much of a reason is kept: SQLite's own words, and where.
const LONGEST_REASON: usize = 500;

fn set_note(connection: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    let query = "INSERT INTO host (key, value) VALUES (?1, ?2)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    connection.execute(query, [key, value]).map(drop)
}

#[cfg(test)]
mod tests;
