//! Archives, downloads, the sandbox and processes: little of them can be looked at by a port.

use std::path::{Path, PathBuf};

use apt_ostree_proto::outdated::Place;
use apt_ostree_proto::package::PackageChange;
use apt_ostree_proto::{TransactionId, UnitName};
use async_trait::async_trait;

use super::{Checked, Promise, unheard};
use crate::context::StepContext;
use crate::port::{
    Archive, ArchiveContents, FetchError, FetchRequest, FetchResponse, Http, InstallReport,
    InstallTest, PortResult, ProcessUse, Processes, ReplacedFile, Sandbox, Sighting, TreeChange,
};

#[async_trait(?Send)]
impl Archive for Checked {
    async fn inspect(&self, path: &Path, context: &StepContext) -> PortResult<ArchiveContents> {
        let contents = self.host.archive.inspect(path, context).await?;
        let second = unheard(context);
        let again = self.host.archive.inspect(path, &second);
        self.asked_again(Promise::InspectTwice, &contents, again).await;
        Ok(contents)
    }
}

#[async_trait(?Send)]
impl Http for Checked {
    async fn open(&self, request: &FetchRequest) -> Result<FetchResponse, FetchError> {
        let response = self.host.http.open(request).await?;
        let begins_well = response.offset == request.offset || response.offset == 0;
        self.holds(Promise::OpenBegins, begins_well, &(request, &response));
        Ok(response)
    }

    async fn configure(&self, uris: &[String], context: &StepContext) -> PortResult<()> {
        self.host.http.configure(uris, context).await
    }
}

#[async_trait(?Send)]
impl Sandbox for Checked {
    async fn install(
        &self,
        changes: &[PackageChange],
        context: &StepContext,
    ) -> PortResult<InstallReport> {
        let before = (self.host_tree().await, self.packages_now().await);
        let report = self.host.sandbox.install(changes, context).await?;
        self.same(Promise::InstallOnly, before.0.as_ref(), self.host_tree().await.as_ref());
        self.same(Promise::InstallOnly, before.1.as_ref(), self.packages_now().await.as_ref());
        Ok(report)
    }

    async fn test(
        &self,
        tests: &[InstallTest],
        changes: &[PackageChange],
        context: &StepContext,
    ) -> PortResult<()> {
        let before = (self.host_tree().await, self.packages_now().await);
        self.host.sandbox.test(tests, changes, context).await?;
        self.same(Promise::TestOnly, before.0.as_ref(), self.host_tree().await.as_ref());
        self.same(Promise::TestOnly, before.1.as_ref(), self.packages_now().await.as_ref());
        Ok(())
    }

    async fn kill(&self, transaction: TransactionId) -> PortResult<()> {
        self.host.sandbox.kill(transaction).await?;
        let again = self.host.sandbox.kill(transaction);
        self.again(Promise::KillTwice, &(), again, || self.host.tree.state()).await;
        Ok(())
    }
}

#[async_trait(?Send)]
impl Processes for Checked {
    async fn users_of(&self, replaced: &[ReplacedFile]) -> PortResult<Vec<ProcessUse>> {
        let uses = self.host.processes.users_of(replaced).await?;
        let was_asked = |used: &ProcessUse| replaced.iter().any(|file| file.path == used.path);
        // That nobody was found tells nothing.
        if !uses.is_empty() {
            self.holds(Promise::UsersAsked, uses.iter().all(was_asked), &uses);
        }
        Ok(uses)
    }

    async fn outdated(&self, changes: &[TreeChange]) -> PortResult<Sighting> {
        let seen = self.host.processes.outdated(changes).await?;
        let is_whole = |used: &ProcessUse| {
            used.path.is_absolute() && (used.unit.is_none() || used.place == Place::Host)
        };
        if !seen.uses.is_empty() {
            self.holds(Promise::OutdatedWhole, seen.uses.iter().all(is_whole), &seen.uses);
        }
        Ok(seen)
    }

    async fn own_mounts(&self) -> PortResult<Vec<(UnitName, PathBuf)>> {
        let mounts = self.host.processes.own_mounts().await?;
        let is_below = mounts.iter().all(|(_, path)| path.starts_with("/usr"));
        if !mounts.is_empty() {
            self.holds(Promise::OwnMountsBelow, is_below, &mounts);
        }
        Ok(mounts)
    }
}
