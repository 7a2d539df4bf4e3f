//! The tables, and how an older database grows into today's.

use rusqlite::Connection;

use super::opening::Unusable;

/// The oldest schema that a reader must know to understand this one. Raised only when a change is
/// not additive; a daemon refuses databases whose version is above the one that it knows.
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS transactions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    title TEXT NOT NULL,
    request TEXT NOT NULL,
    caller TEXT NOT NULL,
    steps TEXT NOT NULL,
    boot TEXT,
    started_seconds INTEGER NOT NULL,
    outcome TEXT,
    record TEXT
);
CREATE TABLE IF NOT EXISTS entries (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    transaction_id INTEGER NOT NULL REFERENCES transactions (id),
    mark TEXT NOT NULL,
    payload TEXT,
    at_milliseconds INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS points (
    name TEXT PRIMARY KEY,
    after_id INTEGER NOT NULL,
    commit_id TEXT NOT NULL,
    named_seconds INTEGER NOT NULL,
    uid INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS kept_updates (
    transaction_id INTEGER PRIMARY KEY,
    commit_id TEXT NOT NULL,
    bytes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS applied_at_boot (
    transaction_id INTEGER PRIMARY KEY
);
CREATE TABLE IF NOT EXISTS host (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS entries_of_transaction ON entries (transaction_id, sequence);
";

/// The columns that every journal of ours has had from the beginning.
const COLUMNS: &str = "
SELECT id, title, request, caller, steps, boot, started_seconds, outcome, record,
       sequence, transaction_id, mark, payload, at_milliseconds
FROM transactions, entries LIMIT 0";

/// Looks whether the database is a journal that this version can use, or an empty one; so far as can be
/// told without reading every row. Changes nothing.
pub(super) fn check(connection: &Connection) -> Result<(), Unusable> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > VERSION {
        return Err(Unusable::Newer { found: version, known: VERSION });
    }
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 {
        connection.prepare(COLUMNS)?;
    }
    let verdict: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(Unusable::Damaged(verdict)) }
}

/// Sets the connection up and makes the tables where they are missing.
pub(super) fn prepare(connection: &Connection) -> Result<(), Unusable> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.execute_batch(TABLES)?;
    Ok(connection.pragma_update(None, "user_version", VERSION)?)
}
