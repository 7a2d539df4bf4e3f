mod files;
mod look;
mod mounts;
mod state;

pub use state::{DiskState, SIM_TREE_BYTES};

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

use apt_ostree_proto::difference::{Change, ChangedFile, Counts, TreeDifference};
use apt_ostree_proto::point::KeptUpdate;
use apt_ostree_proto::{CommitId, PointName, Sha256, TransactionId};
use async_trait::async_trait;

use super::{Faults, SimSystemd};
use crate::context::StepContext;
use crate::port::{
    CommittedTree, DeltaEntry, FileIdentity, HostTree, Placement, PortResult, ReplacedFile,
    Retention, Tree, TreeComparison, TreeIdentity, TreeLook, TreeMetadata,
};

/// A simulated disk: trees, deployments, mounts on `/usr`, `/etc` and `/var`. It stands for three
/// ports, because what is mounted and what is deployed are told from one another by them all.
#[derive(Debug)]
pub struct SimDisk {
    faults: RefCell<Faults>,
    systemd: Rc<SimSystemd>,
    state: RefCell<DiskState>,
    delta: RefCell<Vec<DeltaEntry>>,
    live_data: RefCell<Vec<String>>,
    boots: Cell<u32>,
}

/// The commit that stands for `number`.
pub fn sim_commit(number: u64) -> CommitId {
    CommitId::parse(format!("{number:064x}")).expect("64 hexadecimal digits are a commit")
}

/// A file whose content stands for `number`.
pub fn sim_file(number: u64) -> FileIdentity {
    let sha256 = Sha256::parse(format!("{number:064x}")).ok();
    FileIdentity { mode: 0o100_644, uid: 0, gid: 0, sha256 }
}

impl SimDisk {
    /// A disk with one deployment, booted, and one file below `/etc`.
    pub fn new(systemd: Rc<SimSystemd>) -> Self {
        let booted = sim_commit(1);
        let conf = (Placement::Etc, PathBuf::from("app.conf"));
        let state = DiskState {
            booted: booted.clone(),
            mounted: Vec::new(),
            collapsed: false,
            deployed: vec![booted],
            staged: None,
            prepared: BTreeSet::new(),
            stages: BTreeSet::new(),
            checkouts: BTreeMap::new(),
            bases: BTreeMap::new(),
            points: BTreeMap::new(),
            kept_files: BTreeSet::new(),
            guards: BTreeSet::new(),
            pins: BTreeSet::new(),
            files: BTreeMap::from([(conf, sim_file(1))]),
            awaiting_boot: BTreeSet::new(),
            writable: false,
            lost_refs: BTreeSet::new(),
            spoilt: BTreeSet::new(),
        };
        let entry = |place, path: &str, before, after| DeltaEntry {
            place,
            path: path.into(),
            before,
            after,
        };
        let delta = vec![
            entry(Placement::Etc, "app.conf", Some(sim_file(1)), Some(sim_file(2))),
            entry(Placement::Var, "lib/app", None, Some(sim_file(3))),
        ];
        let (state, delta) = (RefCell::new(state), RefCell::new(delta));
        Self {
            faults: RefCell::default(),
            systemd,
            state,
            delta,
            live_data: RefCell::default(),
            boots: Cell::new(1),
        }
    }

    /// The package's script changes data that services use.
    pub fn change_live_data(&self, path: &str) {
        self.live_data.borrow_mut().push(path.to_owned());
    }

    /// Sets which calls go wrong.
    pub fn set_faults(&self, faults: Faults) {
        *self.faults.borrow_mut() = faults;
    }

    /// What is on the disk.
    pub fn state(&self) -> DiskState {
        self.state.borrow().clone()
    }

    /// An admin edits a file.
    pub fn edit(&self, place: Placement, path: &str, file: FileIdentity) {
        self.state.borrow_mut().files.insert((place, path.into()), file);
    }

    /// The host reboots: into its default deployment, without live mounts and guards.
    pub fn reboot(&self) {
        self.boots.set(self.boots.get() + 1);
        let mut state = self.state.borrow_mut();
        state.mounted.clear();
        state.collapsed = false;
        state.guards.clear();
        state.pins.clear();
        state.awaiting_boot.clear();
        if let Some(staged) = state.staged.take() {
            state.deployed.retain(|commit| *commit != staged);
            state.deployed.insert(0, staged);
        }
        state.booted = state.deployed[0].clone();
        let tree = number_of(&state.booted);
        drop(state);
        self.systemd.set_tree(tree);
    }

    /// How often the host has booted.
    pub fn boots(&self) -> u32 {
        self.boots.get()
    }

    /// `OSTree` drops every deployment but the booted one.
    pub fn forget_deployments(&self) {
        let mut state = self.state.borrow_mut();
        let booted = state.booted.clone();
        state.deployed.retain(|commit| *commit == booted);
    }

    /// The rescue guard's time is up: it takes the new tree off.
    pub fn fire_guard(&self) {
        let mut state = self.state.borrow_mut();
        if !std::mem::take(&mut state.guards).is_empty() {
            state.mounted.pop();
        }
        drop(state);
        self.remount();
    }

    /// Something happens to the disk that no transaction did.
    pub fn spoil(&self, how: impl FnOnce(&mut DiskState)) {
        how(&mut self.state.borrow_mut());
        self.remount();
    }

    /// Whether the tree runs that the host began with.
    pub fn shows_first_tree(&self) -> bool {
        self.running() == sim_commit(1)
    }

    fn running(&self) -> CommitId {
        let state = self.state.borrow();
        state.mounted.last().unwrap_or(&state.booted).clone()
    }

    fn remount(&self) {
        self.systemd.set_tree(number_of(&self.running()));
    }

    async fn call<T>(
        &self,
        name: &str,
        effect: impl FnOnce(&mut DiskState) -> PortResult<T>,
    ) -> PortResult<T> {
        let faults = self.faults.borrow().clone();
        faults.around(name, async { effect(&mut self.state.borrow_mut()) }).await
    }

    fn checked_out(commit: CommitId) -> CommittedTree {
        let path = PathBuf::from(format!("/sysroot/ostree/live/{commit}/usr"));
        let inode = number_of(&commit);
        let replaced = ReplacedFile { path: "/usr/lib/libapp.so".into(), device: 1, inode: 7 };
        CommittedTree {
            usr: TreeIdentity { path, device: 1, inode },
            commit,
            replaced: vec![replaced],
            changed: vec!["usr/lib/libapp.so".into()],
        }
    }
}

fn number_of(commit: &CommitId) -> u64 {
    u64::from_str_radix(&commit.as_str()[48..], 16).unwrap_or(0)
}

fn commit_of(tree: &TreeIdentity) -> CommitId {
    sim_commit(tree.inode)
}

#[async_trait(?Send)]
impl Tree for SimDisk {
    async fn state(&self) -> PortResult<HostTree> {
        let running = self.running();
        self.call("tree.state", |state| {
            Ok(HostTree {
                os_name: "debian".to_owned(),
                booted: state.booted.clone(),
                running,
                next: state.next().clone(),
                foreign_pending: false,
            })
        })
        .await
    }

    async fn find_target(&self, target: Option<&CommitId>) -> PortResult<CommitId> {
        self.call("tree.find_target", |state| Ok(target.unwrap_or(&state.deployed[0]).clone()))
            .await
    }

    async fn prepare(&self, _: &CommitId, context: &StepContext) -> PortResult<()> {
        self.call("tree.prepare", |state| {
            state.prepared.insert(context.transaction);
            Ok(())
        })
        .await
    }

    async fn stage(&self, _: &CommitId, context: &StepContext) -> PortResult<()> {
        self.call("tree.stage", |state| {
            state.stages.insert(context.transaction);
            Ok(())
        })
        .await
    }

    async fn drop_stage(&self, transaction: TransactionId) -> PortResult<()> {
        self.call("tree.drop_stage", |state| {
            state.stages.remove(&transaction);
            Ok(())
        })
        .await
    }

    async fn commit(
        &self,
        base: &CommitId,
        _: &TreeMetadata,
        context: &StepContext,
    ) -> PortResult<CommittedTree> {
        let commit = sim_commit(number_of(base) + context.transaction.0);
        self.call("tree.commit", |state| {
            state.prepared.remove(&context.transaction);
            state.checkouts.insert(context.transaction, commit.clone());
            Ok(Self::checked_out(commit))
        })
        .await
    }

    async fn check_out(
        &self,
        _: &CommitId,
        commit: &CommitId,
        context: &StepContext,
    ) -> PortResult<CommittedTree> {
        self.call("tree.check_out", |state| {
            state.require(commit)?;
            state.checkouts.insert(context.transaction, commit.clone());
            Ok(Self::checked_out(commit.clone()))
        })
        .await
    }

    async fn drop_commit(&self, transaction: TransactionId) -> PortResult<()> {
        self.call("tree.drop_commit", |state| {
            state.prepared.remove(&transaction);
            state.checkouts.remove(&transaction);
            Ok(())
        })
        .await
    }

    async fn deploy(&self, commit: &CommitId, _: &StepContext) -> PortResult<()> {
        self.call("tree.deploy", |state| {
            state.deployed.retain(|deployed| deployed != commit);
            state.deployed.insert(0, commit.clone());
            // A new list of deployments is one without what was staged.
            state.staged = None;
            Ok(())
        })
        .await
    }

    async fn is_deployed(&self, commit: &CommitId) -> PortResult<bool> {
        self.call("tree.is_deployed", |state| Ok(state.next() == commit)).await
    }

    async fn undeploy(&self, commit: &CommitId) -> PortResult<()> {
        self.call("tree.undeploy", |state| {
            let booted = state.booted.clone();
            state.deployed.retain(|deployed| deployed != commit || *deployed == booted);
            Ok(())
        })
        .await
    }

    async fn stage_deployment(&self, commit: &CommitId, _: &StepContext) -> PortResult<()> {
        self.call("tree.stage_deployment", |state| {
            // The booted deployment has the live /etc itself.
            if *commit != state.booted {
                state.staged = Some(commit.clone());
            }
            Ok(())
        })
        .await
    }

    async fn clean_up(&self, retention: &Retention) -> PortResult<Vec<KeptUpdate>> {
        self.call("tree.clean_up", |state| {
            state.drop_old_deployments();
            state.points = retention.points.iter().cloned().collect();
            let wanted = retention.wanted();
            let there: Vec<_> =
                wanted.iter().filter(|update| state.require(&update.base).is_ok()).collect();
            let kept = retention.fitting(&vec![SIM_TREE_BYTES; there.len()]);
            let bases = there[..kept].iter().map(|update| (update.id, update.base.clone()));
            state.bases = bases.collect();
            let trees: BTreeSet<TransactionId> = retention.trees(kept).collect();
            let files: BTreeSet<TransactionId> = retention.files(kept).collect();
            state.prepared.retain(|transaction| trees.contains(transaction));
            state.checkouts.retain(|transaction, _| trees.contains(transaction));
            state.stages.retain(|transaction| trees.contains(transaction));
            state.kept_files.retain(|transaction| files.contains(transaction));
            let answer = |update: &&crate::port::Undoable| KeptUpdate {
                id: update.id,
                commit: update.base.clone(),
                bytes: SIM_TREE_BYTES,
            };
            Ok(there[..kept].iter().map(answer).collect())
        })
        .await
    }

    async fn look(&self, commits: &[CommitId], _: &StepContext) -> PortResult<TreeLook> {
        self.call("tree.look", |state| Ok(look::trees(state, commits))).await
    }

    async fn compare(&self, _: &StepContext) -> PortResult<TreeComparison> {
        self.call("tree.compare", |state| Ok(look::comparison(state))).await
    }

    async fn restore_ref(&self, transaction: TransactionId, _: &CommitId) -> PortResult<()> {
        self.call("tree.restore_ref", |state| {
            state.lost_refs.remove(&transaction);
            Ok(())
        })
        .await
    }

    async fn hold(&self, point: &PointName, commit: &CommitId) -> PortResult<()> {
        self.call("tree.hold", |state| {
            state.require(commit)?;
            state.points.insert(point.clone(), commit.clone());
            Ok(())
        })
        .await
    }

    async fn release(&self, point: &PointName) -> PortResult<()> {
        self.call("tree.release", |state| {
            state.points.remove(point);
            Ok(())
        })
        .await
    }

    async fn difference(
        &self,
        old: &CommitId,
        new: &CommitId,
        _: &StepContext,
    ) -> PortResult<TreeDifference> {
        self.call("tree.difference", |state| {
            state.require(old)?;
            state.require(new)?;
            let path = "/usr/lib/libapp.so".into();
            let files = vec![ChangedFile { path, change: Change::Changed }];
            let counts = Counts { changed: 1, ..Counts::default() };
            Ok(TreeDifference { files, counts, ..TreeDifference::default() })
        })
        .await
    }
}
