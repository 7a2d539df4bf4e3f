//! What is mounted on the simulated disk.

use std::time::Duration;

use apt_ostree_proto::TransactionId;
use async_trait::async_trait;

use super::{SimDisk, commit_of, look};
use crate::port::{Mounts, PortResult, TreeIdentity, UsrLook, UsrMount};

#[async_trait(?Send)]
impl Mounts for SimDisk {
    async fn stack(&self) -> PortResult<Vec<UsrMount>> {
        self.call("mounts.stack", |state| {
            let made_by = |commit| {
                state.checkouts.iter().rev().find(|(_, made)| *made == commit).map(|(id, _)| *id)
            };
            let mount = |root: String, transaction| UsrMount {
                root: root.into(),
                file_system: "ext4".to_owned(),
                device: 1,
                transaction,
            };
            let own = mount(format!("/ostree/deploy/{}/usr", state.booted), None);
            let live = state
                .mounted
                .iter()
                .map(|commit| mount(format!("/ostree/live/{commit}/usr"), made_by(commit)));
            Ok((!state.collapsed).then_some(own).into_iter().chain(live).collect())
        })
        .await
    }

    async fn prepare(&self, transaction: TransactionId, _: &TreeIdentity) -> PortResult<()> {
        self.call("mounts.prepare", |state| {
            state.guards.insert(transaction);
            state.pins.insert(transaction);
            Ok(())
        })
        .await
    }

    async fn switch(&self, tree: &TreeIdentity) -> PortResult<()> {
        let commit = commit_of(tree);
        let switched = self
            .call("mounts.switch", |state| {
                if state.mounted.last() != Some(&commit) {
                    state.mounted.push(commit);
                }
                Ok(())
            })
            .await;
        self.remount();
        switched
    }

    async fn unswitch(&self, tree: &TreeIdentity) -> PortResult<()> {
        let commit = commit_of(tree);
        let unswitched = self
            .call("mounts.unswitch", |state| {
                if state.mounted.last() == Some(&commit) {
                    state.mounted.pop();
                }
                Ok(())
            })
            .await;
        self.remount();
        unswitched
    }

    async fn guard_until(
        &self,
        transaction: TransactionId,
        _: &TreeIdentity,
        _: Duration,
    ) -> PortResult<()> {
        self.call("mounts.guard_until", |state| {
            state.guards.insert(transaction);
            Ok(())
        })
        .await
    }

    async fn stand_down(&self, transaction: TransactionId) -> PortResult<()> {
        self.call("mounts.stand_down", |state| {
            state.guards.remove(&transaction);
            Ok(())
        })
        .await
    }

    async fn abandon(&self, transaction: TransactionId) -> PortResult<()> {
        self.call("mounts.abandon", |state| {
            state.guards.remove(&transaction);
            state.pins.remove(&transaction);
            Ok(())
        })
        .await
    }

    async fn collapse(&self, transaction: TransactionId) -> PortResult<()> {
        self.call("mounts.collapse", |state| {
            if state.pins.remove(&transaction) && !state.mounted.is_empty() {
                let covered = state.mounted.len() - 1;
                state.mounted.drain(..covered);
                state.collapsed = true;
            }
            Ok(())
        })
        .await
    }

    async fn look(&self) -> PortResult<UsrLook> {
        self.call("mounts.look", |state| Ok(look::usr(state))).await
    }

    async fn protect(&self) -> PortResult<()> {
        self.call("mounts.protect", |state| {
            state.writable = false;
            Ok(())
        })
        .await
    }
}
