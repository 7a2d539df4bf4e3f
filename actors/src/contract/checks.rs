//! Probes and hooks: what they do is the admin's, and nothing is promised of it.

use std::time::Duration;

use apt_ostree_proto::TransactionId;
use async_trait::async_trait;

use super::{Checked, Promise};
use crate::port::{CheckAnswer, Checks, Hook, HookCall, HookKind, PortResult, Probe};

#[async_trait(?Send)]
impl Checks for Checked {
    async fn probe(&self, transaction: TransactionId, probe: &Probe) -> PortResult<CheckAnswer> {
        self.host.checks.probe(transaction, probe).await
    }

    async fn hooks(&self, kind: HookKind) -> PortResult<Vec<Hook>> {
        let hooks = self.host.checks.hooks(kind).await?;
        let in_order = hooks.is_sorted_by(|one, next| one.name < next.name);
        let is_meant = in_order && hooks.iter().all(|hook| hook.kind == kind);
        self.holds(Promise::HooksOrder, is_meant, &hooks);
        self.asked_again(Promise::HooksTwice, &hooks, self.host.checks.hooks(kind)).await;
        Ok(hooks)
    }

    async fn run_hook(
        &self,
        hook: &Hook,
        call: &HookCall,
        timeout: Duration,
    ) -> PortResult<CheckAnswer> {
        self.host.checks.run_hook(hook, call, timeout).await
    }

    async fn end(&self, transaction: TransactionId) -> PortResult<()> {
        self.host.checks.end(transaction).await?;
        let again = self.host.checks.end(transaction);
        self.again(Promise::EndChecksTwice, &(), again, || self.host.tree.state()).await;
        Ok(())
    }
}
