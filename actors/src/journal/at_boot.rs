//! Updates that take effect with the next boot.

use std::collections::BTreeSet;

use apt_ostree_proto::id::BootId;
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::request::{Caller, UpdateRequest, When};
use apt_ostree_proto::status::Outcome;
use apt_ostree_proto::step::Step;
use apt_ostree_proto::{Failure, TransactionId};
use rusqlite::params;

use super::{Entry, Journal, column, id_of, sql_id};

/// What a transaction that has ended leaves to another one.
#[derive(Clone, Debug)]
pub struct FollowUp {
    /// What it is about, in one line.
    pub title: String,
    /// What it does.
    pub request: UpdateRequest,
    /// Who asked for it.
    pub caller: Caller,
    /// Its steps.
    pub steps: Vec<Step>,
}

impl Journal {
    /// Ends a transaction, and begins the one that follows it, in one commit. Answers the record with
    /// the follower's number. Durable when it returns.
    pub fn finish_and_begin(
        &self,
        record: &HistoryRecord,
        entry: &Entry,
        next: &FollowUp,
        boot: Option<&BootId>,
    ) -> Result<HistoryRecord, Failure> {
        self.write(|connection| {
            let commit = connection.unchecked_transaction()?;
            let FollowUp { title, request, caller, steps } = next;
            let id = super::insert_transaction(&commit, title, request, caller, steps, boot)?;
            let record = HistoryRecord { followed_by: Some(id), ..record.clone() };
            super::end_transaction(&commit, &record, entry)?;
            commit.commit()?;
            Ok(record)
        })
    }

    /// The newest `limit` transactions that changed the host, were kept and have taken effect, newest
    /// first.
    pub fn newest_in_effect(&self, limit: u32) -> Result<Vec<HistoryRecord>, Failure> {
        self.read(|connection| {
            connection
                .prepare(
                    "SELECT record FROM transactions WHERE outcome IN (?1, ?2)
                     AND (json_extract(request, '$.when') IS NOT ?3
                          OR id IN (SELECT transaction_id FROM applied_at_boot))
                     ORDER BY id DESC LIMIT ?4",
                )?
                .query_map(
                    params![
                        Outcome::Committed.name(),
                        Outcome::Forced.name(),
                        When::NextBoot.name(),
                        limit
                    ],
                    |row| column(row, 0),
                )?
                .collect()
        })
    }

    /// The newest kept update, where it takes effect with the next boot and has not yet. One that led
    /// back to the tree that ran has nothing to wait for.
    pub fn awaiting_boot(&self) -> Result<Option<HistoryRecord>, Failure> {
        let waits = |record: &HistoryRecord| {
            record.request.when == When::NextBoot && record.commit != record.base
        };
        let newest = self.newest_kept(1)?.into_iter().find(waits);
        let Some(record) = newest else { return Ok(None) };
        Ok((!self.applied_at_boot()?.contains(&record.id)).then_some(record))
    }

    /// Writes down that the transaction's tree was booted, and its `/etc` and `/var` are those that go
    /// with it. Durable when it returns. Idempotent.
    pub fn set_applied_at_boot(&self, id: TransactionId) -> Result<(), Failure> {
        self.write(|connection| {
            connection
                .execute(
                    "INSERT OR IGNORE INTO applied_at_boot (transaction_id) VALUES (?1)",
                    params![sql_id(id)],
                )
                .map(drop)
        })
    }

    /// The transactions of which that is written down.
    pub fn applied_at_boot(&self) -> Result<BTreeSet<TransactionId>, Failure> {
        self.read(|connection| {
            connection
                .prepare("SELECT transaction_id FROM applied_at_boot")?
                .query_map([], |row| Ok(id_of(row.get(0)?)))?
                .collect()
        })
    }

    /// Those that have taken effect: not what waits for the next boot, nor what never had it because
    /// another update took its place.
    pub fn in_effect(
        &self,
        mut records: Vec<HistoryRecord>,
    ) -> Result<Vec<HistoryRecord>, Failure> {
        if records.iter().any(|record| record.request.when == When::NextBoot) {
            let applied = self.applied_at_boot()?;
            records.retain(|r| r.request.when != When::NextBoot || applied.contains(&r.id));
        }
        Ok(records)
    }
}
