use std::time::Duration;

use apt_ostree_proto::TransactionId;
use async_trait::async_trait;

use super::{Checked, Promise};
use crate::port::{LayerOwner, Mounts, PortResult, TreeIdentity, UsrLayer, UsrLook, UsrMount};

impl Checked {
    async fn usr(&self) -> Option<UsrLook> {
        self.seen(self.host.mounts.look()).await
    }

    async fn usr_stack(&self) -> Option<Vec<UsrMount>> {
        self.seen(self.host.mounts.stack()).await
    }

    /// Both of what is mounted and who helps with it.
    async fn usr_as_a_whole(&self) -> PortResult<(Vec<UsrMount>, UsrLook)> {
        Ok((self.host.mounts.stack().await?, self.host.mounts.look().await?))
    }

    /// What was switched to is what `installed` tells about.
    async fn packages_follow(&self, tree: &TreeIdentity) {
        let changes = {
            let memory = self.memory.borrow();
            let commit = memory.commits.get(&tree.path);
            commit.and_then(|commit| memory.changes.get(commit)).cloned()
        };
        let (Some(changes), Some(installed)) =
            (changes, self.seen(self.host.packages.installed()).await)
        else {
            return;
        };
        for change in changes {
            let key = (change.name.to_string(), change.architecture.to_string());
            let expected = change.new_version.as_ref().map(ToString::to_string);
            let found = installed.get(&key).cloned();
            self.equal(Promise::InstalledFollows, &(&key, expected), &(&key, found));
        }
    }
}

/// Whether the mount shows this tree, by its place: a rollback's tree may be an earlier transaction's,
/// or the booted deployment's own.
fn shows(mount: &UsrMount, tree: &TreeIdentity) -> bool {
    let within_file_system = tree.path.strip_prefix("/sysroot").unwrap_or(&tree.path);
    mount.root.ends_with(within_file_system.strip_prefix("/").unwrap_or(within_file_system))
}

fn layers(look: Option<&UsrLook>) -> Option<&Vec<UsrLayer>> {
    look.map(|look| &look.layers)
}

#[async_trait(?Send)]
impl Mounts for Checked {
    async fn stack(&self) -> PortResult<Vec<UsrMount>> {
        let stack = self.host.mounts.stack().await?;
        if let Some(look) = self.usr().await {
            let owner = |mount: &UsrMount| {
                mount.transaction.map_or(LayerOwner::Deployment, LayerOwner::Live)
            };
            let expected: Vec<LayerOwner> =
                look.layers.into_iter().map(|layer| layer.owner).collect();
            self.equal(Promise::StackIsLook, &expected, &stack.iter().map(owner).collect());
        }
        Ok(stack)
    }

    async fn prepare(&self, transaction: TransactionId, tree: &TreeIdentity) -> PortResult<()> {
        let before = self.usr().await;
        self.host.mounts.prepare(transaction, tree).await?;
        self.memory.borrow_mut().stood_down.remove(&transaction);
        let after = self.usr().await;
        if let Some(UsrLook { helpers, .. }) = &after {
            self.holds(Promise::MountsPrepareHelpers, helpers.contains(&transaction), helpers);
        }
        self.same(Promise::MountsPrepareOnly, layers(before.as_ref()), layers(after.as_ref()));
        let again = self.host.mounts.prepare(transaction, tree);
        self.again(Promise::MountsPrepareTwice, &(), again, || self.usr_as_a_whole()).await;
        Ok(())
    }

    async fn switch(&self, tree: &TreeIdentity) -> PortResult<()> {
        let before = self.usr_stack().await;
        self.host.mounts.switch(tree).await?;
        let (stack, look) = (self.usr_stack().await, self.usr().await);
        if let (Some(stack), Some(look)) = (&stack, &look) {
            let is_there = stack.last().is_some_and(|top| shows(top, tree));
            let top = look.layers.last();
            let is_closed = top.is_some_and(|top| top.read_only && top.peers.is_empty());
            self.holds(Promise::SwitchOnTop, is_there && is_closed, &(stack, &look.layers));
        }
        if let (Some(mut expected), Some(stack)) = (before, stack) {
            if !expected.last().is_some_and(|top| shows(top, tree)) {
                expected.extend(stack.last().cloned());
            }
            self.equal(Promise::SwitchCovers, &expected, &stack);
        }
        self.packages_follow(tree).await;
        let again = self.host.mounts.switch(tree);
        self.again(Promise::SwitchTwice, &(), again, || self.usr_as_a_whole()).await;
        Ok(())
    }

    async fn unswitch(&self, tree: &TreeIdentity) -> PortResult<()> {
        let before = self.usr_stack().await;
        self.host.mounts.unswitch(tree).await?;
        if let (Some(mut expected), Some(stack)) = (before, self.usr_stack().await) {
            if expected.last().is_some_and(|top| shows(top, tree)) {
                expected.pop();
            }
            self.equal(Promise::UnswitchUncovers, &expected, &stack);
        }
        let again = self.host.mounts.unswitch(tree);
        self.again(Promise::UnswitchTwice, &(), again, || self.usr_as_a_whole()).await;
        Ok(())
    }

    async fn guard_until(
        &self,
        transaction: TransactionId,
        tree: &TreeIdentity,
        end: Duration,
    ) -> PortResult<()> {
        let before = self.usr().await;
        self.host.mounts.guard_until(transaction, tree, end).await?;
        self.memory.borrow_mut().stood_down.remove(&transaction);
        let after = self.usr().await;
        if let Some(UsrLook { helpers, .. }) = &after {
            self.holds(Promise::GuardHelpers, helpers.contains(&transaction), helpers);
        }
        self.same(Promise::GuardOnly, layers(before.as_ref()), layers(after.as_ref()));
        let again = self.host.mounts.guard_until(transaction, tree, end);
        self.again(Promise::GuardTwice, &(), again, || self.usr_as_a_whole()).await;
        Ok(())
    }

    async fn stand_down(&self, transaction: TransactionId) -> PortResult<()> {
        let before = self.usr().await;
        self.host.mounts.stand_down(transaction).await?;
        self.memory.borrow_mut().stood_down.insert(transaction);
        let after = self.usr().await;
        self.same(Promise::StandDownOnly, layers(before.as_ref()), layers(after.as_ref()));
        let again = self.host.mounts.stand_down(transaction);
        self.again(Promise::StandDownTwice, &(), again, || self.usr_as_a_whole()).await;
        Ok(())
    }

    async fn abandon(&self, transaction: TransactionId) -> PortResult<()> {
        let before = self.usr().await;
        self.host.mounts.abandon(transaction).await?;
        self.memory.borrow_mut().stood_down.insert(transaction);
        let after = self.usr().await;
        if let Some(UsrLook { helpers, .. }) = &after {
            self.holds(Promise::AbandonHelpers, !helpers.contains(&transaction), helpers);
        }
        self.same(Promise::AbandonOnly, layers(before.as_ref()), layers(after.as_ref()));
        let again = self.host.mounts.abandon(transaction);
        self.again(Promise::AbandonTwice, &(), again, || self.usr_as_a_whole()).await;
        Ok(())
    }

    async fn collapse(&self, transaction: TransactionId) -> PortResult<()> {
        let before = self.usr().await;
        self.host.mounts.collapse(transaction).await?;
        let after = self.usr().await;
        let is_unguarded = self.memory.borrow().stood_down.contains(&transaction);
        if let (Some(before), Some(after)) = (before, after) {
            let had_helpers = before.helpers.contains(&transaction);
            let stays = before.layers.last() == after.layers.last();
            let is_alone = after.layers.len() <= 1 || !had_helpers;
            let found = (&before, &after);
            self.holds(Promise::CollapseTop, stays && is_alone, &found);
            if is_unguarded {
                let is_gone = !after.helpers.contains(&transaction);
                self.holds(Promise::CollapseHelpers, is_gone, &found);
            }
        }
        let again = self.host.mounts.collapse(transaction);
        self.again(Promise::CollapseTwice, &(), again, || self.usr_as_a_whole()).await;
        Ok(())
    }

    async fn look(&self) -> PortResult<UsrLook> {
        let look = self.host.mounts.look().await?;
        self.asked_again(Promise::MountsLookTwice, &look, self.host.mounts.look()).await;
        Ok(look)
    }

    async fn protect(&self) -> PortResult<()> {
        self.host.mounts.protect().await?;
        if let Some(UsrLook { layers, .. }) = self.usr().await {
            let is_protected = layers.last().is_some_and(|top| top.read_only);
            self.holds(Promise::ProtectReadOnly, is_protected, &layers);
        }
        let again = self.host.mounts.protect();
        self.again(Promise::ProtectTwice, &(), again, || self.usr_as_a_whole()).await;
        Ok(())
    }
}
