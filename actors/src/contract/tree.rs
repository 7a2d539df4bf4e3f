use apt_ostree_proto::difference::TreeDifference;
use apt_ostree_proto::point::KeptUpdate;
use apt_ostree_proto::{CommitId, PointName, TransactionId};
use async_trait::async_trait;

use super::{Checked, Promise, unattended, unheard};
use crate::context::StepContext;
use crate::port::{
    CommitCondition, CommittedTree, HostTree, LiveLook, PortResult, Retention, Tree,
    TreeComparison, TreeLook, TreeMetadata,
};

impl Checked {
    /// All that can be seen of trees, but for what comes and goes by itself: what waits to be removed,
    /// and which trees processes have mounted.
    pub(super) async fn trees(&self) -> PortResult<(HostTree, TreeLook)> {
        let state = self.host.tree.state().await?;
        Ok((state, self.trees_with(&[]).await?))
    }

    async fn trees_with(&self, commits: &[CommitId]) -> PortResult<TreeLook> {
        let context = unattended(TransactionId(0));
        self.host.tree.look(commits, &context).await.map(settled)
    }

    /// What one transaction has; nothing but a look at one that has nothing.
    async fn tree_of(&self, transaction: TransactionId) -> Option<LiveLook> {
        let look = self.seen(self.trees_with(&[])).await?;
        Some(look.live.get(&transaction).cloned().unwrap_or_default())
    }

    /// Whether a transaction has a staging area, and what the host shows.
    async fn stage_of(&self, transaction: TransactionId) -> PortResult<(HostTree, bool)> {
        let (state, look) = self.trees().await?;
        Ok((state, look.live.get(&transaction).is_some_and(|live| live.has_stage)))
    }

    pub(super) async fn host_tree(&self) -> Option<HostTree> {
        self.seen(self.host.tree.state()).await
    }

    /// Notes whether a commit is whole and the transaction's ref names it.
    async fn is_held(
        &self,
        promise: Promise,
        transaction: TransactionId,
        commit: &CommitId,
        is_complete: impl Fn(&LiveLook) -> bool,
    ) {
        let Some(look) = self.seen(self.trees_with(std::slice::from_ref(commit))).await else {
            return;
        };
        let is_whole = look.commits.get(commit) == Some(&CommitCondition::Whole);
        let live = look.live.get(&transaction);
        let is_there =
            live.is_some_and(|live| live.reference.as_ref() == Some(commit) && is_complete(live));
        self.holds(promise, is_whole && is_there, &(commit, &look.commits, live));
    }

    fn learn_tree(&self, tree: &CommittedTree) {
        let mut memory = self.memory.borrow_mut();
        memory.commits.insert(tree.usr.path.clone(), tree.commit.clone());
    }
}

fn settled(mut look: TreeLook) -> TreeLook {
    look.trash = 0;
    for live in look.live.values_mut() {
        live.is_mounted = false;
    }
    look.live.retain(|_, live| *live != LiveLook::default());
    look
}

#[async_trait(?Send)]
impl Tree for Checked {
    async fn state(&self) -> PortResult<HostTree> {
        let state = self.host.tree.state().await?;
        self.asked_again(Promise::StateTwice, &state, self.host.tree.state()).await;
        Ok(state)
    }

    async fn find_target(&self, target: Option<&CommitId>) -> PortResult<CommitId> {
        let found = self.host.tree.find_target(target).await?;
        if let Some(target) = target {
            self.equal(Promise::FindTargetNamed, target, &found);
        }
        let again = self.host.tree.find_target(target);
        self.asked_again(Promise::FindTargetNamed, &found, again).await;
        Ok(found)
    }

    async fn prepare(&self, base: &CommitId, context: &StepContext) -> PortResult<()> {
        self.host.tree.prepare(base, context).await?;
        // What was begun goes on meanwhile, so there is nothing else to look at.
        let again = self.host.tree.prepare(base, context);
        self.again(Promise::TreePrepareTwice, &(), again, || self.host.tree.state()).await;
        Ok(())
    }

    async fn stage(&self, base: &CommitId, context: &StepContext) -> PortResult<()> {
        let before = self.host_tree().await;
        self.host.tree.stage(base, context).await?;
        let transaction = context.transaction;
        let after = self.seen(self.stage_of(transaction)).await;
        let expected = before.map(|before| (before, true));
        self.same(Promise::StageThere, expected.as_ref(), after.as_ref());
        let second = unheard(context);
        let again = self.host.tree.stage(base, &second);
        self.again(Promise::StageTwice, &(), again, || self.stage_of(transaction)).await;
        Ok(())
    }

    async fn drop_stage(&self, transaction: TransactionId) -> PortResult<()> {
        self.host.tree.drop_stage(transaction).await?;
        if let Some(live) = self.tree_of(transaction).await {
            self.holds(Promise::DropStageGone, !live.has_stage, &live);
        }
        let again = self.host.tree.drop_stage(transaction);
        self.again(Promise::DropStageTwice, &(), again, || self.trees()).await;
        Ok(())
    }

    async fn commit(
        &self,
        base: &CommitId,
        metadata: &TreeMetadata,
        context: &StepContext,
    ) -> PortResult<CommittedTree> {
        let before = self.host_tree().await;
        let made = self.host.tree.commit(base, metadata, context).await?;
        self.learn_tree(&made);
        let changes = metadata.changes.clone();
        self.memory.borrow_mut().changes.insert(made.commit.clone(), changes);
        self.same(Promise::CommitOnly, before.as_ref(), self.host_tree().await.as_ref());
        let is_checked_out = |live: &LiveLook| live.checkout.as_ref() == Some(&made.commit);
        self.is_held(Promise::CommitThere, context.transaction, &made.commit, is_checked_out).await;
        let second = unheard(context);
        let again = self.host.tree.commit(base, metadata, &second);
        self.again(Promise::CommitTwice, &made, again, || self.trees()).await;
        Ok(made)
    }

    async fn check_out(
        &self,
        base: &CommitId,
        commit: &CommitId,
        context: &StepContext,
    ) -> PortResult<CommittedTree> {
        let before = self.host_tree().await;
        let made = self.host.tree.check_out(base, commit, context).await?;
        self.learn_tree(&made);
        self.equal(Promise::CheckOutThere, commit, &made.commit);
        self.same(Promise::CheckOutOnly, before.as_ref(), self.host_tree().await.as_ref());
        // Its tree may be another transaction's, or the booted deployment's.
        self.is_held(Promise::CheckOutThere, context.transaction, commit, |_| true).await;
        let second = unheard(context);
        let again = self.host.tree.check_out(base, commit, &second);
        self.again(Promise::CheckOutTwice, &made, again, || self.trees()).await;
        Ok(made)
    }

    async fn drop_commit(&self, transaction: TransactionId) -> PortResult<()> {
        self.host.tree.drop_commit(transaction).await?;
        if let Some(live) = self.tree_of(transaction).await {
            let is_gone = live.reference.is_none() && live.checkout.is_none();
            self.holds(Promise::DropCommitGone, is_gone, &live);
        }
        let again = self.host.tree.drop_commit(transaction);
        self.again(Promise::DropCommitTwice, &(), again, || self.trees()).await;
        Ok(())
    }

    async fn deploy(&self, commit: &CommitId, context: &StepContext) -> PortResult<()> {
        let before = self.host_tree().await;
        self.host.tree.deploy(commit, context).await?;
        if let (Some(before), Some((after, look))) = (before, self.seen(self.trees()).await) {
            let expected = HostTree { next: commit.clone(), foreign_pending: false, ..before };
            self.equal(Promise::DeployNext, &expected, &after);
            let first = look.deployments.first();
            let is_plain = first.is_some_and(|first| first.commit == *commit && !first.staged);
            self.holds(Promise::DeployNext, is_plain, &look.deployments);
        }
        let second = unheard(context);
        let again = self.host.tree.deploy(commit, &second);
        self.again(Promise::DeployTwice, &(), again, || self.trees()).await;
        Ok(())
    }

    async fn is_deployed(&self, commit: &CommitId) -> PortResult<bool> {
        let is_deployed = self.host.tree.is_deployed(commit).await?;
        if let Some(state) = self.host_tree().await {
            let found = (commit, &state, is_deployed);
            self.holds(Promise::IsDeployedNext, is_deployed == (state.next == *commit), &found);
        }
        Ok(is_deployed)
    }

    async fn undeploy(&self, commit: &CommitId) -> PortResult<()> {
        self.host.tree.undeploy(commit).await?;
        if let Some(look) = self.seen(self.trees_with(&[])).await {
            let mut deployments = look.deployments.iter();
            let is_left = deployments.any(|one| one.commit == *commit && one.ours && !one.booted);
            self.holds(Promise::UndeployGone, !is_left, &(commit, &look.deployments));
        }
        let again = self.host.tree.undeploy(commit);
        self.again(Promise::UndeployTwice, &(), again, || self.trees()).await;
        Ok(())
    }

    async fn stage_deployment(&self, commit: &CommitId, context: &StepContext) -> PortResult<()> {
        let before = self.host_tree().await;
        self.host.tree.stage_deployment(commit, context).await?;
        let expected = before.map(|before| HostTree {
            next: commit.clone(),
            foreign_pending: false,
            ..before
        });
        let after = self.host_tree().await;
        self.same(Promise::StageDeploymentNext, expected.as_ref(), after.as_ref());
        let second = unheard(context);
        let again = self.host.tree.stage_deployment(commit, &second);
        self.again(Promise::StageDeploymentTwice, &(), again, || self.trees()).await;
        Ok(())
    }

    async fn clean_up(&self, retention: &Retention) -> PortResult<Vec<KeptUpdate>> {
        let before = self.host_tree().await;
        let kept = self.host.tree.clean_up(retention).await?;
        self.same(Promise::CleanUpKeeps, before.as_ref(), self.host_tree().await.as_ref());
        if let Some(host) = before {
            let points = retention.points.iter().map(|(_, commit)| commit);
            let wanted = kept.iter().map(|kept| &kept.commit).chain(points);
            let commits: Vec<CommitId> =
                wanted.chain([&host.booted, &host.running, &host.next]).cloned().collect();
            if let Some(look) = self.seen(self.trees_with(&commits)).await {
                let mut conditions = look.commits.values();
                let is_whole = conditions.all(|condition| *condition == CommitCondition::Whole);
                self.holds(Promise::CleanUpKeeps, is_whole, &look.commits);
            }
        }
        let again = self.host.tree.clean_up(retention);
        self.again(Promise::CleanUpTwice, &kept, again, || self.trees()).await;
        Ok(kept)
    }

    async fn hold(&self, point: &PointName, commit: &CommitId) -> PortResult<()> {
        self.host.tree.hold(point, commit).await?;
        let again = self.host.tree.hold(point, commit);
        self.again(Promise::HoldTwice, &(), again, || self.trees()).await;
        Ok(())
    }

    async fn release(&self, point: &PointName) -> PortResult<()> {
        self.host.tree.release(point).await?;
        let again = self.host.tree.release(point);
        self.again(Promise::ReleaseTwice, &(), again, || self.trees()).await;
        Ok(())
    }

    async fn difference(
        &self,
        old: &CommitId,
        new: &CommitId,
        context: &StepContext,
    ) -> PortResult<TreeDifference> {
        let difference = self.host.tree.difference(old, new, context).await?;
        let second = unheard(context);
        let again = self.host.tree.difference(old, new, &second);
        self.asked_again(Promise::TreeDifferenceTwice, &difference, again).await;
        Ok(difference)
    }

    async fn look(&self, commits: &[CommitId], context: &StepContext) -> PortResult<TreeLook> {
        let look = self.host.tree.look(commits, context).await?;
        let settled = settled(look.clone());
        self.asked_again(Promise::TreeLookTwice, &settled, self.trees_with(commits)).await;
        Ok(look)
    }

    async fn compare(&self, context: &StepContext) -> PortResult<TreeComparison> {
        let comparison = self.host.tree.compare(context).await?;
        let second = unheard(context);
        self.asked_again(Promise::CompareTwice, &comparison, self.host.tree.compare(&second)).await;
        Ok(comparison)
    }

    async fn restore_ref(&self, transaction: TransactionId, commit: &CommitId) -> PortResult<()> {
        self.host.tree.restore_ref(transaction, commit).await?;
        if let Some(live) = self.tree_of(transaction).await {
            let is_named = live.reference.as_ref() == Some(commit);
            self.holds(Promise::RestoreRefThere, is_named, &(commit, &live));
        }
        let again = self.host.tree.restore_ref(transaction, commit);
        self.again(Promise::RestoreRefTwice, &(), again, || self.trees()).await;
        Ok(())
    }
}
