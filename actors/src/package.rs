//! The package actor: plans, and installation in the sandbox.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use apt_ostree_proto::package::{Action, PackageChange, UpdateClass};
use apt_ostree_proto::plan::{Plan, Refusal, TreeSource};
use apt_ostree_proto::request::{RestartPolicy, Selection, When};
use apt_ostree_proto::{
    CommitId, ErrorCode, Failure, PackageName, PlanId, TransactionId, UnitName,
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::context::StepContext;
use crate::port::{Host, InstallReport, InstallTest, Packages, PortResult, Resolution, Sandbox};
use crate::service::{Strategies, predict};

/// Holds the package and sandbox ports.
#[derive(Clone, Debug)]
pub struct PackageActor {
    packages: Rc<dyn Packages>,
    sandbox: Rc<dyn Sandbox>,
}

impl PackageActor {
    /// An actor on `host`.
    pub fn new(host: &Host) -> Self {
        Self { packages: Rc::clone(&host.packages), sandbox: Rc::clone(&host.sandbox) }
    }
}

impl Actor for PackageActor {
    type Context = Context<Self>;
}

/// What a plan leads to.
#[derive(Clone, Debug)]
pub enum Goal {
    /// Packages on top of the running tree.
    Packages(Selection),
    /// A tree that is there.
    Tree(TreeSource),
}

/// Request: make a plan. Nothing but caches changes.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<Plan>")]
pub struct MakePlan {
    /// The running commit.
    pub base: CommitId,
    /// Where to go.
    pub goal: Goal,
    /// Whether to fetch the package lists first.
    pub refresh: bool,
    /// What will be restarted.
    pub restart: RestartPolicy,
    /// When it takes effect.
    pub when: When,
    /// What the configuration says about units.
    pub strategies: Strategies,
    /// The step.
    pub context: StepContext,
}

impl Handler<MakePlan> for PackageActor {
    type Result = ResponseFuture<PortResult<Plan>>;

    fn handle(&mut self, request: MakePlan, _: &mut Self::Context) -> Self::Result {
        let packages = Rc::clone(&self.packages);
        Box::pin(async move {
            match request.goal.clone() {
                Goal::Packages(selection) => plan_packages(&*packages, &selection, request).await,
                Goal::Tree(source) => plan_tree(&*packages, source, request).await,
            }
        })
    }
}

/// Request: the installed packages' versions, by name and architecture.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "PortResult<BTreeMap<(String, String), String>>")]
pub struct ListInstalled;

impl Handler<ListInstalled> for PackageActor {
    type Result = ResponseFuture<PortResult<BTreeMap<(String, String), String>>>;

    fn handle(&mut self, _: ListInstalled, _: &mut Self::Context) -> Self::Result {
        let packages = Rc::clone(&self.packages);
        Box::pin(async move { packages.installed().await })
    }
}

async fn plan_packages(
    packages: &dyn Packages,
    selection: &Selection,
    request: MakePlan,
) -> PortResult<Plan> {
    let MakePlan { base, refresh, restart, when, strategies, context, .. } = request;
    if refresh {
        packages.refresh(&context).await?;
    }
    context.report.fraction(0.5);
    let whole = packages.resolve(selection, &[], &context).await?;
    refuse_untrusted(&whole)?;
    let Split { now, later } = match when {
        When::NextBoot => Split { now: whole, later: Vec::new() },
        When::Live => live_only(packages, selection, whole, &context).await?,
        When::Soonest => as_soon_as_possible(packages, selection, whole, &context).await?,
    };
    context.report.fraction(0.8);
    let mut impact = packages.impact(&now.changes).await?;
    impact.units = match when {
        // Whatever runs then was started from the new tree.
        When::NextBoot => Vec::new(),
        When::Live | When::Soonest => {
            impact.units.into_iter().map(|effect| predict(effect, restart, &strategies)).collect()
        }
    };
    let mut warnings = Vec::new();
    if !now.hooks_not_run.is_empty() {
        warnings.push(format!("apt hooks that are not run: {}", now.hooks_not_run.join(", ")));
    }
    Ok(Plan {
        id: digest(&(&base, restart, when, selection, &now.inputs, &now.changes, &later)),
        source: TreeSource::Packages,
        base,
        next: None,
        changes: now.changes,
        next_boot: later,
        when,
        units: impact.units,
        etc_conflicts: impact.etc_conflicts,
        space: impact.space,
        refused: now.refused,
        warnings,
        restart,
    })
}

/// What is asked for, by when it can take effect.
struct Split {
    now: Resolution,
    later: Vec<PackageChange>,
}

/// What has to wait for the next boot, by itself.
fn next_boot_changes(resolution: &Resolution) -> Vec<&PackageChange> {
    resolution.changes.iter().filter(|change| change.class != UpdateClass::Live).collect()
}

/// Leaves out of an upgrade what cannot change live. What was asked for by name is not silently left
/// out; nor what comes again although it was kept, for something else needs it newly.
async fn live_only(
    packages: &dyn Packages,
    selection: &Selection,
    whole: Resolution,
    context: &StepContext,
) -> PortResult<Split> {
    let mut kept: Vec<PackageName> = Vec::new();
    let mut left_out = Vec::new();
    let mut now = whole;
    loop {
        let later = next_boot_changes(&now);
        let Some(first) = later.first() else { break };
        if !selection.is_whole_upgrade() || later.iter().any(|change| kept.contains(&change.name)) {
            return Err(next_boot_failure(first, later.len()));
        }
        kept.extend(later.iter().map(|change| change.name.clone()));
        left_out.extend(later.into_iter().map(|change| Refusal {
            subject: change.name.to_string(),
            reason: change.next_boot_reason().to_owned(),
        }));
        // What waits may be what other packages depend on.
        now = packages.resolve(selection, &kept, context).await?;
        refuse_untrusted(&now)?;
    }
    now.refused.extend(left_out);
    Ok(Split { now, later: Vec::new() })
}

/// Parts what can change live, with all that it needs, from the rest. Where no such part is left once
/// what has to wait is taken out, all of it waits.
async fn as_soon_as_possible(
    packages: &dyn Packages,
    selection: &Selection,
    whole: Resolution,
    context: &StepContext,
) -> PortResult<Split> {
    let mut kept: Vec<PackageName> = Vec::new();
    let mut selection = selection.clone();
    let is_upgrade = selection.is_whole_upgrade();
    let mut now = whole.clone();
    loop {
        let later: Vec<PackageName> =
            next_boot_changes(&now).into_iter().map(|change| change.name.clone()).collect();
        if later.is_empty() {
            break;
        }
        let is_needed_again = later.iter().any(|name| kept.contains(name));
        kept.extend(later);
        selection = selection.without(&kept);
        if is_needed_again || (!is_upgrade && selection.is_whole_upgrade()) {
            now = Resolution { changes: Vec::new(), ..whole.clone() };
            break;
        }
        now = match packages.resolve(&selection, &kept, context).await {
            Ok(now) => now,
            // What was asked for cannot be had without what waits.
            Err(failure) if failure.code == ErrorCode::Unsatisfiable => {
                Resolution { changes: Vec::new(), ..whole.clone() }
            }
            Err(failure) => return Err(failure),
        };
    }
    refuse_untrusted(&now)?;
    let is_live = |change: &PackageChange| now.changes.iter().any(|live| same(live, change));
    let later: Vec<PackageChange> =
        whole.changes.iter().filter(|change| !is_live(change)).cloned().collect();
    // What waits is not refused.
    let refused = whole.refused;
    Ok(Split { now: Resolution { refused, ..now }, later })
}

fn same(one: &PackageChange, other: &PackageChange) -> bool {
    (&one.name, &one.architecture) == (&other.name, &other.architecture)
}

fn refuse_untrusted(resolution: &Resolution) -> PortResult<()> {
    let untrusted = resolution
        .changes
        .iter()
        .find(|change| change.action != Action::Remove && !change.origin.trusted);
    match untrusted {
        Some(change) => Err(Failure::new(
            ErrorCode::Untrusted,
            format!("no trusted signature covers {} from {}", change.name, change.origin.site),
        )),
        None => Ok(()),
    }
}

fn next_boot_failure(first: &PackageChange, count: usize) -> Failure {
    let others = match count {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    Failure::new(
        ErrorCode::NextBootOnly,
        format!("{}{others} cannot change live: {}", first.name, first.next_boot_reason()),
    )
}

async fn plan_tree(
    packages: &dyn Packages,
    source: TreeSource,
    request: MakePlan,
) -> PortResult<Plan> {
    let MakePlan { base, restart, when, context, .. } = request;
    let commit = match &source {
        TreeSource::Commit { commit } | TreeSource::Before { commit, .. } => commit,
        TreeSource::Packages => &base,
    };
    let changes = packages.difference(&base, commit, &context).await?;
    let waiting = changes.iter().find(|change| change.class != UpdateClass::Live);
    // A tree is one: it is switched to as a whole.
    let (changes, next_boot) = match (when, waiting) {
        (When::Soonest, Some(_)) => (Vec::new(), changes),
        (When::Live, Some(first)) => return Err(next_boot_failure(first, 1)),
        _ => (changes, Vec::new()),
    };
    Ok(Plan {
        id: digest(&(&base, restart, when, &source)),
        source,
        base,
        next: None,
        changes,
        next_boot,
        when,
        units: Vec::new(),
        etc_conflicts: Vec::new(),
        space: Vec::new(),
        refused: Vec::new(),
        warnings: Vec::new(),
        restart,
    })
}

/// The digest of everything that a plan was made from.
fn digest(inputs: &impl Serialize) -> PlanId {
    let bytes = serde_json::to_vec(inputs).unwrap_or_default();
    let digits: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    PlanId::parse(digits).expect("a SHA-256 digest in lower-case hexadecimal is a plan id")
}

/// Request: the packages that differ between the trees of two commits.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<Vec<PackageChange>>")]
pub struct ComparePackages {
    /// The one.
    pub old: CommitId,
    /// The other.
    pub new: CommitId,
    /// How it is cancelled.
    pub context: StepContext,
}

impl Handler<ComparePackages> for PackageActor {
    type Result = ResponseFuture<PortResult<Vec<PackageChange>>>;

    fn handle(&mut self, request: ComparePackages, _: &mut Self::Context) -> Self::Result {
        let packages = Rc::clone(&self.packages);
        Box::pin(
            async move { packages.difference(&request.old, &request.new, &request.context).await },
        )
    }
}

/// Request: the services of the packages that ship these files of `/etc`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<BTreeMap<PathBuf, Vec<UnitName>>>")]
pub struct FindServicesWith(pub Vec<PathBuf>);

impl Handler<FindServicesWith> for PackageActor {
    type Result = ResponseFuture<PortResult<BTreeMap<PathBuf, Vec<UnitName>>>>;

    fn handle(&mut self, request: FindServicesWith, _: &mut Self::Context) -> Self::Result {
        let packages = Rc::clone(&self.packages);
        Box::pin(async move { packages.services_with(&request.0).await })
    }
}

/// Request: install the packages in the staged root.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<InstallReport>")]
pub struct InstallPackages {
    /// The packages.
    pub changes: Vec<PackageChange>,
    /// The step.
    pub context: StepContext,
}

impl Handler<InstallPackages> for PackageActor {
    type Result = ResponseFuture<PortResult<InstallReport>>;

    fn handle(&mut self, request: InstallPackages, _: &mut Self::Context) -> Self::Result {
        let sandbox = Rc::clone(&self.sandbox);
        Box::pin(async move { sandbox.install(&request.changes, &request.context).await })
    }
}

/// Request: run the tests of what was installed in the staged root.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct TestPackages {
    /// The configured tests, of which those of the packages below run.
    pub tests: Vec<InstallTest>,
    /// The packages.
    pub changes: Vec<PackageChange>,
    /// The step.
    pub context: StepContext,
}

impl Handler<TestPackages> for PackageActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: TestPackages, _: &mut Self::Context) -> Self::Result {
        let sandbox = Rc::clone(&self.sandbox);
        Box::pin(async move {
            if request.tests.is_empty() {
                return Ok(());
            }
            sandbox.test(&request.tests, &request.changes, &request.context).await
        })
    }
}

/// Request: end what still runs in the sandbox. The undo of [`InstallPackages`].
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct KillInstall(pub TransactionId);

impl Handler<KillInstall> for PackageActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: KillInstall, _: &mut Self::Context) -> Self::Result {
        let sandbox = Rc::clone(&self.sandbox);
        Box::pin(async move { sandbox.kill(request.0).await })
    }
}

/// Request: take apt's archive lock, or give it back.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub enum ArchiveLock {
    /// Take it. Idempotent.
    Take,
    /// Give it back. Idempotent.
    Release,
}

impl Handler<ArchiveLock> for PackageActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: ArchiveLock, _: &mut Self::Context) -> Self::Result {
        let packages = Rc::clone(&self.packages);
        Box::pin(async move {
            match request {
                ArchiveLock::Take => packages.lock_archives().await,
                ArchiveLock::Release => packages.unlock_archives().await,
            }
        })
    }
}
