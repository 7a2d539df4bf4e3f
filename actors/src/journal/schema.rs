//! The tables, and how an older database grows into today's.

use rusqlite::Connection;

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
CREATE INDEX IF NOT EXISTS entries_of_transaction ON entries (transaction_id, sequence);
";

/// Sets the connection up and makes the tables where they are missing.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > VERSION {
        let text = format!("it was written by a newer version (schema {version}, known {VERSION})");
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_SCHEMA),
            Some(text),
        ));
    }
    connection.execute_batch(TABLES)?;
    connection.pragma_update(None, "user_version", VERSION)
}
