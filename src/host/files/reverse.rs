//! A delta that undoes earlier ones: what each of them displaced is in its slots.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use apt_ostree_actors::port::{Delta, DeltaEntry, FileIdentity, Placement, PortResult};
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use tokio_util::sync::CancellationToken;

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
        if cancel.is_cancelled() {
            return Err(Failure::new(
                ErrorCode::Cancelled,
                "cancelled while the way back was made",
            ));
        }
        let chain = Chain { place, path, steps, areas: &areas };
        let merged = chain.plan(&mut planner).map_err(failed("find what was at", place, path))?;
        databases.extend(merged);
    }
    plan_databases(roots, databases, &mut planner).map_err(failed(
        "find whose files are in",
        Placement::Var,
        Path::new(""),
    ))?;
    planner.finish()
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
) -> io::Result<()> {
    let lost = |name: &str| {
        databases
            .iter()
            .find(|merged| merged.path == Path::new(name))
            .map(|merged| users::lost_ids(merged.database, &merged.after, &merged.before))
            .unwrap_or_default()
    };
    let (mut lost_users, mut lost_groups) = (lost("passwd"), lost("group"));
    if !lost_users.is_empty() || !lost_groups.is_empty() {
        let owners = owners_below(&roots.var, &roots.var_deltas, &planner.removed_from_var())?;
        lost_users.retain(|_, id| owners.users.contains(id));
        // A user is kept with the group of the same name, which is the user's own.
        lost_groups.retain(|name, id| owners.groups.contains(id) || lost_users.contains_key(name));
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
            let why = format!("the {what} {name:?} stays, for files in /var do");
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

/// Whom files belong to.
#[derive(Default)]
struct Owners {
    users: BTreeSet<u32>,
    groups: BTreeSet<u32>,
}

/// The owners of everything below `/var` but `removed`, on whatever mount. What earlier transactions
/// displaced, in `deltas`, is nobody's data: it comes back with its users or not at all.
fn owners_below(var: &Path, deltas: &Path, removed: &BTreeSet<PathBuf>) -> io::Result<Owners> {
    let mut owners = Owners::default();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let entries = match std::fs::read_dir(var.join(&directory)) {
            // Services go on writing and removing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let path = directory.join(entry.file_name());
            if entry.path() == deltas {
                continue;
            }
            let status = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            if !removed.contains(&path) {
                owners.users.insert(status.uid());
                owners.groups.insert(status.gid());
            }
            if status.is_dir() {
                directories.push(path);
            }
        }
    }
    Ok(owners)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_displaced_keeps_no_user() {
        let var = tempfile::tempdir().unwrap();
        let deltas = var.path().join("delta");
        std::fs::create_dir_all(deltas.join("1")).unwrap();
        std::fs::write(deltas.join("1/0"), "displaced").unwrap();
        let users =
            |deltas: &Path| owners_below(var.path(), deltas, &BTreeSet::new()).unwrap().users;
        assert_eq!(users(&deltas).len(), 0);
        assert_eq!(users(Path::new("/elsewhere")).len(), 1);
    }
}
