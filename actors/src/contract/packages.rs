use std::collections::BTreeMap;
use std::path::PathBuf;

use apt_ostree_proto::package::PackageChange;
use apt_ostree_proto::request::Selection;
use apt_ostree_proto::{CommitId, PackageName, UnitName};
use async_trait::async_trait;

use super::{Checked, Promise, unheard};
use crate::context::StepContext;
use crate::port::{Impact, Packages, PortResult, Resolution};

type Installed = BTreeMap<(String, String), String>;

impl Checked {
    pub(super) async fn packages_now(&self) -> Option<Installed> {
        self.seen(self.host.packages.installed()).await
    }
}

/// What does not depend on which processes happen to run, and how much space others left.
fn lasting(impact: &Impact) -> Impact {
    let mut space = impact.space.clone();
    for need in &mut space {
        need.available_bytes = 0;
    }
    Impact { units: Vec::new(), etc_conflicts: impact.etc_conflicts.clone(), space }
}

#[async_trait(?Send)]
impl Packages for Checked {
    async fn refresh(&self, context: &StepContext) -> PortResult<()> {
        let before = self.packages_now().await;
        self.host.packages.refresh(context).await?;
        self.same(Promise::RefreshOnly, before.as_ref(), self.packages_now().await.as_ref());
        Ok(())
    }

    async fn resolve(
        &self,
        selection: &Selection,
        kept: &[PackageName],
        context: &StepContext,
    ) -> PortResult<Resolution> {
        let resolution = self.host.packages.resolve(selection, kept, context).await?;
        let second = unheard(context);
        let again = self.host.packages.resolve(selection, kept, &second);
        self.asked_again(Promise::ResolveTwice, &resolution, again).await;
        Ok(resolution)
    }

    async fn difference(
        &self,
        old: &CommitId,
        new: &CommitId,
        context: &StepContext,
    ) -> PortResult<Vec<PackageChange>> {
        let changes = self.host.packages.difference(old, new, context).await?;
        self.memory.borrow_mut().changes.insert(new.clone(), changes.clone());
        let second = unheard(context);
        let again = self.host.packages.difference(old, new, &second);
        self.asked_again(Promise::PackagesDifferenceTwice, &changes, again).await;
        Ok(changes)
    }

    async fn impact(&self, changes: &[PackageChange]) -> PortResult<Impact> {
        let impact = self.host.packages.impact(changes).await?;
        if let Some(second) = self.seen(self.host.packages.impact(changes)).await {
            self.equal(Promise::ImpactTwice, &lasting(&impact), &lasting(&second));
        }
        Ok(impact)
    }

    async fn lock_archives(&self) -> PortResult<()> {
        self.host.packages.lock_archives().await?;
        let again = self.host.packages.lock_archives();
        self.again(Promise::LockTwice, &(), again, || self.host.packages.installed()).await;
        Ok(())
    }

    async fn unlock_archives(&self) -> PortResult<()> {
        self.host.packages.unlock_archives().await?;
        let again = self.host.packages.unlock_archives();
        self.again(Promise::UnlockTwice, &(), again, || self.host.packages.installed()).await;
        Ok(())
    }

    async fn installed(&self) -> PortResult<Installed> {
        let installed = self.host.packages.installed().await?;
        let again = self.host.packages.installed();
        self.asked_again(Promise::InstalledTwice, &installed, again).await;
        Ok(installed)
    }

    async fn services_with(
        &self,
        conffiles: &[PathBuf],
    ) -> PortResult<BTreeMap<PathBuf, Vec<UnitName>>> {
        let found = self.host.packages.services_with(conffiles).await?;
        let was_asked = |path: &PathBuf| conffiles.contains(path);
        self.holds(Promise::ServicesWithAsked, found.keys().all(was_asked), &found);
        let again = self.host.packages.services_with(conffiles);
        self.asked_again(Promise::ServicesWithAsked, &found, again).await;
        Ok(found)
    }

    async fn fetch_through_apt(
        &self,
        change: &PackageChange,
        context: &StepContext,
    ) -> PortResult<()> {
        self.host.packages.fetch_through_apt(change, context).await
    }
}
