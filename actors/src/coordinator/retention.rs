//! The last step: what later rollbacks need stays, what nobody needs any more goes.

use apt_ostree_proto::point::Point;
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::{CommitId, Failure, TransactionId};

use super::drive::Drive;
use super::forward::ask;
use super::settings::Settings;
use crate::journal::{Journal, LONGEST_WAY_BACK, UPDATES_KEPT};
use crate::overlay::FinalizeTree;
use crate::port::{Retention, Undoable};
use crate::supervisor::Workers;

impl Drive {
    pub(super) async fn finalize(&mut self, workers: &Workers) -> Result<(), Failure> {
        let commit = self.committed()?.tree.commit.clone();
        let this = Undoable { id: self.id, base: self.planned()?.base.clone() };
        let settings = self.parts.settings.as_ref().clone();
        let retention =
            self.parts.journal.with(move |journal| retention(journal, &settings, this)).await?;
        let (overlay, advice) = (workers.overlay.clone(), self.reboot_advice().await?);
        let kept = self
            .reporting(async move |context| {
                ask(&overlay, FinalizeTree { commit, retention, advice, context }).await
            })
            .await?;
        self.parts.journal.write(move |journal| journal.set_kept_updates(&kept)).await
    }
}

/// What is kept after the update `this`, which has no record yet.
fn retention(journal: &Journal, settings: &Settings, this: Undoable) -> Result<Retention, Failure> {
    let earlier = journal.newest_kept(count(settings))?.into_iter().filter_map(undoable);
    let id = this.id;
    let updates = std::iter::once(this).chain(earlier.filter(|update| update.id != id)).collect();
    of_updates(journal, settings, updates)
}

/// What is kept between updates.
pub(super) fn retention_now(journal: &Journal, settings: &Settings) -> Result<Retention, Failure> {
    let updates = journal.newest_kept(count(settings) + 1)?.into_iter();
    of_updates(journal, settings, updates.filter_map(undoable).collect())
}

fn undoable(record: HistoryRecord) -> Option<Undoable> {
    Some(Undoable { id: record.id, base: record.base? })
}

/// Without its log, a tree is no way back.
fn count(settings: &Settings) -> u32 {
    settings.keep_updates.min(UPDATES_KEPT - 1)
}

fn of_updates(
    journal: &Journal,
    settings: &Settings,
    updates: Vec<Undoable>,
) -> Result<Retention, Failure> {
    let points = journal.points()?;
    Ok(Retention {
        updates,
        count: count(settings) as usize,
        bytes: settings.keep_bytes,
        files: on_the_way_back(journal, &points)?,
        points: points.into_iter().map(named).collect(),
    })
}

fn named(point: Point) -> (apt_ostree_proto::PointName, CommitId) {
    (point.name, point.commit)
}

/// The transactions that lie between the oldest named point and the present.
fn on_the_way_back(journal: &Journal, points: &[Point]) -> Result<Vec<TransactionId>, Failure> {
    let Some(oldest) = points.iter().min_by_key(|point| point.after) else {
        return Ok(Vec::new());
    };
    let standing = journal.standing()?;
    Ok(standing.later_than(oldest).take(LONGEST_WAY_BACK as usize).collect())
}
