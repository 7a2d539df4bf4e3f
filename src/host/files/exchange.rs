//! Applies a delta, and takes it back: one entry at a time, each in one call, each telling from the
//! disk alone whether it was done before.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use apt_ostree_actors::port::{Delta, DeltaEntry, FileIdentity, Placement, PortResult};
use apt_ostree_proto::{ErrorCode, Failure};
use rustix::fs::OFlags;

use super::disk;
use super::lock::PasswordLock;
use super::root::{Entry, Root, is_directory};
use super::roots::Roots;
use super::{failed, show, slots, users};

/// How often a file is swapped back that somebody else replaces at the very same time.
const SWAP_ATTEMPTS: usize = 8;

/// Which way a delta goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Apply,
    Revert,
}

/// What became of an entry.
enum Outcome {
    Done,
    /// The host's file stays, and why.
    Kept(&'static str),
}

/// Brings every entry of `delta` to the state that `direction` leads to. Answers what was left alone
/// because somebody else changed it.
pub(super) fn run(roots: &Roots, delta: &Delta, direction: Direction) -> PortResult<Vec<String>> {
    if delta.entries.is_empty() {
        return Ok(Vec::new());
    }
    let host = Host::open(roots, delta)?;
    let _lock = host.lock_users(delta)?;
    if direction == Direction::Apply {
        host.mark_begun()?;
    }
    let mut kept = Vec::new();
    let mut numbered: Vec<(usize, &DeltaEntry)> = delta.entries.iter().enumerate().collect();
    if direction == Direction::Revert {
        numbered.reverse();
    }
    for (index, entry) in &numbered {
        let what = failed("exchange", entry.place, &entry.path);
        match host.exchange(*index, entry, direction).map_err(what)? {
            Outcome::Done => {}
            Outcome::Kept(why) => kept.push(format!("{}: {why}", show(entry.place, &entry.path))),
        }
    }
    host.sync(delta)?;
    Ok(kept)
}

struct Host {
    etc: Root,
    var: Root,
    etc_slots: Option<Root>,
    var_slots: Option<Root>,
}

impl Host {
    fn open(roots: &Roots, delta: &Delta) -> PortResult<Self> {
        let open = |place| {
            let path = roots.slots(place, delta.transaction);
            let used = delta.entries.iter().any(|entry| entry.place == place);
            match used.then(|| Root::open(&path)).transpose() {
                // An undo tolerates that nothing is there to undo.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                other => other.map_err(failed("open the staged files of", place, Path::new(""))),
            }
        };
        Ok(Self {
            etc: super::prepare::open(&roots.etc)?,
            var: super::prepare::open(&roots.var)?,
            etc_slots: open(Placement::Etc)?,
            var_slots: open(Placement::Var)?,
        })
    }

    fn live(&self, place: Placement) -> &Root {
        match place {
            Placement::Etc => &self.etc,
            Placement::Var => &self.var,
        }
    }

    /// The staging area; none when there is none any more.
    fn slots(&self, place: Placement) -> Option<&Root> {
        match place {
            Placement::Etc => self.etc_slots.as_ref(),
            Placement::Var => self.var_slots.as_ref(),
        }
    }

    fn lock_users(&self, delta: &Delta) -> PortResult<Option<PasswordLock>> {
        let any = delta.entries.iter().any(is_user_database);
        any.then(|| PasswordLock::take(&self.etc)).transpose()
    }

    fn mark_begun(&self) -> PortResult<()> {
        for place in [Placement::Etc, Placement::Var] {
            if let Some(area) = self.slots(place) {
                slots::mark_begun(area).map_err(failed(
                    "mark the staged files of",
                    place,
                    Path::new(""),
                ))?;
            }
        }
        Ok(())
    }

    fn exchange(
        &self,
        index: usize,
        entry: &DeltaEntry,
        direction: Direction,
    ) -> io::Result<Outcome> {
        let live = self.live(entry.place);
        let slots = match (self.slots(entry.place), direction) {
            (None, Direction::Apply) => {
                return Err(io::Error::other("the transaction's staged files are gone"));
            }
            (None, Direction::Revert) => {
                let is_back = live.identify(&entry.path)? == entry.before;
                return Ok(if is_back { Outcome::Done } else { Outcome::Kept(LOST) });
            }
            (Some(slots), _) => slots,
        };
        if is_user_database(entry) {
            return merge_users(live, slots, index, &entry.path, direction);
        }
        let (from, to) = match direction {
            Direction::Apply => (entry.before.as_ref(), entry.after.as_ref()),
            Direction::Revert => (entry.after.as_ref(), entry.before.as_ref()),
        };
        let Some(place) = live.entry(&entry.path)? else {
            // Without its directory the file is gone, which is what is wanted or not.
            return Ok(match to {
                None => Outcome::Done,
                Some(_) => Outcome::Kept("its directory is not there any more"),
            });
        };
        if let (Some(from), Some(to)) = (from, to)
            && is_directory(from)
            && is_directory(to)
        {
            return set_directory(&place, from, to);
        }
        Exchange { live: place, slot: slots::entry(slots, &slots::slot(index))?, from, to }.run()
    }

    /// Makes the exchanged names durable.
    fn sync(&self, delta: &Delta) -> PortResult<()> {
        let parents: BTreeSet<(Placement, PathBuf)> =
            delta.entries.iter().map(|entry| (entry.place, slots::parent(&entry.path))).collect();
        for (place, path) in parents {
            slots::sync_directory(self.live(place), &path).map_err(failed("sync", place, &path))?;
        }
        for slots in [&self.etc_slots, &self.var_slots].into_iter().flatten() {
            slots::sync_directory(slots, Path::new("")).map_err(|error| {
                let what = format!("cannot sync {}", slots.path().display());
                Failure::caused(ErrorCode::SwitchFailed, &what, &error)
            })?;
        }
        Ok(())
    }
}

/// One entry's exchange. What the slot holds tells how far it went:
///
/// | slot | meaning |
/// |---|---|
/// | `to` | not done yet |
/// | `from` | done |
/// | something else | done, but the displaced file was not the one expected, and is to go back |
struct Exchange<'a> {
    live: Entry,
    slot: Entry,
    from: Option<&'a FileIdentity>,
    to: Option<&'a FileIdentity>,
}

const CHANGED: &str = "it was changed on the host and stays as it is";
const LOST: &str = "what was there before is not kept any more";
const FILLED: &str = "the directory holds files of the host's and stays";

impl Exchange<'_> {
    fn run(&self) -> io::Result<Outcome> {
        let slot = self.slot.identify()?;
        if slot.as_ref() == self.to {
            self.go()
        } else if slot.as_ref() == self.from && !self.displaced_is_filled()? {
            Ok(Outcome::Done)
        } else {
            self.put_back()?;
            Ok(Outcome::Kept(CHANGED))
        }
    }

    fn go(&self) -> io::Result<Outcome> {
        let live = self.live.identify()?;
        if live.as_ref() == self.to {
            return Ok(Outcome::Done);
        }
        if live.as_ref() != self.from {
            return Ok(Outcome::Kept(CHANGED));
        }
        if self.live.is_filled_directory()? {
            return Ok(Outcome::Kept(FILLED));
        }
        let moved = match (self.from, self.to) {
            (None, _) => disk::move_away(&self.slot, &self.live),
            (_, None) => disk::move_away(&self.live, &self.slot),
            _ => disk::exchange(&self.live, &self.slot),
        };
        match moved {
            Ok(()) => {}
            // Somebody made or removed the file since it was looked at.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
                ) =>
            {
                return Ok(Outcome::Kept(CHANGED));
            }
            Err(error) => return Err(error),
        }
        if self.slot.identify()?.as_ref() == self.from && !self.displaced_is_filled()? {
            return Ok(Outcome::Done);
        }
        self.put_back()?;
        Ok(Outcome::Kept(CHANGED))
    }

    /// The slot holds a file of the host's that is not the one that was to be displaced: it goes
    /// back to its place. If somebody has put yet another one there meanwhile, that one stays.
    fn put_back(&self) -> io::Result<()> {
        let is_ours = |identity: Option<&FileIdentity>| {
            identity.is_some() && (identity == self.from || identity == self.to)
        };
        for _ in 0..SWAP_ATTEMPTS {
            let live = self.live.identify()?;
            if live.is_none() {
                return disk::move_away(&self.slot, &self.live);
            }
            if !is_ours(live.as_ref()) {
                return Ok(());
            }
            disk::exchange(&self.live, &self.slot)?;
            if is_ours(self.slot.identify()?.as_ref()) {
                return Ok(());
            }
        }
        Err(io::Error::other("somebody else replaces it again and again"))
    }

    /// A directory in which somebody made a file just when it was moved away.
    fn displaced_is_filled(&self) -> io::Result<bool> {
        Ok(self.from.is_some_and(is_directory) && self.slot.is_filled_directory()?)
    }
}

/// Owner and mode of a directory that stays. Two calls, so it may be found between the two states.
fn set_directory(place: &Entry, from: &FileIdentity, to: &FileIdentity) -> io::Result<Outcome> {
    let Some(status) = place.status()? else {
        return Ok(Outcome::Kept("it was removed on the host"));
    };
    let is = |one: u32, other: u32, now: u32| now == one || now == other;
    let expected = is(from.mode, to.mode, status.st_mode)
        && is(from.uid, to.uid, status.st_uid)
        && is(from.gid, to.gid, status.st_gid);
    if !expected {
        return Ok(Outcome::Kept(CHANGED));
    }
    if (status.st_mode, status.st_uid, status.st_gid) != (to.mode, to.uid, to.gid) {
        let directory = place.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
        disk::set_owner_and_mode(directory.as_fd(), to.uid, to.gid, to.mode)?;
        disk::sync(&directory)?;
    }
    Ok(Outcome::Done)
}

/// The user databases are merged instead of exchanged: users that came since are not lost, whichever
/// way it goes. A merge is idempotent, so nothing needs to be remembered.
fn merge_users(
    live: &Root,
    slots: &Root,
    index: usize,
    path: &Path,
    direction: Direction,
) -> io::Result<Outcome> {
    let Some(database) = users::database(path) else {
        return Err(io::Error::other("it is no user database"));
    };
    let (before, after) = (slots::copy(index, slots::BEFORE), slots::copy(index, slots::AFTER));
    let (from, to) = match direction {
        Direction::Apply => (before, after),
        Direction::Revert => (after, before),
    };
    let place = slots::entry(live, path)?;
    let file = match place.open(OFlags::RDONLY) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Outcome::Kept("it was removed on the host"));
        }
        Err(error) => return Err(error),
    };
    let ours = place.read()?;
    let (from_text, to_text) =
        (slots::entry(slots, &from)?.read()?, slots::entry(slots, &to)?.read()?);
    let merged = users::merge(database, &from_text, &to_text, &ours);
    if merged.text != ours {
        let new = slots::write(slots, &slots::copy(index, slots::MERGED), &merged.text, &file)?;
        if merged.text == to_text {
            slots::take_times(&new, &slots::entry(slots, &to)?)?;
        }
        disk::sync(new.open(OFlags::RDONLY)?)?;
        disk::exchange(&new, &place)?;
    }
    let clean = merged.kept.is_empty();
    Ok(if clean {
        Outcome::Done
    } else {
        Outcome::Kept("some of its entries were changed on the host and stay")
    })
}

/// Whether an entry is merged rather than exchanged.
pub(super) fn is_user_database(entry: &DeltaEntry) -> bool {
    entry.place == Placement::Etc
        && users::database(&entry.path).is_some()
        && entry.before.as_ref().is_some_and(super::root::is_file)
        && entry.after.as_ref().is_some_and(super::root::is_file)
}
