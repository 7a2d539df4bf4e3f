//! Inspections and repairs: asks the workers what the host shows, holds it against the journal, and has
//! mended what can be. None of it is a transaction: the host's state is not changed but brought back to
//! what the record says.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use actix::{Handler, Message, ResponseFuture};
use apt_ostree_proto::id::BootId;
use apt_ostree_proto::inspection::{Finding, FindingKind, Inspection, Level, Mending};
use apt_ostree_proto::status::LostJournal;
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use tokio_util::sync::CancellationToken;

use super::forward::ask;
use super::retention::retention_now;
use super::{Coordinator, Parts};
use crate::context::{Reporter, StepContext};
use crate::inspection::{Action, Found, Record, Sight, examine, suspects};
use crate::journal::{Fate, Journal};
use crate::overlay::{CleanUpTrees, LookAtTrees, MendTrees};
use crate::package::ListInstalled;
use crate::supervisor::{GetWorkers, Workers};

/// How long one look, or one remedy, may take: longer than a large tree takes to be read from a slow
/// disk.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// What keeps two callers from looking or mending at a time; the next may when this is dropped.
#[derive(Debug)]
struct Turn(Rc<Cell<bool>>);

impl Turn {
    fn take(taken: &Rc<Cell<bool>>) -> Result<Self, Failure> {
        if taken.replace(true) {
            let text = "the host is being inspected or repaired already";
            return Err(
                Failure::new(ErrorCode::Busy, text).with_hint("Try again when that has ended.")
            );
        }
        Ok(Self(Rc::clone(taken)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Request: compare the host with its record. Changes nothing. `Busy` while a transaction changes the
/// host, and when one begins meanwhile.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Inspection, Failure>")]
pub struct InspectHost {
    /// Whether every file of the running tree is read.
    pub with_files: bool,
    /// Ends it early, with `Cancelled`.
    pub cancel: CancellationToken,
}

impl Handler<InspectHost> for Coordinator {
    type Result = ResponseFuture<Result<Inspection, Failure>>;

    fn handle(&mut self, request: InspectHost, _: &mut Self::Context) -> Self::Result {
        let turn = self.refuse_if_busy(false).and_then(|()| Turn::take(&self.inspecting));
        let looker = self.looker();
        let (begun, at_first) = (Rc::clone(&self.begun_changes), self.begun_changes.get());
        Box::pin(async move {
            let turn = turn?;
            let (found, comparison) = looker.look(request.with_files, &request.cancel).await?;
            drop(turn);
            if begun.get() != at_first {
                let text = "an update began while the host was looked at";
                return Err(Failure::new(ErrorCode::Busy, text));
            }
            Ok(inspection_of(found, comparison))
        })
    }
}

/// Request: mend what an inspection finds. What is stuck is [`super::RepairHost`]'s: until then nothing
/// is mended.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Mending, Failure>")]
pub struct MendHost {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Ends it early, with `Cancelled`, while nothing is being mended.
    pub cancel: CancellationToken,
}

impl Handler<MendHost> for Coordinator {
    type Result = ResponseFuture<Result<Mending, Failure>>;

    fn handle(&mut self, request: MendHost, _: &mut Self::Context) -> Self::Result {
        let turn = self.refuse_if_busy(false).and_then(|()| Turn::take(&self.inspecting));
        let MendHost { dry_run, cancel } = request;
        let (looker, mending) = (self.looker(), Rc::clone(&self.mending));
        // Before any other message is handled: nothing may begin between the look and its remedies.
        let changes = turn.is_ok() && !dry_run;
        let alone = changes.then(|| Turn::take(&mending)).transpose();
        Box::pin(async move {
            let (_turn, _alone) = (turn?, alone?);
            let found = looker.look(true, &cancel).await?;
            if dry_run { Ok(foreseen(found)) } else { looker.mend(found).await }
        })
    }
}

impl Coordinator {
    fn looker(&self) -> Looker {
        Looker {
            parts: self.parts(),
            boot: self.boot.clone(),
            running: self.running.as_ref().map(|running| running.id),
        }
    }
}

/// What of the running tree was compared.
#[derive(Clone, Copy, Debug, Default)]
struct Compared {
    files: u64,
    bytes: u64,
    more: u64,
}

#[derive(Debug)]
struct Looker {
    parts: Parts,
    boot: Option<BootId>,
    running: Option<TransactionId>,
}

impl Looker {
    async fn look(
        &self,
        with_files: bool,
        cancel: &CancellationToken,
    ) -> Result<(Vec<Found>, Compared), Failure> {
        let (boot, running) = (self.boot.clone(), self.running);
        let record =
            self.parts.journal.with(move |journal| Record::read(journal, boot, running)).await?;
        let workers = workers(&self.parts).await?;
        let sight = in_time(sight(&workers, &record, with_files, cancel)).await?;
        let compared = sight.comparison.as_ref().map(|compared| Compared {
            files: compared.files,
            bytes: compared.bytes,
            more: compared.more,
        });
        Ok((examine(&record, &sight), compared.unwrap_or_default()))
    }

    async fn mend(&self, before: (Vec<Found>, Compared)) -> Result<Mending, Failure> {
        let (found, compared) = before;
        let mut drifts: Vec<Found> = found.into_iter().filter(is_drift).collect();
        let mut remarks = Vec::new();
        let mut now = drifts.clone();
        // What was forgotten or ended may leave something to be removed.
        for _ in 0..MOST_ROUNDS {
            let own = |action: &&Action| !matches!(action, Action::RetryUndo(_));
            let actions: BTreeSet<Action> = actions(&now).filter(own).cloned().collect();
            if actions.is_empty() || !self.act_on(&actions, &mut remarks).await {
                break;
            }
            let found = self.look(false, &CancellationToken::new()).await?.0;
            now = found.into_iter().filter(is_drift).collect();
            drifts.extend(
                now.iter()
                    .filter(|one| !is_among(&one.finding, &drifts))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
        }
        let now = self.look(false, &CancellationToken::new()).await?.0;
        let now = now.into_iter().filter(is_drift).map(|one| one.finding).collect();
        Ok(what_came_of_it(drifts, now, compared, remarks))
    }

    /// Whether all of them could be done.
    async fn act_on(&self, actions: &BTreeSet<Action>, remarks: &mut Vec<String>) -> bool {
        let mut has_failed = false;
        for action in actions {
            let title = title_of(action);
            tracing::warn!("repair: {title}");
            if *action == Action::AcceptLoss && has_failed {
                remarks.push(format!("{title}: left until the rest is mended"));
                continue;
            }
            match in_time(self.act(action)).await {
                Ok(remark) => remarks.extend(remark),
                Err(failure) => {
                    has_failed = true;
                    tracing::error!(failure_code = failure.code.name(), "repair: {failure}");
                    remarks.push(format!("{title}: {failure}"));
                }
            }
        }
        !has_failed
    }

    /// Answers what people should know about what was done.
    async fn act(&self, action: &Action) -> Result<Option<String>, Failure> {
        let overlay = workers(&self.parts).await?.overlay;
        let mend = async |request: MendTrees| ask(&overlay, request).await.map(|()| None);
        let context = context_of(&CancellationToken::new());
        match action.clone() {
            // Left to a transaction, which can be followed.
            Action::RetryUndo(_) => Ok(None),
            Action::ProtectUsr => mend(MendTrees::ProtectUsr).await,
            Action::StandDown(id) => mend(MendTrees::StandDown(id)).await,
            Action::RestoreRef(id, commit) => mend(MendTrees::RestoreRef(id, commit)).await,
            Action::Deploy(commit) => mend(MendTrees::Deploy(commit, context)).await,
            Action::DropStage(id) => mend(MendTrees::DropStage(id)).await,
            Action::CleanUp => {
                let settings = self.parts.settings.as_ref().clone();
                let retention =
                    self.parts.journal.with(move |journal| retention_now(journal, &settings));
                let kept = ask(&overlay, CleanUpTrees(retention.await?)).await?;
                self.parts.journal.write(move |journal| journal.set_kept_updates(&kept)).await?;
                Ok(None)
            }
            Action::ForgetRows => {
                let copy = self.parts.journal.with(Journal::forget_unreadable).await?;
                Ok(copy.map(|name| format!("a copy of the journal is kept as {name}")))
            }
            Action::AcceptLoss => {
                let loss = self.parts.journal.with(Journal::loss).await?;
                self.parts.journal.with(Journal::accept_loss).await?;
                Ok(loss.filter(LostJournal::is_suspect).map(|_| BY_HAND.to_owned()))
            }
        }
    }
}

/// How often a repair looks for what its own remedies brought to light.
const MOST_ROUNDS: usize = 3;

/// What nobody but the admin can find out once the journal is lost.
const BY_HAND: &str = "what the interrupted update had changed in /etc and /var cannot be told any more: \
                       compare /etc with /usr/etc, and look at the services";

/// Before an undo was tried again nothing else is mended, and before all has ended nothing is removed:
/// what they need could go.
fn actions(drifts: &[Found]) -> impl Iterator<Item = &Action> {
    let has = |kind| drifts.iter().any(|found| found.finding.kind == kind);
    let (is_stuck, is_open) = (has(FindingKind::Stuck), has(FindingKind::JournalUnfinished));
    let allowed = move |action: &&Action| match action {
        Action::RetryUndo(_) => true,
        Action::CleanUp => !is_stuck && !is_open,
        _ => !is_stuck,
    };
    drifts.iter().filter_map(|found| found.action.as_ref()).filter(allowed)
}

fn is_among(finding: &Finding, known: &[Found]) -> bool {
    known
        .iter()
        .any(|one| (one.finding.kind, &one.finding.subject) == (finding.kind, &finding.subject))
}

fn is_drift(found: &Found) -> bool {
    found.finding.kind.level() == Level::Drift
}

fn inspection_of(found: Vec<Found>, compared: Compared) -> Inspection {
    let Compared { files, bytes, more } = compared;
    let mut inspection = Inspection { files, bytes, more_files: more, ..Inspection::default() };
    for found in found {
        inspection.add(found.finding);
    }
    inspection
}

/// What a repair would do.
fn foreseen((found, compared): (Vec<Found>, Compared)) -> Mending {
    let drifts: Vec<Found> = found.into_iter().filter(is_drift).collect();
    let is_mended = {
        let actions: BTreeSet<&Action> = actions(&drifts).collect();
        drifts
            .iter()
            .map(|found| found.action.as_ref().is_some_and(|action| actions.contains(action)))
            .collect::<Vec<bool>>()
    };
    let mut mending = Mending { dry_run: true, more_files: compared.more, ..Mending::default() };
    for (found, is_mended) in drifts.into_iter().zip(is_mended) {
        if is_mended {
            mending.mended.push(found.finding);
        } else {
            mending.left.push(found.finding);
        }
    }
    mending
}

/// What was mended is what is not found any more. Files were not read again: nothing mends them.
fn what_came_of_it(
    before: Vec<Found>,
    now: Vec<Finding>,
    compared: Compared,
    remarks: Vec<String>,
) -> Mending {
    let is_there = |finding: &Finding| {
        now.iter().any(|one| (one.kind, &one.subject) == (finding.kind, &finding.subject))
    };
    let mut mending = Mending { remarks, more_files: compared.more, ..Mending::default() };
    for Found { finding, action } in before {
        if is_there(&finding) {
            // As it is now: told below.
        } else if action.is_some() || !is_of_files(finding.kind) {
            mending.mended.push(finding);
        } else {
            mending.left.push(finding);
        }
    }
    mending.left.extend(now);
    mending
}

/// Whether only a look at all files finds it.
fn is_of_files(kind: FindingKind) -> bool {
    matches!(
        kind,
        FindingKind::FileChanged
            | FindingKind::FileMissing
            | FindingKind::FileUnknown
            | FindingKind::ObjectDamaged
    )
}

fn title_of(action: &Action) -> String {
    match action {
        Action::RetryUndo(id) => format!("try the undo of transaction {id} again"),
        Action::ProtectUsr => "make /usr read-only again".to_owned(),
        Action::StandDown(id) => format!("end the guard of transaction {id}"),
        Action::RestoreRef(id, commit) => {
            format!("write the ref of transaction {id}, to {}", commit.short())
        }
        Action::Deploy(commit) => format!("deploy {} for the next boot", commit.short()),
        Action::DropStage(id) => format!("remove the staging area of transaction {id}"),
        Action::CleanUp => "remove what no transaction needs".to_owned(),
        Action::ForgetRows => "forget the rows of the journal that cannot be read".to_owned(),
        Action::AcceptLoss => "go on with the new journal".to_owned(),
    }
}

async fn sight(
    workers: &Workers,
    record: &Record,
    with_files: bool,
    cancel: &CancellationToken,
) -> Result<Sight, Failure> {
    let paths: Vec<_> = record.etc.keys().cloned().collect();
    let look = LookAtTrees {
        commits: record.commits().into_iter().collect(),
        etc: paths.clone(),
        with_files,
        context: context_of(cancel),
    };
    let trees = ask(&workers.overlay, look).await?;
    let packages = ask(&workers.package, ListInstalled).await?;
    Ok(Sight {
        host: trees.host,
        usr: trees.usr,
        trees: trees.trees,
        comparison: trees.comparison,
        packages,
        etc: paths.into_iter().zip(trees.etc).collect(),
    })
}

/// Looks, after a journal was lost, whether an update was interrupted that nobody knows of; once.
pub(super) async fn judge_loss(parts: &Parts) -> Result<(), Failure> {
    let Some(LostJournal { suspects: None, .. }) = parts.journal.with(Journal::loss).await? else {
        return Ok(());
    };
    let fates = parts.journal.with(Journal::fates).await?.all;
    let is_recorded = |id| fates.get(&id).is_some_and(|fate| *fate != Fate::Unreadable);
    let looked = async {
        let overlay = workers(parts).await?.overlay;
        let (commits, etc) = (Vec::new(), Vec::new());
        let context = context_of(&CancellationToken::new());
        ask(&overlay, LookAtTrees { commits, etc, with_files: false, context }).await
    };
    let found = match in_time(looked).await {
        Ok(sight) => suspects(&sight.host, &sight.usr, &sight.trees, is_recorded),
        // Nobody may take it for a host that is in order.
        Err(failure) => vec![format!("the host could not be looked at: {failure}")],
    };
    for suspect in &found {
        tracing::error!("an update may have been interrupted: {suspect}");
    }
    parts.journal.with(move |journal| journal.set_suspects(found)).await
}

async fn workers(parts: &Parts) -> Result<Workers, Failure> {
    let workers = parts.supervisor.send(GetWorkers).await;
    workers.map_err(|error| Failure::caused(ErrorCode::Internal, "the supervisor is gone", &error))
}

fn context_of(cancel: &CancellationToken) -> StepContext {
    let (transaction, cancel) = (TransactionId(0), cancel.clone());
    StepContext { transaction, cancel, report: Reporter::silent() }
}

async fn in_time<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(LONGEST, work).await.unwrap_or_else(|_| {
        let text = format!("it did not end within {} minutes", LONGEST.as_secs() / 60);
        Err(Failure::new(ErrorCode::TimedOut, text))
    })
}
