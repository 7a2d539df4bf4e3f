//! What runs old code now.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actix::{Handler, Message, ResponseFuture};
use apt_ostree_proto::id::BootId;
use apt_ostree_proto::outdated::Outdated;
use apt_ostree_proto::step::Step;
use apt_ostree_proto::{ErrorCode, Failure};
use tokio_util::sync::CancellationToken;

use super::facts::Facts;
use super::forward::{ask, changed_in_etc};
use super::{Coordinator, Parts};
use crate::journal::{Journal, Recorded, UPDATES_KEPT};
use crate::port::TreeChange;
use crate::saga::Mark;
use crate::service;
use crate::supervisor::GetWorkers;

/// Ten thousand processes take a second or two.
const LONGEST_LOOK: Duration = Duration::from_secs(60);

/// Request: find what runs old code now. Changes nothing; while an update switches, the answer is of
/// one side or the other.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Outdated, Failure>")]
pub struct FindOutdated;

impl Handler<FindOutdated> for Coordinator {
    type Result = ResponseFuture<Result<Outdated, Failure>>;

    fn handle(&mut self, _: FindOutdated, _: &mut Self::Context) -> Self::Result {
        let parts = self.parts();
        Box::pin(async move { look(&parts).await })
    }
}

pub(super) async fn look(parts: &Parts) -> Result<Outdated, Failure> {
    let boot = parts.boot.clone();
    let changes = parts.journal.with(move |journal| changes_since(journal, boot.as_ref())).await?;
    let workers =
        parts.supervisor.send(GetWorkers).await.map_err(|error| {
            Failure::caused(ErrorCode::Internal, "the supervisor is gone", &error)
        })?;
    let strategies = parts.settings.strategies.clone();
    // The worker goes on for as long as it is not told that nobody waits any more.
    let cancel = CancellationToken::new();
    let _waiting = cancel.clone().drop_guard();
    let request = service::FindOutdated { changes, strategies, cancel };
    let look = tokio::time::timeout(LONGEST_LOOK, ask(&workers.service, request));
    look.await.unwrap_or_else(|_| {
        let text = "the running processes could not be looked at within a minute";
        Err(Failure::new(ErrorCode::TimedOut, text))
    })
}

/// What the kept updates of this boot have changed, newest first. Where the boot is not known none
/// is of it.
fn changes_since(journal: &Journal, boot: Option<&BootId>) -> Result<Vec<TreeChange>, Failure> {
    let mut changes = Vec::new();
    for record in journal.newest_in_effect(UPDATES_KEPT)? {
        let Some(recorded) = journal.recorded(record.id)? else { continue };
        if boot.is_none() || recorded.boot.as_ref() != boot {
            break;
        }
        changes.extend(change_of(&recorded));
    }
    Ok(changes)
}

fn change_of(recorded: &Recorded) -> Option<TreeChange> {
    let switched = Mark::Succeeded(Step::Switch);
    let entry = recorded.entries.iter().rev().find(|entry| entry.mark == switched)?;
    let committed = Facts::of(&recorded.entries).committed?;
    let in_etc = changed_in_etc(&committed.delta);
    let changed = committed.tree.changed.iter().chain(&in_etc);
    let mut paths: BTreeMap<PathBuf, Option<(u64, u64)>> =
        changed.map(|path| (Path::new("/").join(path), None)).collect();
    for file in committed.tree.replaced {
        paths.insert(file.path, Some((file.device, file.inode)));
    }
    Some(TreeChange { at_milliseconds: entry.at_milliseconds, paths })
}
