//! A delta that undoes earlier ones: what each of them displaced is in its slots.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use apt_ostree_actors::port::{Delta, DeltaEntry, FileIdentity, Placement, PortResult};
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use tokio_util::sync::CancellationToken;

use super::prepare::{Content, Planner};
use super::root::{Root, identity_of_bytes, is_directory};
use super::roots::Roots;
use super::{exchange, failed, slots, users};

/// Undoes `deltas`, newest first, as one new delta.
pub(super) fn prepare(
    roots: &Roots,
    transaction: TransactionId,
    deltas: &[Delta],
    cancel: &CancellationToken,
) -> PortResult<Delta> {
    let areas = open_areas(roots, deltas)?;
    let mut planner = Planner::new(roots, transaction, cancel)?;
    for ((place, path), steps) in steps(deltas) {
        if cancel.is_cancelled() {
            return Err(Failure::new(
                ErrorCode::Cancelled,
                "cancelled while the way back was made",
            ));
        }
        let chain = Chain { place, path: &path, steps: &steps, areas: &areas };
        chain.plan(&mut planner).map_err(failed("find what was at", place, &path))?;
    }
    planner.finish()
}

/// Every transaction's slots.
type Areas = BTreeMap<(TransactionId, Placement), Root>;

fn open_areas(roots: &Roots, deltas: &[Delta]) -> PortResult<Areas> {
    let mut areas = Areas::new();
    for delta in deltas {
        for place in [Placement::Etc, Placement::Var] {
            if delta.entries.iter().any(|entry| entry.place == place) {
                let area = Root::open(&roots.slots(place, delta.transaction)).map_err(|error| {
                    let what = format!(
                        "the files that transaction {} displaced are gone",
                        delta.transaction
                    );
                    Failure::caused(ErrorCode::NotFound, &what, &error)
                })?;
                areas.insert((delta.transaction, place), area);
            }
        }
    }
    Ok(areas)
}

/// One delta's change of a path, and where its file is.
struct Step<'a> {
    transaction: TransactionId,
    index: usize,
    entry: &'a DeltaEntry,
}

/// The changes of each path, newest first.
fn steps(deltas: &[Delta]) -> BTreeMap<(Placement, PathBuf), Vec<Step<'_>>> {
    let mut paths: BTreeMap<_, Vec<Step<'_>>> = BTreeMap::new();
    for delta in deltas {
        for (index, entry) in delta.entries.iter().enumerate() {
            let step = Step { transaction: delta.transaction, index, entry };
            paths.entry((entry.place, entry.path.clone())).or_default().push(step);
        }
    }
    paths
}

/// The way back of one path.
struct Chain<'a, 'b> {
    place: Placement,
    path: &'b Path,
    steps: &'b [Step<'b>],
    areas: &'a Areas,
}

impl<'a> Chain<'a, '_> {
    fn plan(&self, planner: &mut Planner<'a>) -> io::Result<()> {
        let live = planner.live(self.place).identify(self.path)?;
        if self.steps.iter().all(|step| exchange::is_user_database(step.entry))
            && let Some(live) = &live
        {
            return self.plan_users(planner, live);
        }
        let mut state = live.clone();
        let mut content = Content::None;
        for step in self.steps {
            if state != step.entry.after {
                // Where the step was never taken the file is as it was before it.
                if state != step.entry.before {
                    planner.keep(self.place, self.path, "it was changed since and stays as it is");
                }
                break;
            }
            let Some(found) = self.displaced(step)? else {
                planner.keep(self.place, self.path, "what was there before is not kept any more");
                break;
            };
            state.clone_from(&step.entry.before);
            content = found;
        }
        if state != live {
            let path = self.path.to_owned();
            let entry = DeltaEntry { place: self.place, path, before: live, after: state };
            planner.plan(entry, content);
        }
        Ok(())
    }

    /// Where the file is that a step displaced; none when it is lost.
    fn displaced(&self, step: &Step<'_>) -> io::Result<Option<Content<'a>>> {
        let (Some(before), after) = (&step.entry.before, &step.entry.after) else {
            return Ok(Some(Content::None));
        };
        // Only its owner and mode were changed.
        if is_directory(before) && after.as_ref().is_some_and(is_directory) {
            return Ok(Some(Content::None));
        }
        let Some(area) = self.areas.get(&(step.transaction, self.place)) else { return Ok(None) };
        let slot = slots::slot(step.index);
        let kept = area.identify(&slot)?;
        Ok((kept.as_ref() == Some(before)).then_some(Content::Copy { from: area, path: slot }))
    }

    fn plan_users(&self, planner: &mut Planner<'a>, live: &FileIdentity) -> io::Result<()> {
        let Some(database) = users::database(self.path) else { return Ok(()) };
        let before = planner.live(self.place).read(self.path)?;
        let mut text = before.clone();
        for step in self.steps {
            let Some(area) = self.areas.get(&(step.transaction, self.place)) else { continue };
            let copy = |which| area.read(&slots::copy(step.index, which));
            let merged = users::merge(database, &copy(slots::AFTER)?, &copy(slots::BEFORE)?, &text);
            for name in merged.kept {
                let why = format!("the entry {name:?} was changed since and stays as it is");
                planner.keep(self.place, self.path, &why);
            }
            text = merged.text;
        }
        if text != before {
            let entry = DeltaEntry {
                place: self.place,
                path: self.path.to_owned(),
                before: Some(live.clone()),
                after: Some(identity_of_bytes(&text, live)),
            };
            planner.plan(entry, Content::Users { before, after: text });
        }
        Ok(())
    }
}
