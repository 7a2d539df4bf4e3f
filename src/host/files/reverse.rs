//! A delta that undoes earlier ones: what each of them displaced is in its slots.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use apt_ostree_actors::port::{Delta, DeltaEntry, FileIdentity, Placement, PortResult};
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use tokio_util::sync::CancellationToken;

use super::owners::{self, Except};
use super::prepare::{Content, Planner};
use super::root::{Root, identity_of_bytes, is_directory};
use super::roots::Roots;
use super::{exchange, failed, slots, users};

/// Undoes what `deltas`, newest first, did in these places, as one new delta.
pub(super) fn prepare(
    roots: &Roots,
    transaction: TransactionId,
    deltas: &[Delta],
    places: &[Placement],
    cancel: &CancellationToken,
) -> PortResult<Delta> {
    let areas = open_areas(roots, deltas, places)?;
    let mut planner = Planner::new(roots, transaction, cancel)?;
    let mut databases = Vec::new();
    let steps = steps(deltas);
    for ((place, path), steps) in steps.iter().filter(|((place, _), _)| places.contains(place)) {
        let (place, path) = (*place, path.as_path());
        check_cancelled(cancel)?;
        let chain = Chain { place, path, steps, areas: &areas };
        let merged = chain.plan(&mut planner).map_err(failed("find what was at", place, path))?;
        databases.extend(merged);
    }
    let planned = plan_databases(roots, databases, &mut planner, cancel);
    check_cancelled(cancel)?;
    planned.map_err(failed("find whose files are in", Placement::Var, Path::new("")))?;
    planner.finish()
}

fn check_cancelled(cancel: &CancellationToken) -> PortResult<()> {
    if cancel.is_cancelled() {
        return Err(Failure::new(ErrorCode::Cancelled, "cancelled while the way back was made"));
    }
    Ok(())
}

/// A user database on its way back.
struct MergedUsers {
    database: users::Database,
    path: PathBuf,
    live: FileIdentity,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// Plans the databases; users and groups whose data stays in `/var` stay too, in all of them: their
/// ids would be given to somebody else otherwise, and the data with them.
fn plan_databases(
    roots: &Roots,
    mut databases: Vec<MergedUsers>,
    planner: &mut Planner<'_>,
    cancel: &CancellationToken,
) -> io::Result<()> {
    let lost = |name: &str| {
        databases
            .iter()
            .find(|merged| merged.path == Path::new(name))
            .map(|merged| users::lost_ids(merged.database, &merged.after, &merged.before))
            .unwrap_or_default()
    };
    let (mut lost_users, mut lost_groups) = (lost("passwd"), lost("group"));
    let mut unseen = None;
    if !lost_users.is_empty() || !lost_groups.is_empty() {
        let except = Except { deltas: &roots.var_deltas, removed: &planner.removed_from_var() };
        let owners = owners::below(&roots.var, &except, cancel)?;
        // Of a place that nobody has seen anybody may be the owner.
        if owners.unseen.is_none() {
            lost_users.retain(|_, id| owners.users.contains(id));
            // A user is kept with the group of the same name, which is the user's own.
            let is_kept = |name: &Vec<u8>, id: &u32| {
                owners.groups.contains(id) || lost_users.contains_key(name)
            };
            lost_groups.retain(|name, id| is_kept(name, id));
        }
        unseen = owners.unseen;
    }
    let names = |ids: BTreeMap<Vec<u8>, u32>| ids.into_keys().collect::<BTreeSet<_>>();
    let (kept_users, kept_groups) = (names(lost_users), names(lost_groups));
    for merged in &mut databases {
        let of_groups = matches!(merged.database, users::Database::Members { .. });
        let kept = if of_groups { &kept_groups } else { &kept_users };
        // A line of subordinate ids is its own key, and is kept by the name that it begins with.
        if !kept.is_empty() {
            merged.after = users::retain(merged.database, &merged.after, &merged.before, kept);
        }
        let what = match merged.path.to_str() {
            Some("passwd") => "user",
            Some("group") => "group",
            // The others follow from those two.
            _ => continue,
        };
        for name in kept {
            let name = String::from_utf8_lossy(name).into_owned();
            let why = match &unseen {
                None => format!("the {what} {name:?} stays, for files in /var do"),
                Some(place) => {
                    format!("the {what} {name:?} stays, for its files may be in {place}")
                }
            };
            planner.keep(Placement::Etc, &merged.path, &why);
        }
    }
    for MergedUsers { path, live, before, after, .. } in databases {
        if after != before {
            let after_identity = Some(identity_of_bytes(&after, &live));
            let (place, before_identity) = (Placement::Etc, Some(live));
            let entry = DeltaEntry { place, path, before: before_identity, after: after_identity };
            planner.plan(entry, Content::Users { before, after });
        }
    }
    Ok(())
}

/// Every transaction's slots.
type Areas = BTreeMap<(TransactionId, Placement), Root>;

fn open_areas(roots: &Roots, deltas: &[Delta], places: &[Placement]) -> PortResult<Areas> {
    let mut areas = Areas::new();
    for delta in deltas {
        for &place in places {
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
    /// Plans the way back; that of a user database is answered, for it depends on all the others.
    fn plan(&self, planner: &mut Planner<'a>) -> io::Result<Option<MergedUsers>> {
        let live = planner.live(self.place).identify(self.path)?;
        if self.steps.iter().all(|step| exchange::is_user_database(step.entry))
            && let Some(live) = &live
        {
            return self.merge_users(planner, live);
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
        Ok(None)
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

    fn merge_users(
        &self,
        planner: &mut Planner<'a>,
        live: &FileIdentity,
    ) -> io::Result<Option<MergedUsers>> {
        let Some(database) = users::database(self.path) else { return Ok(None) };
        let before = planner.live(self.place).read(self.path)?;
        let mut after = before.clone();
        for step in self.steps {
            let Some(area) = self.areas.get(&(step.transaction, self.place)) else { continue };
            let copy = |which| area.read(&slots::copy(step.index, which));
            let merged =
                users::merge(database, &copy(slots::AFTER)?, &copy(slots::BEFORE)?, &after);
            for name in merged.kept {
                let why = format!("the entry {name:?} was changed since and stays as it is");
                planner.keep(self.place, self.path, &why);
            }
            after = merged.text;
        }
        let (path, live) = (self.path.to_owned(), live.clone());
        Ok(Some(MergedUsers { database, path, live, before, after }))
    }
}
