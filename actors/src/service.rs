//! Services: which units an update affects, and how they are stopped, started and put back.
//!
//! Architecture invariant: a unit is touched only when [`ServicePlan::touched`] names it, and only
//! after its state was recorded, so that [`RestoreUnits`] can always put back what was done.

mod configuration;
mod decide;
mod effects;
mod manner;
mod order;
mod outdated;
mod readers;
mod restore;
mod run;
mod scripts;
mod strategy;
mod unit_files;

pub(crate) use decide::predict;
pub use outdated::FindOutdated;
pub use readers::NotRead;
pub(crate) use run::{describe, quoted_log};
pub use strategy::{Strategies, StrategyRule};
pub(crate) use unit_files::Described;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use apt_ostree_proto::request::RestartPolicy;
use apt_ostree_proto::service::{ScriptRequest, UnitAction, UnitEffect, UnitState};
use apt_ostree_proto::{UnitName, UnitPattern};
use serde::{Deserialize, Serialize};

use crate::context::StepContext;
use crate::port::{PortResult, ProcessUse, Processes, ReplacedFile, Systemd};

/// What an update does to the host's units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePlan {
    /// The affected units, by name, each with what is done and why; those left alone among them.
    pub effects: Vec<UnitEffect>,
    /// Running units that need a unit that goes down, and so go down and up with it.
    pub followers: Vec<UnitName>,
    /// Processes that use replaced files and belong to no unit of the system manager (user
    /// sessions): nobody restarts them. One entry for each process.
    pub other_processes: Vec<ProcessUse>,
}

impl ServicePlan {
    /// Every unit that the plan touches: what must be recorded before the first is stopped.
    pub fn touched(&self) -> Vec<UnitName> {
        let acted = self.effects.iter().filter(|effect| effect.action != UnitAction::Leave);
        let mut units: Vec<UnitName> =
            acted.map(|effect| effect.unit.clone()).chain(self.followers.iter().cloned()).collect();
        units.sort();
        units.dedup();
        units
    }

    /// The touched units whose health counts: all but those that are meant to go.
    pub fn watched(&self) -> Watched {
        let gone = self.with(&[UnitAction::Stop]);
        let units = self.touched().into_iter().filter(|unit| !gone.contains(unit)).collect();
        Watched { units, gone }
    }

    /// Whether no unit is touched.
    pub fn is_empty(&self) -> bool {
        self.touched().is_empty()
    }

    fn with(&self, actions: &[UnitAction]) -> Vec<UnitName> {
        let wanted = self.effects.iter().filter(|effect| actions.contains(&effect.action));
        wanted.map(|effect| effect.unit.clone()).collect()
    }
}

/// Whose health counts after an update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// The units that it touches and leaves running. What needs them counts with them.
    pub units: Vec<UnitName>,
    /// Those that are meant to go: of them nothing is expected, whatever they need.
    pub gone: Vec<UnitName>,
}

/// The actor that works on units.
#[derive(Debug)]
pub struct ServiceActor {
    systemd: Rc<dyn Systemd>,
    processes: Rc<dyn Processes>,
}

impl ServiceActor {
    /// An actor for the host behind the ports.
    pub fn new(systemd: Rc<dyn Systemd>, processes: Rc<dyn Processes>) -> Self {
        Self { systemd, processes }
    }
}

impl Actor for ServiceActor {
    type Context = Context<Self>;
}

/// Request: find the units that an update affects, and decide what is done with each.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<ServicePlan>")]
pub struct DetermineEffects {
    /// What the maintainer scripts asked, in their order.
    pub requests: Vec<ScriptRequest>,
    /// Changed paths below `/usr`, with or without the leading `/`.
    pub changed: Vec<PathBuf>,
    /// Changed paths below `/etc`, likewise.
    pub etc_changed: Vec<PathBuf>,
    /// Files that are replaced or removed.
    pub replaced: Vec<ReplacedFile>,
    /// The services of the packages that ship changed files of `/etc`.
    pub configured: BTreeMap<PathBuf, Vec<UnitName>>,
    /// What units read besides, as the admin says: files, and directories of them.
    pub reads: BTreeMap<UnitPattern, Vec<PathBuf>>,
    /// The units that ran before the updates that the new tree undoes, as far as these touched them.
    pub ran_before: Vec<UnitName>,
    /// Which units to restart.
    pub restart: RestartPolicy,
    /// What the configuration says about units.
    pub strategies: Strategies,
    /// Whether the new tree was made from packages, whose scripts then have the say.
    pub from_packages: bool,
    /// The step.
    pub context: StepContext,
}

impl Handler<DetermineEffects> for ServiceActor {
    type Result = ResponseFuture<PortResult<ServicePlan>>;

    fn handle(&mut self, request: DetermineEffects, _: &mut Self::Context) -> Self::Result {
        let (systemd, processes) = (Rc::clone(&self.systemd), Rc::clone(&self.processes));
        Box::pin(
            async move { effects::determine(systemd.as_ref(), processes.as_ref(), &request).await },
        )
    }
}

/// Request: read the units' states, to be journalled before any is touched. Changes nothing.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<BTreeMap<UnitName, UnitState>>")]
pub struct RecordStates {
    /// The units: [`ServicePlan::touched`].
    pub units: Vec<UnitName>,
}

impl Handler<RecordStates> for ServiceActor {
    type Result = ResponseFuture<PortResult<BTreeMap<UnitName, UnitState>>>;

    fn handle(&mut self, request: RecordStates, _: &mut Self::Context) -> Self::Result {
        let systemd = Rc::clone(&self.systemd);
        Box::pin(async move { systemd.states(&request.units).await })
    }
}

/// Request: stop the units that must be down before the switch, those that need others first. From
/// here on the host does not shut down, until [`AllowShutdown`] or [`RestoreUnits`]. Idempotent.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct StopUnits {
    /// The plan.
    pub plan: ServicePlan,
    /// The step.
    pub context: StepContext,
}

impl Handler<StopUnits> for ServiceActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: StopUnits, _: &mut Self::Context) -> Self::Result {
        let systemd = Rc::clone(&self.systemd);
        Box::pin(async move {
            hold_shutdown(systemd.as_ref()).await;
            run::stop(systemd.as_ref(), &request.plan, &request.context).await
        })
    }
}

/// Request: the update is kept, the host may shut down again. Idempotent.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct AllowShutdown;

/// Request: have the host not shut down again, until [`AllowShutdown`] or [`RestoreUnits`].
/// Idempotent.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct HoldShutdown;

impl Handler<HoldShutdown> for ServiceActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, _: HoldShutdown, _: &mut Self::Context) -> Self::Result {
        let systemd = Rc::clone(&self.systemd);
        Box::pin(async move {
            hold_shutdown(systemd.as_ref()).await;
            Ok(())
        })
    }
}

async fn hold_shutdown(systemd: &dyn Systemd) {
    if let Err(failure) = systemd.hold_shutdown("an update is being switched to").await {
        // Hosts without logind have nobody to ask; recovery puts in order what a shutdown
        // interrupts.
        tracing::warn!("the host may shut down in the middle of this update: {failure}");
    }
}

impl Handler<AllowShutdown> for ServiceActor {
    type Result = PortResult<()>;

    fn handle(&mut self, _: AllowShutdown, _: &mut Self::Context) -> Self::Result {
        self.systemd.allow_shutdown();
        Ok(())
    }
}

/// Request: restart, reload and start units after the switch, each when what it waits for is up.
/// Answers the units that are expected to stay up. Errors: `UnitFailed` names the unit, how its job
/// ended, and its last log lines.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<Vec<UnitName>>")]
pub struct StartUnits {
    /// The plan.
    pub plan: ServicePlan,
    /// How long a unit of a rolling group must stay up before the next has its turn.
    pub dwell: Duration,
    /// The step.
    pub context: StepContext,
}

impl Handler<StartUnits> for ServiceActor {
    type Result = ResponseFuture<PortResult<Vec<UnitName>>>;

    fn handle(&mut self, request: StartUnits, _: &mut Self::Context) -> Self::Result {
        let systemd = Rc::clone(&self.systemd);
        Box::pin(async move {
            run::start(systemd.as_ref(), &request.plan, request.dwell, &request.context).await
        })
    }
}

/// Request: stop the units that run now and did not before, while the new tree with their unit files
/// is still there. Undo of [`StartUnits`], idempotent; [`RestoreUnits`] does the rest. Nothing is done
/// while the host shuts down: its next boot starts everything.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct StopStarted {
    /// The states that [`RecordStates`] read.
    pub before: BTreeMap<UnitName, UnitState>,
    /// The plan, whose units may have been touched.
    pub plan: ServicePlan,
    /// The step.
    pub context: StepContext,
}

impl Handler<StopStarted> for ServiceActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: StopStarted, _: &mut Self::Context) -> Self::Result {
        let systemd = Rc::clone(&self.systemd);
        Box::pin(async move {
            if systemd.is_stopping().await? {
                return Ok(());
            }
            restore::stop_started(
                systemd.as_ref(),
                &request.before,
                &request.plan,
                &request.context,
            )
            .await
        })
    }
}

/// Request: bring every touched unit back to its recorded state, once the old tree is back: what ran
/// before runs again, on old code; what did not run is stopped. Goes on past a unit that fails and
/// then answers that failure. Undo of [`StopUnits`], idempotent; not cancellable. Nothing is done while
/// the host shuts down: its next boot starts everything.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct RestoreUnits {
    /// The states that [`RecordStates`] read.
    pub before: BTreeMap<UnitName, UnitState>,
    /// The plan, whose units may have been touched.
    pub plan: ServicePlan,
    /// The step.
    pub context: StepContext,
}

impl Handler<RestoreUnits> for ServiceActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: RestoreUnits, _: &mut Self::Context) -> Self::Result {
        let systemd = Rc::clone(&self.systemd);
        Box::pin(async move {
            if systemd.is_stopping().await? {
                return Ok(());
            }
            let result = restore::restore(
                systemd.as_ref(),
                &request.before,
                &request.plan,
                &request.context,
            )
            .await;
            systemd.allow_shutdown();
            result
        })
    }
}

/// Request: start the units again that ran and do not any more. Goes on past a unit that fails and then
/// answers that failure. Idempotent; not cancellable.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct StartAgain {
    /// The states that [`RecordStates`] read.
    pub before: BTreeMap<UnitName, UnitState>,
    /// The plan, whose units may have been touched.
    pub plan: ServicePlan,
    /// Where progress goes.
    pub context: StepContext,
}

impl Handler<StartAgain> for ServiceActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: StartAgain, _: &mut Self::Context) -> Self::Result {
        let systemd = Rc::clone(&self.systemd);
        Box::pin(async move {
            let StartAgain { before, plan, context } = request;
            restore::start_again(systemd.as_ref(), &before, &plan, &context).await
        })
    }
}

/// Request: after the tree changed, create what changed tmpfiles fragments describe, load changed `AppArmor`
/// profiles, and have the service manager, the bus, udev and polkit read what they read, in this order,
/// each if it is concerned. Answers what has not been read, but for managers. Idempotent.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<Vec<NotRead>>")]
pub struct ReloadManagers {
    /// The paths that changed, absolute.
    pub changed: Vec<PathBuf>,
    /// The plan; what it restarts reads everything then.
    pub plan: ServicePlan,
    /// Which units may be restarted.
    pub restart: RestartPolicy,
    /// What the configuration says about units.
    pub strategies: Strategies,
}

impl Handler<ReloadManagers> for ServiceActor {
    type Result = ResponseFuture<PortResult<Vec<NotRead>>>;

    fn handle(&mut self, request: ReloadManagers, _: &mut Self::Context) -> Self::Result {
        let systemd = Rc::clone(&self.systemd);
        Box::pin(async move {
            let fragments = tmpfiles_fragments(&request.changed);
            if !fragments.is_empty() {
                systemd.create_tmpfiles(&fragments).await?;
            }
            let ReloadManagers { changed, plan, restart, strategies } = request;
            let is_read = changed.iter().any(|path| is_read_by_managers(path));
            let is_read_by_others = readers::are_concerned(&changed);
            if !(is_read || is_read_by_others) || systemd.is_stopping().await? {
                return Ok(Vec::new());
            }
            let mut not_read = readers::load_profiles(systemd.as_ref(), &changed).await?;
            if is_read {
                systemd.reload_managers().await?;
            }
            let limits = readers::Limits { plan: &plan, restart, strategies: &strategies };
            not_read.extend(readers::read_again(systemd.as_ref(), &changed, &limits).await?);
            Ok(not_read)
        })
    }
}

/// Directories below which something stands that the service manager or the bus keeps in memory:
/// systemd.unit(5) with generators, presets and drop-ins, dbus-daemon(1), and what units are
/// generated from.
const READ_BY_MANAGERS: &[&str] = &["systemd", "dbus-1", "init.d", "xdg", "fstab", "crypttab"];

/// Whether a manager has to read it again. Reading everything takes longer than all else in a switch.
pub fn is_read_by_managers(path: &Path) -> bool {
    path.iter().any(|name| READ_BY_MANAGERS.iter().any(|known| name == *known))
}

/// The tmpfiles.d(5) fragments among `changed`.
fn tmpfiles_fragments(changed: &[PathBuf]) -> Vec<PathBuf> {
    let is_fragment = |path: &&PathBuf| {
        let in_directory = path.parent().is_some_and(|p| p.ends_with("tmpfiles.d"));
        in_directory && path.extension().is_some_and(|extension| extension == "conf")
    };
    changed.iter().filter(is_fragment).cloned().collect()
}
