use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use apt_ostree_proto::TransactionId;
use async_trait::async_trait;

use super::Faults;
use crate::port::{CheckAnswer, Checks, Hook, HookCall, HookKind, HookPhase, PortResult, Probe};

/// Simulated probes and hooks: one hook of each kind, which succeeds, and probes that do.
#[derive(Debug)]
pub struct SimChecks {
    faults: RefCell<Faults>,
    hooks: RefCell<Vec<SimHook>>,
    /// What each probe answers next, by what it is called; the last answer stays.
    answers: RefCell<BTreeMap<String, VecDeque<bool>>>,
    ran: RefCell<Vec<String>>,
}

/// A simulated hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimHook {
    /// When it runs.
    pub kind: HookKind,
    /// Its name.
    pub name: String,
    /// Why it must not be run.
    pub refused: Option<String>,
    /// When it fails.
    pub fails: Vec<HookPhase>,
    /// It never ends by itself.
    pub hangs: bool,
}

impl SimHook {
    /// A hook that succeeds.
    pub fn new(kind: HookKind, name: &str) -> Self {
        Self { kind, name: name.to_owned(), refused: None, fails: Vec::new(), hangs: false }
    }
}

impl Default for SimChecks {
    fn default() -> Self {
        let hooks = HookKind::ALL.iter().map(|kind| SimHook::new(*kind, "50-sim"));
        Self {
            faults: RefCell::default(),
            hooks: RefCell::new(hooks.collect()),
            answers: RefCell::default(),
            ran: RefCell::default(),
        }
    }
}

impl SimChecks {
    /// Sets which calls go wrong.
    pub fn set_faults(&self, faults: Faults) {
        *self.faults.borrow_mut() = faults;
    }

    /// Replaces the hooks.
    pub fn set_hooks(&self, mut hooks: Vec<SimHook>) {
        hooks.sort_by(|a, b| a.name.cmp(&b.name));
        *self.hooks.borrow_mut() = hooks;
    }

    /// Sets what a probe answers from now on, attempt by attempt; the last answer stays.
    pub fn set_answers(&self, probe: &Probe, answers: &[bool]) {
        self.answers.borrow_mut().insert(probe.to_string(), answers.iter().copied().collect());
    }

    /// Every hook that ran, with what it was told of the time: `check/required.d/50-sim before`.
    pub fn ran(&self) -> Vec<String> {
        self.ran.borrow().clone()
    }

    async fn around<T>(
        &self,
        call: &str,
        effect: impl Future<Output = PortResult<T>>,
    ) -> PortResult<T> {
        let faults = self.faults.borrow().clone();
        faults.around(call, effect).await
    }

    fn next_answer(&self, probe: &Probe) -> bool {
        let mut answers = self.answers.borrow_mut();
        let Some(left) = answers.get_mut(&probe.to_string()) else { return true };
        if left.len() > 1 { left.pop_front() } else { left.front().copied() }.unwrap_or(true)
    }
}

#[async_trait(?Send)]
impl Checks for SimChecks {
    async fn probe(&self, _: TransactionId, probe: &Probe) -> PortResult<CheckAnswer> {
        let effect = async {
            let is_ready = self.next_answer(probe);
            Ok(if is_ready { CheckAnswer::default() } else { CheckAnswer::failed("not ready") })
        };
        self.around("checks.probe", effect).await
    }

    async fn hooks(&self, kind: HookKind) -> PortResult<Vec<Hook>> {
        let effect = async {
            let hooks = self.hooks.borrow();
            let own = hooks.iter().filter(|hook| hook.kind == kind);
            Ok(own
                .map(|hook| Hook {
                    kind,
                    name: hook.name.clone(),
                    path: PathBuf::from("/etc/apt-ostree").join(kind.directory()).join(&hook.name),
                    refused: hook.refused.clone(),
                })
                .collect())
        };
        self.around("checks.hooks", effect).await
    }

    async fn run_hook(
        &self,
        hook: &Hook,
        call: &HookCall,
        timeout: Duration,
    ) -> PortResult<CheckAnswer> {
        let effect = async {
            self.ran.borrow_mut().push(format!("{hook} {}", call.phase.name()));
            let is_meant = |sim: &&SimHook| sim.kind == hook.kind && sim.name == hook.name;
            let found = self.hooks.borrow().iter().find(is_meant).cloned();
            let Some(sim) = found else { return Ok(CheckAnswer::failed("it is gone")) };
            if sim.hangs {
                tokio::time::sleep(timeout).await;
                return Ok(CheckAnswer::failed("it took too long"));
            }
            let output = vec![format!("told {:?}", call.environment().join(" "))];
            let failure = sim.fails.contains(&call.phase).then(|| "exit status 1".to_owned());
            Ok(CheckAnswer { failure, output })
        };
        self.around("checks.run_hook", effect).await
    }

    async fn end(&self, _: TransactionId) -> PortResult<()> {
        self.around("checks.end", async { Ok(()) }).await
    }
}
