//! Works out a delta: the change that is wanted, merged into what is there.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use apt_ostree_actors::port::{Delta, DeltaEntry, FileIdentity, Placement, PortResult};
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use tokio_util::sync::CancellationToken;

use super::changes::{self, Change};
use super::policy::{self, Treatment};
use super::root::{Root, identity_of_bytes, is_directory, is_plain};
use super::roots::Roots;
use super::users;
use super::{failed, owned, show, slots};

/// A delta in the making.
pub(super) struct Planner<'a> {
    roots: &'a Roots,
    transaction: TransactionId,
    cancel: &'a CancellationToken,
    treatment_of_etc: fn(&Path) -> Treatment,
    etc: Root,
    var: Root,
    planned: Vec<Planned<'a>>,
    kept: Vec<String>,
    live_data: Vec<String>,
}

/// An entry, and where its new content comes from.
pub(super) struct Planned<'a> {
    pub(super) entry: DeltaEntry,
    pub(super) content: Content<'a>,
}

/// Where an entry's new content comes from.
pub(super) enum Content<'a> {
    /// Nothing is staged: the path goes, or only its owner and mode change.
    None,
    /// A file of another tree.
    Copy { from: &'a Root, path: PathBuf },
    /// A user database before and after.
    Users { before: Vec<u8>, after: Vec<u8> },
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        roots: &'a Roots,
        transaction: TransactionId,
        cancel: &'a CancellationToken,
    ) -> PortResult<Self> {
        Ok(Self {
            roots,
            transaction,
            cancel,
            treatment_of_etc: policy::of_etc,
            etc: open(&roots.etc)?,
            var: open(&roots.var)?,
            planned: Vec::new(),
            kept: Vec::new(),
            live_data: Vec::new(),
        })
    }

    /// For changes of `/etc` that are the host's own.
    pub(super) fn of_own_changes(self) -> Self {
        Self { treatment_of_etc: policy::of_own_etc, ..self }
    }

    pub(super) fn live(&self, place: Placement) -> &Root {
        match place {
            Placement::Etc => &self.etc,
            Placement::Var => &self.var,
        }
    }

    pub(super) fn keep(&mut self, place: Placement, path: &Path, why: &str) {
        self.kept.push(format!("{}: {why}", show(place, path)));
    }

    /// What goes from `/var`, unless something else turns out to be in the way.
    pub(super) fn removed_from_var(&self) -> BTreeSet<PathBuf> {
        let entries = self.planned.iter().map(|planned| &planned.entry);
        entries
            .filter(|entry| entry.place == Placement::Var && entry.after.is_none())
            .map(|entry| entry.path.clone())
            .collect()
    }

    pub(super) fn plan(&mut self, entry: DeltaEntry, content: Content<'a>) {
        self.planned.push(Planned { entry, content });
    }

    /// What `/etc` gets: a three-way merge, file by file.
    pub(super) fn etc(
        &mut self,
        changes: Vec<Change>,
        base: &Root,
        new: &'a Root,
    ) -> PortResult<()> {
        for change in changes {
            self.check_cancelled()?;
            let path = change.path.clone();
            self.etc_change(change, base, new).map_err(failed(
                "merge",
                Placement::Etc,
                &path,
            ))??;
        }
        Ok(())
    }

    fn etc_change(
        &mut self,
        change: Change,
        base: &Root,
        new: &'a Root,
    ) -> io::Result<PortResult<()>> {
        let treatment = (self.treatment_of_etc)(&change.path);
        if treatment == Treatment::LeftOut {
            return Ok(Ok(()));
        }
        let live = self.etc.identify(&change.path)?;
        if let Some(database) = users::database(&change.path)
            && changes::is_between_files(&change, live.as_ref())
        {
            return self.user_change(&change, database, live, base, new);
        }
        let from_directories = [&change.base, &change.wanted, &live]
            .iter()
            .all(|identity| identity.as_ref().is_some_and(is_directory));
        if from_directories {
            self.directory_change(Placement::Etc, change, live);
        } else if live == change.wanted {
            // The admin did the same, or it was done before.
        } else if live == change.base || treatment == Treatment::Generated {
            self.plan_change(Placement::Etc, change.path, live, change.wanted, new);
        } else if !both_directories(change.wanted.as_ref(), live.as_ref()) {
            self.keep(
                Placement::Etc,
                &change.path,
                "it was changed on the host and stays as it is",
            );
        }
        Ok(Ok(()))
    }

    /// Owner and mode of a directory that stays. Extended attributes are left as they are.
    fn directory_change(&mut self, place: Placement, change: Change, live: Option<FileIdentity>) {
        let (Some(base), Some(wanted), Some(live)) = (change.base, change.wanted, live) else {
            return;
        };
        let bits = |identity: &FileIdentity| (identity.mode, identity.uid, identity.gid);
        if bits(&base) == bits(&wanted) || bits(&live) == bits(&wanted) {
            return;
        }
        if bits(&live) != bits(&base) {
            self.keep(place, &change.path, "its owner or mode was changed on the host and stays");
            return;
        }
        let after = FileIdentity { sha256: live.sha256.clone(), ..wanted };
        let entry = DeltaEntry { place, path: change.path, before: Some(live), after: Some(after) };
        self.plan(entry, Content::None);
    }

    fn user_change(
        &mut self,
        change: &Change,
        database: users::Database,
        live: Option<FileIdentity>,
        base: &Root,
        new: &Root,
    ) -> io::Result<PortResult<()>> {
        let (before, theirs) = (self.etc.read(&change.path)?, new.read(&change.path)?);
        let clashes = users::clashes(database, &theirs, &before);
        if !clashes.is_empty() {
            return Ok(Err(Failure::new(
                ErrorCode::SwitchFailed,
                format!(
                    "{} cannot be merged: {}",
                    show(Placement::Etc, &change.path),
                    clashes.iter().take(MOST_NAMES).cloned().collect::<Vec<_>>().join("; ")
                ),
            )
            .with_hint("Apply the update again: the ids are given out anew.")));
        }
        let merged = users::merge(database, &base.read(&change.path)?, &theirs, &before);
        for name in merged.kept {
            let why = format!("the entry {name:?} was changed on the host and stays as it is");
            self.keep(Placement::Etc, &change.path, &why);
        }
        if let Some(live) = live
            && merged.text != before
        {
            let after = identity_of_bytes(&merged.text, &live);
            let entry = DeltaEntry {
                place: Placement::Etc,
                path: change.path.clone(),
                before: Some(live),
                after: Some(after),
            };
            self.plan(entry, Content::Users { before, after: merged.text });
        }
        Ok(Ok(()))
    }

    /// What `/var` gets: what is new, and what is known to be no data.
    pub(super) fn var(&mut self, changes: Vec<Change>, new: &'a Root) -> PortResult<()> {
        let mut owned = None;
        for change in changes {
            self.check_cancelled()?;
            let path = change.path.clone();
            self.var_change(change, new, &mut owned).map_err(failed(
                "look at",
                Placement::Var,
                &path,
            ))?;
        }
        Ok(())
    }

    fn var_change(
        &mut self,
        change: Change,
        new: &'a Root,
        owned: &mut Option<BTreeSet<PathBuf>>,
    ) -> io::Result<()> {
        let treatment = policy::of_var(&change.path);
        let live = self.var.identify(&change.path)?;
        if treatment == Treatment::LeftOut || live == change.wanted {
            return Ok(());
        }
        let path = &change.path;
        if !self.var.is_on_same_mount(path)? {
            self.live_data
                .push(format!("{}: it is on a mount of its own", show(Placement::Var, path)));
            return Ok(());
        }
        let may_replace = live.is_none()
            || self.is_older_than_stage(path)?
                && (treatment == Treatment::Register || self.owned(owned)?.contains(path));
        if !may_replace {
            if !both_directories(change.wanted.as_ref(), live.as_ref()) || live == change.base {
                self.live_data.push(show(Placement::Var, path));
            }
        } else if both_directories(change.wanted.as_ref(), live.as_ref()) {
            let base = live.clone();
            self.directory_change(Placement::Var, Change { base, ..change }, live);
        } else {
            self.plan_change(Placement::Var, change.path, live, change.wanted, new);
        }
        Ok(())
    }

    /// The paths below `/var` that packages own, read once, when needed first.
    fn owned<'b>(
        &self,
        owned: &'b mut Option<BTreeSet<PathBuf>>,
    ) -> io::Result<&'b BTreeSet<PathBuf>> {
        match owned {
            Some(owned) => Ok(owned),
            None => Ok(owned.insert(owned::below_var(&self.roots.package_lists)?)),
        }
    }

    /// Whether nobody changed a live file since the stage was made.
    fn is_older_than_stage(&self, path: &Path) -> io::Result<bool> {
        let stage = rustix::fs::stat(self.roots.snapshot(self.transaction))?;
        Ok(self.var.status(path)?.is_none_or(|status| {
            (status.st_ctime, status.st_ctime_nsec) < (stage.st_ctime, stage.st_ctime_nsec)
        }))
    }

    fn plan_change(
        &mut self,
        place: Placement,
        path: PathBuf,
        before: Option<FileIdentity>,
        after: Option<FileIdentity>,
        new: &'a Root,
    ) {
        if after.as_ref().is_some_and(|after| !is_plain(after)) {
            self.keep(place, &path, "a device, socket or pipe is not carried over");
            return;
        }
        let content = match &after {
            Some(_) => Content::Copy { from: new, path: path.clone() },
            None => Content::None,
        };
        self.plan(DeltaEntry { place, path, before, after }, content);
    }

    fn check_cancelled(&self) -> PortResult<()> {
        if self.cancel.is_cancelled() {
            return Err(Failure::new(ErrorCode::Cancelled, "cancelled while /etc was merged"));
        }
        Ok(())
    }

    /// Orders what was planned, drops what cannot be, and fills the staging areas.
    pub(super) fn finish(mut self) -> PortResult<Delta> {
        super::order::settle(&mut self.planned, &self.etc, &self.var, &mut self.kept).map_err(
            |error| Failure::caused(ErrorCode::SwitchFailed, "cannot order the changes", &error),
        )?;
        for place in [Placement::Etc, Placement::Var] {
            self.fill(place)?;
        }
        let entries = self.planned.into_iter().map(|planned| planned.entry).collect();
        self.kept.sort();
        self.live_data.sort();
        Ok(Delta {
            transaction: self.transaction,
            entries,
            kept: self.kept,
            live_data: self.live_data,
        })
    }

    fn fill(&self, place: Placement) -> PortResult<()> {
        let path = self.roots.slots(place, self.transaction);
        let unmade = failed("make the staging area for", place, Path::new(""));
        if !self.planned.iter().any(|planned| planned.entry.place == place) {
            return slots::clear(&path).map_err(unmade);
        }
        let area = slots::make(&path).map_err(unmade)?;
        for (index, planned) in self.planned.iter().enumerate() {
            if planned.entry.place != place {
                continue;
            }
            self.check_cancelled()?;
            self.fill_slot(&area, index, planned).map_err(failed(
                "stage",
                place,
                &planned.entry.path,
            ))?;
        }
        slots::sync_all(&area).map_err(failed("stage the files of", place, Path::new("")))
    }

    fn fill_slot(&self, area: &Root, index: usize, planned: &Planned<'_>) -> io::Result<()> {
        match (&planned.content, &planned.entry.after) {
            (Content::Copy { from, path }, Some(after)) => {
                slots::fill(area, &slots::slot(index), from, path, after)
            }
            (Content::Users { before, after }, _) => {
                let live = slots::entry(self.live(planned.entry.place), &planned.entry.path)?;
                let model = live.open(rustix::fs::OFlags::RDONLY)?;
                let old = slots::write(area, &slots::copy(index, slots::BEFORE), before, &model)?;
                slots::take_times(&old, &live)?;
                slots::write(area, &slots::copy(index, slots::AFTER), after, &model)?;
                Ok(())
            }
            (Content::Copy { .. } | Content::None, _) => Ok(()),
        }
    }
}

/// How many clashing names one message lists.
const MOST_NAMES: usize = 5;

fn both_directories(one: Option<&FileIdentity>, other: Option<&FileIdentity>) -> bool {
    one.is_some_and(is_directory) && other.is_some_and(is_directory)
}

/// Opens one of the trees that a delta is made from.
pub(super) fn open(path: &Path) -> PortResult<Root> {
    Root::open(path).map_err(|error| {
        Failure::caused(ErrorCode::SwitchFailed, &format!("cannot open {}", path.display()), &error)
    })
}
