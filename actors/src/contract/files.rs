use std::path::{Path, PathBuf};

use apt_ostree_proto::TransactionId;
use async_trait::async_trait;

use super::{Checked, Promise, unheard};
use crate::context::StepContext;
use crate::port::{
    Delta, DeltaEntry, DeltaSource, FileIdentity, Files, Placement, PortResult, RebootAdvice,
};

impl Checked {
    /// What there is now at the paths of a delta that can be looked at.
    async fn files_of(&self, delta: &Delta) -> PortResult<Vec<Option<FileIdentity>>> {
        self.host.files.identify(&delta.changed_in_etc()).await
    }

    /// Notes whether every path is what `side` says of it, but for those that `named` names.
    async fn reaches(
        &self,
        promise: Promise,
        delta: &Delta,
        named: &[String],
        side: impl Fn(&DeltaEntry) -> Option<FileIdentity>,
    ) {
        let entries = delta.entries.iter().filter(|entry| entry.place == Placement::Etc);
        let Some(found) = self.seen(self.files_of(delta)).await else { return };
        for (entry, found) in entries.zip(found) {
            if !is_named(&entry.path, named) {
                let path = &entry.path;
                self.equal(promise, &(path, side(entry)), &(path, found));
            }
        }
    }
}

fn is_named(path: &Path, named: &[String]) -> bool {
    let path = path.display().to_string();
    named.iter().any(|text| text.contains(&path))
}

#[async_trait(?Send)]
impl Files for Checked {
    async fn prepare(&self, source: &DeltaSource, context: &StepContext) -> PortResult<Delta> {
        let delta = self.host.files.prepare(source, context).await?;
        self.reaches(Promise::FilesPrepareOnly, &delta, &[], |entry| entry.before.clone()).await;
        self.memory.borrow_mut().deltas.insert(delta.transaction, delta.clone());
        let second = unheard(context);
        let again = self.host.files.prepare(source, &second);
        self.again(Promise::FilesPrepareTwice, &delta, again, || self.files_of(&delta)).await;
        Ok(delta)
    }

    async fn apply(&self, delta: &Delta) -> PortResult<Vec<String>> {
        let named = self.host.files.apply(delta).await?;
        self.reaches(Promise::ApplyReaches, delta, &named, |entry| entry.after.clone()).await;
        let again = self.host.files.apply(delta);
        self.again(Promise::ApplyTwice, &named, again, || self.files_of(delta)).await;
        Ok(named)
    }

    async fn revert(&self, delta: &Delta) -> PortResult<Vec<String>> {
        let named = self.host.files.revert(delta).await?;
        self.reaches(Promise::RevertReaches, delta, &named, |entry| entry.before.clone()).await;
        let again = self.host.files.revert(delta);
        self.again(Promise::RevertTwice, &named, again, || self.files_of(delta)).await;
        Ok(named)
    }

    async fn append_logs(&self, transaction: TransactionId) -> PortResult<()> {
        self.host.files.append_logs(transaction).await?;
        let again = self.host.files.append_logs(transaction);
        self.again(Promise::LogsTwice, &(), again, || self.host.tree.state()).await;
        Ok(())
    }

    async fn discard(&self, transaction: TransactionId) -> PortResult<()> {
        let delta = self.memory.borrow().deltas.get(&transaction).cloned();
        let before = match &delta {
            Some(delta) => self.seen(self.files_of(delta)).await,
            None => None,
        };
        self.host.files.discard(transaction).await?;
        if let Some(delta) = &delta {
            let after = self.seen(self.files_of(delta)).await;
            self.same(Promise::DiscardOnly, before.as_ref(), after.as_ref());
        }
        let again = self.host.files.discard(transaction);
        self.again(Promise::DiscardTwice, &(), again, || self.trees()).await;
        Ok(())
    }

    async fn advise_reboot(&self, advice: &RebootAdvice) -> PortResult<()> {
        self.host.files.advise_reboot(advice).await?;
        let again = self.host.files.advise_reboot(advice);
        self.again(Promise::AdviceTwice, &(), again, || self.trees()).await;
        Ok(())
    }

    async fn identify(&self, paths: &[PathBuf]) -> PortResult<Vec<Option<FileIdentity>>> {
        let found = self.host.files.identify(paths).await?;
        self.equal(Promise::IdentifyEach, &paths.len(), &found.len());
        let again = self.host.files.identify(paths);
        self.asked_again(Promise::IdentifyEach, &found, again).await;
        Ok(found)
    }
}
