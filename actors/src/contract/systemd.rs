use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use apt_ostree_proto::UnitName;
use apt_ostree_proto::service::{UnitAction, UnitState, UnitUsage};
use async_trait::async_trait;
use tokio::time::Instant;

use super::{Checked, Promise};
use crate::port::{JobOutcome, PortResult, Systemd, UnitDependencies};

/// How much later than asked a wait may end on a machine that has much to do.
const LATE: Duration = Duration::from_secs(20);

impl Checked {
    async fn unit(&self, unit: &UnitName) -> Option<UnitState> {
        let states = self.seen(self.host.systemd.states(std::slice::from_ref(unit))).await?;
        states.into_values().next()
    }

    /// Whether nothing starts the unit whenever it is wanted.
    async fn stays_down(&self, unit: &UnitName) -> bool {
        let units = std::slice::from_ref(unit);
        let dependencies = self.seen(self.host.systemd.dependencies(units)).await;
        dependencies
            .and_then(|dependencies| dependencies.into_values().next())
            .is_some_and(|own| own.triggered_by.is_empty())
    }
}

fn keys<T>(answers: &BTreeMap<UnitName, T>) -> BTreeSet<UnitName> {
    answers.keys().cloned().collect()
}

#[async_trait(?Send)]
impl Systemd for Checked {
    async fn states(&self, units: &[UnitName]) -> PortResult<BTreeMap<UnitName, UnitState>> {
        let states = self.host.systemd.states(units).await?;
        self.equal(Promise::StatesEach, &units.iter().cloned().collect(), &keys(&states));
        Ok(states)
    }

    async fn list(&self) -> PortResult<BTreeMap<UnitName, UnitState>> {
        self.host.systemd.list().await
    }

    async fn usage(&self, units: &[UnitName]) -> PortResult<BTreeMap<UnitName, UnitUsage>> {
        let usage = self.host.systemd.usage(units).await?;
        let asked: BTreeSet<UnitName> = units.iter().cloned().collect();
        self.holds(Promise::UsageAsked, keys(&usage).is_subset(&asked), &usage);
        Ok(usage)
    }

    async fn dependencies(
        &self,
        units: &[UnitName],
    ) -> PortResult<BTreeMap<UnitName, UnitDependencies>> {
        let dependencies = self.host.systemd.dependencies(units).await?;
        let asked = units.iter().cloned().collect();
        self.equal(Promise::DependenciesTwice, &asked, &keys(&dependencies));
        let again = self.host.systemd.dependencies(units);
        self.asked_again(Promise::DependenciesTwice, &dependencies, again).await;
        Ok(dependencies)
    }

    async fn reads(&self, units: &[UnitName]) -> PortResult<BTreeMap<UnitName, Vec<PathBuf>>> {
        let reads = self.host.systemd.reads(units).await?;
        let was_asked = |unit: &UnitName| units.contains(unit) && unit.kind() == "service";
        self.holds(Promise::ReadsTwice, reads.keys().all(was_asked), &reads);
        let again = self.host.systemd.reads(units);
        self.asked_again(Promise::ReadsTwice, &reads, again).await;
        Ok(reads)
    }

    async fn forbidden_by_policy(
        &self,
        units: &[(UnitName, UnitAction)],
    ) -> PortResult<BTreeMap<UnitName, String>> {
        let forbidden = self.host.systemd.forbidden_by_policy(units).await?;
        let again = self.host.systemd.forbidden_by_policy(units);
        self.asked_again(Promise::ForbiddenTwice, &forbidden, again).await;
        Ok(forbidden)
    }

    async fn start(&self, unit: &UnitName, timeout: Duration) -> PortResult<JobOutcome> {
        let outcome = self.host.systemd.start(unit, timeout).await?;
        let state = self.unit(unit).await;
        if let Some(state) = state.filter(|state| outcome == JobOutcome::Done && state.is_up()) {
            let second = self.seen(self.host.systemd.start(unit, timeout)).await;
            let after = self.unit(unit).await.map(|after| after.main_pid);
            let expected = (unit, Some(JobOutcome::Done), Some(state.main_pid));
            self.equal(Promise::StartTwice, &expected, &(unit, second, after));
        }
        Ok(outcome)
    }

    async fn stop(&self, unit: &UnitName, timeout: Duration) -> PortResult<JobOutcome> {
        let outcome = self.host.systemd.stop(unit, timeout).await?;
        if outcome == JobOutcome::Done && self.stays_down(unit).await {
            if let Some(state) = self.unit(unit).await {
                self.holds(Promise::StopDown, !state.is_up(), &(unit, &state));
            }
            let again = self.host.systemd.stop(unit, timeout);
            self.asked_again(Promise::StopTwice, &outcome, again).await;
        }
        Ok(outcome)
    }

    async fn restart(&self, unit: &UnitName, timeout: Duration) -> PortResult<JobOutcome> {
        let before = self.unit(unit).await.map_or(0, |state| state.main_pid);
        let outcome = self.host.systemd.restart(unit, timeout).await?;
        if outcome == JobOutcome::Done
            && before != 0
            && let Some(after) = self.unit(unit).await
        {
            self.holds(Promise::RestartNew, after.main_pid != before, &(unit, before, &after));
        }
        Ok(outcome)
    }

    async fn reload_or_restart(
        &self,
        unit: &UnitName,
        timeout: Duration,
    ) -> PortResult<JobOutcome> {
        self.host.systemd.reload_or_restart(unit, timeout).await
    }

    async fn is_stopping(&self) -> PortResult<bool> {
        self.host.systemd.is_stopping().await
    }

    async fn reset_failed(&self, unit: &UnitName) -> PortResult<()> {
        self.host.systemd.reset_failed(unit).await?;
        if let Some(state) = self.unit(unit).await {
            self.holds(Promise::ResetFailedClear, !state.is_failed(), &(unit, &state));
        }
        let units = std::slice::from_ref(unit);
        let again = self.host.systemd.reset_failed(unit);
        self.again(Promise::ResetFailedTwice, &(), again, || self.host.systemd.states(units)).await;
        Ok(())
    }

    async fn reload_managers(&self) -> PortResult<()> {
        self.host.systemd.reload_managers().await?;
        let again = self.host.systemd.reload_managers();
        self.again(Promise::ReloadTwice, &(), again, || self.host.tree.state()).await;
        Ok(())
    }

    async fn hold_shutdown(&self, why: &str) -> PortResult<()> {
        self.host.systemd.hold_shutdown(why).await?;
        let again = self.host.systemd.hold_shutdown(why);
        self.again(Promise::HoldShutdownTwice, &(), again, || self.host.tree.state()).await;
        Ok(())
    }

    fn allow_shutdown(&self) {
        self.host.systemd.allow_shutdown();
        self.host.systemd.allow_shutdown();
    }

    async fn create_tmpfiles(&self, fragments: &[PathBuf]) -> PortResult<()> {
        self.host.systemd.create_tmpfiles(fragments).await?;
        let again = self.host.systemd.create_tmpfiles(fragments);
        self.again(Promise::TmpfilesTwice, &(), again, || self.host.tree.state()).await;
        Ok(())
    }

    async fn load_profiles(&self, changed: &[PathBuf]) -> PortResult<Vec<String>> {
        let told = self.host.systemd.load_profiles(changed).await?;
        let again = self.host.systemd.load_profiles(changed);
        self.asked_again(Promise::ProfilesTwice, &told, again).await;
        Ok(told)
    }

    async fn wait_for_change(&self, timeout: Duration) -> PortResult<()> {
        let begun = Instant::now();
        self.host.systemd.wait_for_change(timeout).await?;
        let passed = begun.elapsed();
        self.holds(Promise::WaitEnds, passed <= timeout + LATE, &(timeout, passed));
        Ok(())
    }

    async fn last_log_lines(&self, unit: &UnitName) -> PortResult<Vec<String>> {
        self.host.systemd.last_log_lines(unit).await
    }
}
