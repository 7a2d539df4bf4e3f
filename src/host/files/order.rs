//! Puts the entries of a delta in an order in which each can be applied.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use apt_ostree_actors::port::{DeltaEntry, Placement};

use super::prepare::Planned;
use super::root::{Root, is_directory};
use super::show;

/// Sorts `planned`, and drops with a word in `kept` what cannot be applied because of what stands in
/// its way on the host.
///
/// The order: what goes from under a directory that becomes something else, deepest first; then what
/// comes or changes, directories before what is in them; then what goes otherwise, deepest first. So
/// files that refer to others find the new ones there, and the old ones not gone yet.
pub(super) fn settle(
    planned: &mut Vec<Planned<'_>>,
    etc: &Root,
    var: &Root,
    kept: &mut Vec<String>,
) -> io::Result<()> {
    let live = |place| match place {
        Placement::Etc => etc,
        Placement::Var => var,
    };
    drop_filled_directories(planned, live, kept)?;
    drop_orphans(planned, live, kept)?;
    let replaced: Vec<(Placement, PathBuf)> = planned
        .iter()
        .filter(|planned| loses_directory(&planned.entry) && planned.entry.after.is_some())
        .map(|planned| (planned.entry.place, planned.entry.path.clone()))
        .collect();
    planned.sort_by(|one, other| {
        let phase = |entry: &DeltaEntry| match (&entry.after, &entry.before) {
            (Some(_), _) => 1,
            _ if replaced
                .iter()
                .any(|(place, path)| *place == entry.place && entry.path.starts_with(path)) =>
            {
                0
            }
            _ => 2,
        };
        let (one, other) = (&one.entry, &other.entry);
        phase(one).cmp(&phase(other)).then_with(|| {
            let paths = (one.place, &one.path).cmp(&(other.place, &other.path));
            if phase(one) == 1 { paths } else { paths.reverse() }
        })
    });
    Ok(())
}

fn loses_directory(entry: &DeltaEntry) -> bool {
    entry.before.as_ref().is_some_and(is_directory)
        && !entry.after.as_ref().is_some_and(is_directory)
}

/// A directory goes only if all that is in it goes too: like dpkg, which leaves the others without a
/// word. One that would become something else is a change that is not made, and named.
fn drop_filled_directories<'a>(
    planned: &mut Vec<Planned<'_>>,
    live: impl Fn(Placement) -> &'a Root,
    kept: &mut Vec<String>,
) -> io::Result<()> {
    let mut going: BTreeSet<(Placement, PathBuf)> = planned
        .iter()
        .filter(|planned| planned.entry.after.is_none())
        .map(|planned| (planned.entry.place, planned.entry.path.clone()))
        .collect();
    // The deepest first, for a directory that stays makes the one above it stay.
    let mut directories: Vec<(Placement, PathBuf, bool)> = planned
        .iter()
        .filter(|planned| loses_directory(&planned.entry))
        .map(|planned| {
            let entry = &planned.entry;
            (entry.place, entry.path.clone(), entry.after.is_some())
        })
        .collect();
    directories.sort_by(|one, other| other.1.cmp(&one.1));
    for (place, path, becomes_other) in directories {
        let names = live(place).names(&path)?;
        if names.iter().all(|name| going.contains(&(place, path.join(name)))) {
            continue;
        }
        going.remove(&(place, path.clone()));
        planned.retain(|planned| {
            let entry = &planned.entry;
            let below = becomes_other && entry.path.starts_with(&path);
            entry.place != place || !(entry.path == path || below)
        });
        if becomes_other {
            kept.push(format!(
                "{}: the directory holds files of the host's and stays",
                show(place, &path)
            ));
        }
    }
    Ok(())
}

/// An entry whose directory is neither there nor made by the delta cannot be applied.
fn drop_orphans<'a>(
    planned: &mut Vec<Planned<'_>>,
    live: impl Fn(Placement) -> &'a Root,
    kept: &mut Vec<String>,
) -> io::Result<()> {
    planned.sort_by(|one, other| one.entry.path.cmp(&other.entry.path));
    let mut made: BTreeSet<(Placement, PathBuf)> = BTreeSet::new();
    let mut error = None;
    planned.retain(|planned| {
        let entry = &planned.entry;
        let directory = entry.path.parent().unwrap_or(Path::new(""));
        let there = match live(entry.place).directory(directory) {
            Ok(there) => there.is_some(),
            Err(failure) => {
                error = Some(failure);
                true
            }
        };
        let possible = there || made.contains(&(entry.place, directory.to_owned()));
        if possible && entry.after.as_ref().is_some_and(is_directory) {
            made.insert((entry.place, entry.path.clone()));
        }
        if !possible {
            let path = show(entry.place, &entry.path);
            kept.push(format!("{path}: its directory was removed or replaced on the host"));
        }
        possible
    });
    error.map_or(Ok(()), Err)
}
