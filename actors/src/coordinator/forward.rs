//! The effect of each step. Each is a message or two to the workers; what an undo needs is written
//! down before.

use std::collections::BTreeMap;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};
use apt_ostree_proto::plan::{Plan, SpaceNeed, TreeSource};
use apt_ostree_proto::request::Target;
use apt_ostree_proto::step::Step;
use apt_ostree_proto::{CommitId, ErrorCode, Failure, TransactionId, UnitName};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::drive::Drive;
use super::stale;
use crate::context::StepContext;
use crate::download::{DownloadPackages, FinishedFile};
use crate::health::{CheckHealth, RecordBaseline};
use crate::journal::{Committed, Payload};
use crate::overlay::{
    CommitTree, DeployTree, DescribeHost, FindTarget, NewTree, PrepareSwitch, PrepareTree,
    StageTree, SwitchTree,
};
use crate::package::{
    ArchiveLock, FindServicesWith, Goal, InstallPackages, MakePlan, TestPackages,
};
use crate::port::{Delta, HookPhase, TreeMetadata};
use crate::service::{
    AllowShutdown, DetermineEffects, NotRead, RecordStates, ReloadManagers, ServicePlan,
    StartUnits, StopUnits,
};
use crate::supervisor::Workers;
use crate::verification::VerifyPackage;

/// Sends `message` and waits for the answer. A worker that panics is a failure of the step.
pub(super) async fn ask<A, M, T>(worker: &Addr<A>, message: M) -> Result<T, Failure>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result = Result<T, Failure>> + Send + 'static,
    T: Send + 'static,
{
    worker.send(message).await.unwrap_or_else(|error| {
        let worker = std::any::type_name::<A>().rsplit("::").next().unwrap_or_default();
        Err(Failure::caused(ErrorCode::Internal, &format!("the {worker} stopped"), &error))
    })
}

/// What a rollback undoes.
struct Undone {
    /// What was changed besides `/usr`, newest first.
    deltas: Vec<Delta>,
    /// The commit that ran before.
    base: Option<CommitId>,
}

impl Drive {
    /// Whether it changes what runs: else it takes effect with the next boot.
    pub(super) fn is_live(&self) -> bool {
        self.steps().contains(&Step::Switch)
    }

    /// What must be durable before the step begins.
    pub(super) async fn undo_information(
        &mut self,
        step: Step,
        workers: &Workers,
    ) -> Result<Option<Payload>, Failure> {
        match step {
            Step::StopUnits => {
                let units = self.committed()?.services.touched();
                let states = ask(&workers.service, RecordStates { units }).await?;
                Ok(Some(Payload::UnitStates(states)))
            }
            Step::Confirm => Ok(Some(Payload::ConfirmBy(self.confirm_by()))),
            Step::Deploy => Ok(Some(Payload::Deploying(self.committed()?.tree.commit.clone()))),
            _ => Ok(None),
        }
    }

    /// Runs one step; answers what later steps need of it.
    pub(super) async fn effect(
        &mut self,
        step: Step,
        workers: Workers,
    ) -> Result<Option<Payload>, Failure> {
        match step {
            Step::Plan => self.plan(&workers).await.map(|plan| Some(Payload::Plan(plan))),
            Step::Download => self.download(&workers).await.map(|()| None),
            Step::Verify => Ok(None),
            Step::Stage => self.stage(&workers).await.map(|()| None),
            Step::Install => self.install(&workers).await.map(Some),
            Step::Commit => self.commit(&workers).await.map(Some),
            Step::StopUnits => self.stop_units(&workers).await.map(|()| None),
            Step::Switch => self.switch(&workers).await,
            Step::StartUnits => self.start_units(&workers).await.map(|()| None),
            Step::CheckHealth => self.check_health(&workers).await,
            Step::Confirm => self.wait_for_confirmation(&workers).await.map(|()| None),
            Step::Deploy => self.deploy(&workers).await.map(|()| None),
            Step::Finalize => self.finalize(&workers).await.map(|()| None),
        }
    }

    async fn plan(&mut self, workers: &Workers) -> Result<Plan, Failure> {
        self.refuse_bad_hooks(workers).await?;
        let host = ask(&workers.overlay, DescribeHost).await?;
        if host.foreign_pending && !matches!(self.request.target, Target::Pending) {
            return Err(Failure::new(
                ErrorCode::PendingDeployment,
                format!("the deployment of {} waits for the next boot", host.next.short()),
            ));
        }
        let goal = self.goal(workers).await?;
        let (refresh, restart, when) =
            (self.request.refresh, self.request.restart, self.request.when);
        let refresh = refresh && self.request.plan.is_none();
        let next = (host.next != host.running).then_some(host.next);
        let base = host.running;
        let package = workers.package.clone();
        let strategies = self.parts.settings.strategies.clone();
        let mut plan = self
            .reporting(async move |context| {
                ask(&package, MakePlan { base, goal, refresh, restart, when, strategies, context })
                    .await
            })
            .await
            .map_err(|failure| self.tree_is_gone(failure))?;
        plan.next = next;
        if let Some(wanted) = self.request.plan.clone() {
            stale::refuse_if_stale(&self.parts.journal, &wanted, &plan).await?;
        }
        refuse_if_short(&plan.space)?;
        Ok(plan)
    }

    /// A tree to go back to that is not there any more is told by what cannot be undone.
    fn tree_is_gone(&self, failure: Failure) -> Failure {
        match self.request.target {
            Target::Before(id) if failure.code == ErrorCode::NotFound => {
                let text =
                    format!("the tree before transaction {id} is not kept any more: {failure}");
                let hint = "See apt-ostree history for what can be undone.";
                Failure::new(ErrorCode::NotFound, text).with_hint(hint)
            }
            _ => failure,
        }
    }

    async fn goal(&self, workers: &Workers) -> Result<Goal, Failure> {
        let find = |target| ask(&workers.overlay, FindTarget(target));
        Ok(match &self.request.target {
            Target::Packages(selection) => Goal::Packages(selection.clone()),
            Target::Commit(commit) => {
                Goal::Tree(TreeSource::Commit { commit: find(Some(commit.clone())).await? })
            }
            Target::Pending => Goal::Tree(TreeSource::Commit { commit: find(None).await? }),
            Target::Before(id) => {
                let commit = self.undone(*id).await?.base.ok_or_else(|| not_undoable(*id))?;
                Goal::Tree(TreeSource::Before { transaction: *id, commit })
            }
        })
    }

    /// What the kept transactions from the newest down to `id` did. What only waits for the next boot has
    /// done nothing yet.
    async fn undone(&self, id: TransactionId) -> Result<Undone, Failure> {
        self.parts
            .journal
            .with(move |journal| {
                let kept = journal.kept_since(id)?;
                let base = kept.last().ok_or_else(|| not_undoable(id))?.base.clone();
                let mut deltas = Vec::new();
                for record in journal.in_effect(kept)? {
                    let recorded = journal.recorded(record.id)?.ok_or_else(|| not_undoable(id))?;
                    let facts = super::facts::Facts::of(&recorded.entries);
                    deltas.push(facts.committed.ok_or_else(|| not_undoable(id))?.delta);
                }
                Ok(Undone { deltas, base })
            })
            .await
    }

    /// The units that ran before the updates that such a tree undoes, as far as these touched them.
    async fn ran_before(&self, source: &TreeSource) -> Result<Vec<UnitName>, Failure> {
        let TreeSource::Before { transaction, .. } = source else { return Ok(Vec::new()) };
        let id = *transaction;
        self.parts
            .journal
            .with(move |journal| {
                let mut states = BTreeMap::new();
                // The newest comes first: the oldest has the last word.
                for record in journal.kept_since(id)? {
                    let recorded = journal.recorded(record.id)?.ok_or_else(|| not_undoable(id))?;
                    let facts = super::facts::Facts::of(&recorded.entries);
                    states.extend(facts.unit_states.unwrap_or_default());
                }
                Ok(states
                    .into_iter()
                    .filter(|(_, state)| state.is_up())
                    .map(|(unit, _)| unit)
                    .collect())
            })
            .await
    }

    async fn download(&mut self, workers: &Workers) -> Result<(), Failure> {
        ask(&workers.package, ArchiveLock::Take).await?;
        let Plan { base, changes, .. } = self.planned()?.clone();
        let (archives, limits) =
            (self.parts.settings.archives.clone(), self.parts.settings.download);
        let workers = workers.clone();
        self.reporting(async move |context| {
            let cancel = context.cancel.child_token();
            // What it begins goes on while packages are installed, so it has the step's own context.
            ask(&workers.overlay, PrepareTree { base, context: context.clone() }).await?;
            let context = StepContext { cancel, ..context };
            let (finished, files) = mpsc::unbounded_channel();
            let request =
                DownloadPackages { changes, archives, limits, context: context.clone(), finished };
            let downloads = ask(&workers.download, request);
            let verifications = async {
                let verified = verify_as_they_come(&workers, files, &context).await;
                if verified.is_err() {
                    // The rest is not wanted any more; the lock must outlive what still writes.
                    context.cancel.cancel();
                }
                verified
            };
            let (downloaded, verified) = tokio::join!(downloads, verifications);
            verified.and(downloaded.map(drop))
        })
        .await
    }

    async fn stage(&mut self, workers: &Workers) -> Result<(), Failure> {
        let base = self.planned()?.base.clone();
        let overlay = workers.overlay.clone();
        self.reporting(async move |context| ask(&overlay, StageTree { base, context }).await).await
    }

    async fn install(&mut self, workers: &Workers) -> Result<Payload, Failure> {
        let changes = self.planned()?.changes.clone();
        let (package, tests) = (workers.package.clone(), self.parts.settings.tests.clone());
        let report = self
            .reporting(async move |context| {
                let (changes_of, context_of) = (changes.clone(), context.clone());
                let install = InstallPackages { changes: changes_of, context: context_of };
                let report = ask(&package, install).await?;
                ask(&package, TestPackages { tests, changes, context }).await?;
                Ok(report)
            })
            .await?;
        ask(&workers.package, ArchiveLock::Release).await?;
        Ok(Payload::Installed(report))
    }

    async fn commit(&mut self, workers: &Workers) -> Result<Payload, Failure> {
        let plan = self.planned()?.clone();
        let source = self.new_tree(&plan).await?;
        let requests = self.facts.installed.requests.clone();
        let from_packages = matches!(source, NewTree::Staged(_));
        let ran_before = self.ran_before(&plan.source).await?;
        let (restart, force) = (self.request.restart, self.request.force);
        let strategies = self.parts.settings.strategies.clone();
        let reads = self.parts.settings.reads.clone();
        let (workers, is_live) = (workers.clone(), self.is_live());
        let committed = self
            .reporting(async move |context| {
                let request = CommitTree { base: plan.base, source, context: context.clone() };
                let (tree, delta) = ask(&workers.overlay, request).await?;
                if !force {
                    refuse_live_data(&delta)?;
                }
                if !is_live {
                    return Ok(Committed { tree, delta, services: ServicePlan::default() });
                }
                let etc_changed = changed_in_etc(&delta);
                let configured =
                    ask(&workers.package, FindServicesWith(etc_changed.clone())).await?;
                let effects = DetermineEffects {
                    requests,
                    changed: tree.changed.clone(),
                    etc_changed,
                    configured,
                    reads,
                    replaced: tree.replaced.clone(),
                    ran_before,
                    restart,
                    strategies,
                    from_packages,
                    context: context.clone(),
                };
                let prepare =
                    PrepareSwitch { transaction: context.transaction, tree: tree.clone() };
                // Both to their ends: an undo must not meet one that still runs.
                let (services, prepared) =
                    tokio::join!(ask(&workers.service, effects), ask(&workers.overlay, prepare));
                prepared?;
                Ok(Committed { tree, delta, services: services? })
            })
            .await?;
        Ok(Payload::Committed(Box::new(committed)))
    }

    async fn new_tree(&self, plan: &Plan) -> Result<NewTree, Failure> {
        Ok(match &plan.source {
            TreeSource::Packages => NewTree::Staged(TreeMetadata {
                plan: plan.id.clone(),
                changes: plan.changes.clone(),
                reason: self.title.clone(),
            }),
            TreeSource::Commit { commit } => NewTree::Commit(commit.clone()),
            TreeSource::Before { transaction, commit } => NewTree::Before {
                commit: commit.clone(),
                deltas: self.undone(*transaction).await?.deltas,
            },
        })
    }

    async fn stop_units(&mut self, workers: &Workers) -> Result<(), Failure> {
        let plan = self.committed()?.services.clone();
        let units = plan.watched();
        let (health, service) = (workers.health.clone(), workers.service.clone());
        let settings = self.parts.settings.clone();
        let (call, hook_timeout) = (Some(self.hook_call(HookPhase::Before)), settings.hook_timeout);
        let baseline = self
            .reporting(async move |context| {
                let (probes, context_of) = (settings.probes.clone(), context.clone());
                let request =
                    RecordBaseline { units, probes, call, hook_timeout, context: context_of };
                let baseline = ask(&health, request).await?;
                ask(&service, StopUnits { plan, context }).await?;
                Ok(baseline)
            })
            .await?;
        self.baseline = Some(baseline);
        Ok(())
    }

    async fn switch(&mut self, workers: &Workers) -> Result<Option<Payload>, Failure> {
        let Committed { tree, delta, services } = self.committed()?.clone();
        let reload = self.reload_managers(changed_paths(&tree.changed, &delta), services);
        let mut kept = ask(&workers.overlay, SwitchTree { tree, delta }).await?;
        for NotRead { is_down, failure } in ask(&workers.service, reload).await? {
            if is_down {
                return Err(failure);
            }
            kept.push(failure.message);
        }
        Ok((!kept.is_empty()).then_some(Payload::Warnings(kept)))
    }

    pub(super) fn reload_managers(
        &self,
        changed: Vec<std::path::PathBuf>,
        plan: ServicePlan,
    ) -> ReloadManagers {
        let strategies = self.parts.settings.strategies.clone();
        ReloadManagers { changed, plan, restart: self.request.restart, strategies }
    }

    async fn start_units(&mut self, workers: &Workers) -> Result<(), Failure> {
        let plan = self.committed()?.services.clone();
        let (service, dwell) = (workers.service.clone(), self.parts.settings.dwell);
        self.expected_up = self
            .reporting(async move |context| {
                ask(&service, StartUnits { plan, dwell, context }).await
            })
            .await?;
        Ok(())
    }

    async fn check_health(&mut self, workers: &Workers) -> Result<Option<Payload>, Failure> {
        let touched = self.expected_up.clone();
        let (dwell, hook_timeout) = (self.parts.settings.dwell, self.parts.settings.hook_timeout);
        let call = Some(self.hook_call(HookPhase::After));
        // A daemon that died between the switch and here unwinds: the baseline is there.
        let Some(baseline) = self.baseline.clone() else { return Ok(None) };
        let health = workers.health.clone();
        let report = self
            .reporting(async move |context| {
                let request = CheckHealth { baseline, touched, dwell, call, hook_timeout, context };
                ask(&health, request).await
            })
            .await?;
        let unjudged = report.failed_before.iter();
        let unjudged = unjudged.map(|unit| format!("{unit} had failed before the update"));
        let warnings: Vec<String> = unjudged.chain(report.warnings).collect();
        Ok((!warnings.is_empty()).then_some(Payload::Warnings(warnings)))
    }

    async fn deploy(&mut self, workers: &Workers) -> Result<(), Failure> {
        let (tree, is_live) = (self.committed()?.tree.clone(), self.is_live());
        let overlay = workers.overlay.clone();
        // As the status says: a daemon that is asked to stop lets the pivot end, one way or the other.
        self.reporting(async move |context| {
            let context = context.uncancellable();
            ask(&overlay, DeployTree { tree, is_live, context }).await
        })
        .await?;
        if !is_live {
            return Ok(());
        }
        // The pivot is behind; what is missing is made up for after a reboot.
        ask(&workers.service, AllowShutdown).await
    }

    pub(super) fn planned(&self) -> Result<&Plan, Failure> {
        self.facts.plan.as_ref().ok_or_else(|| missing("plan"))
    }

    pub(super) fn committed(&self) -> Result<&Committed, Failure> {
        self.facts.committed.as_ref().ok_or_else(|| missing("committed tree"))
    }
}

/// Refuses a plan that needs more space than there is, with the numbers of every file system.
fn refuse_if_short(space: &[SpaceNeed]) -> Result<(), Failure> {
    let short: Vec<String> = space
        .iter()
        .filter(|space| !space.fits())
        .map(|space| {
            format!(
                "{} has {} bytes available and the update needs up to {}",
                space.path.display(),
                space.available_bytes,
                space.needed_bytes
            )
        })
        .collect();
    if short.is_empty() { Ok(()) } else { Err(Failure::new(ErrorCode::NoSpace, short.join("; "))) }
}

/// Verifies each file as soon as it is there.
async fn verify_as_they_come(
    workers: &Workers,
    mut files: mpsc::UnboundedReceiver<FinishedFile>,
    context: &StepContext,
) -> Result<(), Failure> {
    let mut running = FuturesUnordered::new();
    let mut more = true;
    loop {
        tokio::select! {
            file = files.recv(), if more => match file {
                Some(file) => {
                    let FinishedFile { change, path, sha256, .. } = file;
                    let digest = Some(sha256);
                    let request = VerifyPackage { change, path, digest, context: context.clone() };
                    running.push(ask(&workers.verification, request));
                }
                None => more = false,
            },
            Some(verified) = running.next() => verified?,
            else => return Ok(()),
        }
    }
}

fn refuse_live_data(delta: &Delta) -> Result<(), Failure> {
    if delta.live_data.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::NextBootOnly,
        format!("a package script changes data that services use: {}", delta.live_data.join(", ")),
    )
    .with_hint("Leave the package out, or accept the risk with --force."))
}

pub(super) fn changed_paths(usr: &[std::path::PathBuf], delta: &Delta) -> Vec<std::path::PathBuf> {
    let usr = usr.iter().map(|path| std::path::Path::new("/").join(path));
    usr.chain(changed_in_etc(delta)).collect()
}

/// The paths that change below `/etc`, absolute.
pub(super) fn changed_in_etc(delta: &Delta) -> Vec<std::path::PathBuf> {
    let below = delta.changed_in_etc().into_iter();
    below.map(|path| std::path::Path::new("/etc").join(path)).collect()
}

fn missing(what: &str) -> Failure {
    Failure::new(ErrorCode::Internal, format!("the log has no {what}"))
}

fn not_undoable(id: TransactionId) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("transaction {id} left no update that can be undone"))
}
