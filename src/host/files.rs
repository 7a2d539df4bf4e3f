//! `/etc` and `/var`: a delta is worked out, staged on the same file systems, exchanged file by file,
//! and exchanged back.
//!
//! Architecture invariant: what an undo needs is on the disk before anything changes, and how far an
//! exchange went is told from the disk alone. So after a crash at any point both the way forward and
//! the way back lead to the right end.

mod advice;
mod attributes;
mod changes;
mod disk;
mod exchange;
mod lock;
mod logs;
mod order;
mod owned;
mod owners;
mod policy;
mod prepare;
mod reverse;
mod root;
mod roots;
mod slots;
mod users;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use apt_ostree_actors::context::StepContext;
use apt_ostree_actors::port::{
    Delta, DeltaSource, FileIdentity, Files, Placement, PortResult, RebootAdvice,
};
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::namespace;
use exchange::Direction;
use prepare::Planner;
pub use roots::Roots;

/// The host's `/etc` and `/var`.
#[derive(Debug, Default)]
pub struct HostFiles;

impl HostFiles {
    /// For the host that this process runs on.
    pub fn new() -> Self {
        Self
    }
}

#[async_trait(?Send)]
impl Files for HostFiles {
    async fn prepare(&self, source: &DeltaSource, context: &StepContext) -> PortResult<Delta> {
        let (source, transaction) = (source.clone(), context.transaction);
        let cancel = context.cancel.clone();
        namespace::in_host(move || {
            FileTrees::new(Roots::of_host()?).prepare(&source, transaction, &cancel)
        })
        .await
    }

    async fn apply(&self, delta: &Delta) -> PortResult<Vec<String>> {
        let delta = delta.clone();
        namespace::in_host(move || FileTrees::new(Roots::of_host()?).apply(&delta)).await
    }

    async fn revert(&self, delta: &Delta) -> PortResult<Vec<String>> {
        let delta = delta.clone();
        namespace::in_host(move || FileTrees::new(Roots::of_host()?).revert(&delta)).await
    }

    async fn append_logs(&self, transaction: TransactionId) -> PortResult<()> {
        namespace::in_host(move || FileTrees::new(Roots::of_host()?).append_logs(transaction)).await
    }

    async fn discard(&self, transaction: TransactionId) -> PortResult<()> {
        namespace::in_host(move || FileTrees::new(Roots::of_host()?).discard(transaction)).await
    }

    async fn advise_reboot(&self, advice: &RebootAdvice) -> PortResult<()> {
        let advice = advice.clone();
        namespace::in_host(move || advice::tell(Path::new("/run"), &advice)).await
    }

    async fn identify(&self, paths: &[PathBuf]) -> PortResult<Vec<Option<FileIdentity>>> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        let paths = paths.to_vec();
        namespace::in_host(move || FileTrees::new(Roots::of_host()?).identify(&paths)).await
    }
}

/// Whose staging area is used for what no transaction does: no transaction has this number.
const CARRYING_OVER: TransactionId = TransactionId(0);

/// The same on any directories, without entering a namespace.
#[derive(Clone, Debug)]
pub struct FileTrees {
    roots: Roots,
}

impl FileTrees {
    /// For these directories.
    pub fn new(roots: Roots) -> Self {
        Self { roots }
    }

    /// See [`Files::prepare`].
    pub fn prepare(
        &self,
        source: &DeltaSource,
        transaction: TransactionId,
        cancel: &CancellationToken,
    ) -> PortResult<Delta> {
        match source {
            DeltaSource::Stage => self.prepare_stage(transaction, cancel),
            DeltaSource::Trees { new_usr, .. } => self.prepare_trees(transaction, new_usr, cancel),
            DeltaSource::Reverse { deltas } => {
                let places = [Placement::Etc, Placement::Var];
                reverse::prepare(&self.roots, transaction, deltas, &places, cancel)
            }
        }
    }

    fn prepare_stage(
        &self,
        transaction: TransactionId,
        cancel: &CancellationToken,
    ) -> PortResult<Delta> {
        let roots = &self.roots;
        let snapshot = prepare::open(&roots.snapshot(transaction))?;
        let etc_upper = prepare::open(&roots.etc_upper(transaction))?;
        let var_upper = prepare::open(&roots.var_upper(transaction))?;
        let mut planner = Planner::new(roots, transaction, cancel)?;
        let etc = changes::of_overlay(&etc_upper, &snapshot).map_err(failed(
            "read what was staged for",
            Placement::Etc,
            Path::new(""),
        ))?;
        let var = changes::of_overlay(&var_upper, planner.live(Placement::Var)).map_err(failed(
            "read what was staged for",
            Placement::Var,
            Path::new(""),
        ))?;
        planner.etc(etc, &snapshot, &etc_upper)?;
        planner.var(var, &var_upper)?;
        planner.finish()
    }

    fn prepare_trees(
        &self,
        transaction: TransactionId,
        new_usr: &Path,
        cancel: &CancellationToken,
    ) -> PortResult<Delta> {
        let old = prepare::open(&self.roots.default_etc)?;
        let new = prepare::open(&new_usr.join("etc"))?;
        let mut planner = Planner::new(&self.roots, transaction, cancel)?;
        let etc = changes::of_trees(&new, &old).map_err(failed(
            "compare the trees of",
            Placement::Etc,
            Path::new(""),
        ))?;
        planner.etc(etc, &old, &new)?;
        planner.finish()
    }

    /// Does to the live `/etc` what turned `old` into `new`, two directories: both are earlier states
    /// of the same host's. What has changed in the live one too is left alone and named in the answer.
    /// Idempotent: what an interrupted attempt did is found done.
    pub fn carry_over(&self, old: &Path, new: &Path) -> PortResult<Vec<String>> {
        self.discard(CARRYING_OVER)?;
        let (old, new) = (prepare::open(old)?, prepare::open(new)?);
        let never = CancellationToken::new();
        let mut planner = Planner::new(&self.roots, CARRYING_OVER, &never)?.of_own_changes();
        let etc = changes::of_trees(&new, &old).map_err(failed(
            "compare two states of",
            Placement::Etc,
            Path::new(""),
        ))?;
        planner.etc(etc, &old, &new)?;
        let delta = planner.finish()?;
        self.apply_at_once(delta)
    }

    /// Undoes in the live `/etc` what these transactions did there, newest first; what they displaced
    /// stays kept. What was edited since is left alone and named in the answer. Idempotent.
    pub fn take_back(&self, deltas: &[Delta]) -> PortResult<Vec<String>> {
        self.discard(CARRYING_OVER)?;
        let never = CancellationToken::new();
        let places = [Placement::Etc];
        let delta = reverse::prepare(&self.roots, CARRYING_OVER, deltas, &places, &never)?;
        self.apply_at_once(delta)
    }

    /// Applies what no transaction keeps.
    fn apply_at_once(&self, delta: Delta) -> PortResult<Vec<String>> {
        let mut kept = self.apply(&delta)?;
        kept.extend(delta.kept);
        self.discard(CARRYING_OVER)?;
        match std::fs::remove_dir(self.roots.live.join(CARRYING_OVER.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("tidy up after", Placement::Etc, Path::new(""))(error))
            }
            _ => Ok(kept),
        }
    }

    /// See [`Files::apply`].
    pub fn apply(&self, delta: &Delta) -> PortResult<Vec<String>> {
        exchange::run(&self.roots, delta, Direction::Apply)
    }

    /// See [`Files::revert`].
    pub fn revert(&self, delta: &Delta) -> PortResult<Vec<String>> {
        exchange::run(&self.roots, delta, Direction::Revert)
    }

    /// See [`Files::append_logs`].
    pub fn append_logs(&self, transaction: TransactionId) -> PortResult<()> {
        // A ready tree comes without a stage: nothing was logged.
        let upper = self.roots.var_upper(transaction);
        if !upper.is_dir() {
            return Ok(());
        }
        let (upper, live) = (prepare::open(&upper)?, prepare::open(&self.roots.var)?);
        logs::append(&upper, &live)
            .map_err(|(path, error)| failed("append to", Placement::Var, path)(error))
    }

    /// See [`Files::discard`].
    pub fn discard(&self, transaction: TransactionId) -> PortResult<()> {
        for place in [Placement::Etc, Placement::Var] {
            slots::remove(&self.roots.slots(place, transaction)).map_err(failed(
                "remove the staged files of",
                place,
                Path::new(""),
            ))?;
        }
        Ok(())
    }

    /// See [`Files::identify`].
    pub fn identify(&self, paths: &[PathBuf]) -> PortResult<Vec<Option<FileIdentity>>> {
        let etc = prepare::open(&self.roots.etc)?;
        let identify =
            |path: &PathBuf| etc.identify(path).map_err(failed("look at", Placement::Etc, path));
        paths.iter().map(identify).collect()
    }
}

/// The longest path that a message quotes.
const LONGEST_QUOTE: usize = 200;

/// A path as people know it, cut and with control characters escaped.
fn show(place: Placement, path: &Path) -> String {
    let root = match place {
        Placement::Etc => "/etc",
        Placement::Var => "/var",
    };
    let whole = Path::new(root).join(path);
    let text = whole.to_string_lossy();
    let shown: String = text.chars().take(LONGEST_QUOTE).flat_map(char::escape_debug).collect();
    shown.trim_end_matches('/').to_owned()
}

/// Turns an error of a call into a failure that says what was tried on which path.
fn failed(what: &str, place: Placement, path: &Path) -> impl Fn(io::Error) -> Failure {
    let what = format!("cannot {what} {}", show(place, path));
    move |error| {
        let code = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::NoSpace,
            _ => ErrorCode::SwitchFailed,
        };
        Failure::caused(code, &what, &error)
    }
}

/// Merges what these bytes have for three sides, separated by zeros.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let mut sides = data.splitn(3, |byte| *byte == 0);
    let mut next = || sides.next().unwrap_or_default();
    let (base, theirs, ours) = (next(), next(), next());
    for name in ["passwd", "group", "gshadow", "subuid"] {
        let database = users::database(std::path::Path::new(name)).expect("it is one of them");
        let merged = users::merge(database, base, theirs, ours);
        let again = users::merge(database, base, theirs, &merged.text);
        assert_eq!(again.text, merged.text, "the same change once more does nothing");
        let lost = users::lost_ids(database, &merged.text, ours);
        let names = lost.into_keys().collect();
        drop(users::retain(database, &merged.text, ours, &names));
        drop(users::clashes(database, theirs, ours));
    }
}
