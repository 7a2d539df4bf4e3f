//! The wait for a confirmation: the one step that may take a day, and in which nothing happens.

use std::time::Duration;

use apt_ostree_proto::event::Event;
use apt_ostree_proto::status::AwaitedConfirmation;
use apt_ostree_proto::{ErrorCode, Failure};

use super::super::forward::ask;
use super::super::told;
use super::Drive;
use crate::clock::Deadline;
use crate::journal::seconds_now;
use crate::overlay::GuardTree;
use crate::service::{AllowShutdown, HoldShutdown};
use crate::supervisor::Workers;

/// How often the clock is looked at and the time that is left is published. The kernel wakes nobody at
/// a time since the boot that passes while the host is suspended.
const TICK: Duration = Duration::from_secs(1);

impl Drive {
    /// Until when it waits: the same moment for every daemon that does.
    pub(in super::super) fn confirm_by(&self) -> Deadline {
        let boot = &self.parts.boot;
        let known = self.facts.confirm_by.clone().filter(|deadline| deadline.boot == *boot);
        known.unwrap_or_else(|| {
            let wait = Duration::from_secs(self.confirm_timeout_seconds().into());
            Deadline::after(wait, &self.parts.clock, boot.as_ref())
        })
    }

    fn confirm_timeout_seconds(&self) -> u32 {
        self.request.confirm_timeout_seconds.unwrap_or(0)
    }

    /// Returns once somebody has confirmed. `NotConfirmed` when the time is up first; `Cancelled`.
    pub(in super::super) async fn wait_for_confirmation(
        &mut self,
        workers: &Workers,
    ) -> Result<(), Failure> {
        let deadline = self.confirm_by();
        let tree = self.committed()?.tree.clone();
        let guard = GuardTree { transaction: self.id, tree, end: deadline.at() };
        ask(&workers.overlay, guard).await?;
        // It may be a day, and the tree before is what boots.
        ask(&workers.service, AllowShutdown).await?;
        told::waits(self.id, whole_seconds(deadline.remaining(&self.parts.clock)));
        self.confirmation.open();
        let ended = self.confirmed_by(&deadline).await;
        self.status.send_modify(|status| {
            status.confirmation = None;
            status.remaining_seconds = 0;
            // From here on it is kept, or put back.
            status.cancellable = false;
        });
        if ended.is_err() {
            self.confirmation.close(false);
        }
        ask(&workers.service, HoldShutdown).await?;
        ended
    }

    async fn confirmed_by(&mut self, deadline: &Deadline) -> Result<(), Failure> {
        let (confirmation, cancel) = (self.confirmation.clone(), self.interruption.token());
        loop {
            if confirmation.is_handed_over() {
                // This daemon is about to end, and has nothing to do with it any more.
                std::future::pending::<()>().await;
            }
            let remaining = deadline.remaining(&self.parts.clock);
            if remaining.is_zero() {
                let seconds = self.confirm_timeout_seconds();
                let text = format!("nobody confirmed within {seconds} s that the host is well");
                return Err(Failure::new(ErrorCode::NotConfirmed, text));
            }
            self.publish_wait(remaining);
            tokio::select! {
                // Who confirms before anybody cancels is heard, though the daemon be asked to stop.
                biased;
                () = confirmation.asked() => return Ok(()),
                () = cancel.cancelled() => {
                    let text = "cancelled while it waited for its confirmation";
                    return Err(Failure::new(ErrorCode::Cancelled, text));
                }
                () = tokio::time::sleep(until_the_next_second(remaining)) => {}
            }
        }
    }

    /// The percentage stands still.
    fn publish_wait(&mut self, remaining: Duration) {
        let remaining_seconds = whole_seconds(remaining);
        let until_seconds =
            seconds_now().saturating_add(i64::try_from(remaining_seconds).unwrap_or(i64::MAX));
        let (id, percentage, speed) = (self.id, self.progress.percentage(), 0);
        self.status.send_modify(|status| {
            status.confirmation = Some(AwaitedConfirmation { until_seconds, remaining_seconds });
            status.remaining_seconds = remaining_seconds;
        });
        self.parts.publish.publish(Event::Progress { id, percentage, speed, remaining_seconds });
    }
}

/// Rounded up: the last second is one.
fn whole_seconds(remaining: Duration) -> u64 {
    remaining.as_secs() + u64::from(remaining.subsec_nanos() > 0)
}

/// How long until one second less is left.
fn until_the_next_second(remaining: Duration) -> Duration {
    let rest = Duration::from_nanos(remaining.subsec_nanos().into());
    if rest.is_zero() { TICK } else { rest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_is_left_is_told_second_by_second() {
        for (milliseconds, seconds, tick) in
            [(5_000, 5, 1_000), (4_999, 5, 999), (1_001, 2, 1), (1_000, 1, 1_000), (1, 1, 1)]
        {
            let remaining = Duration::from_millis(milliseconds);
            assert_eq!(whole_seconds(remaining), seconds, "{milliseconds}");
            let expected = Duration::from_millis(tick);
            assert_eq!(until_the_next_second(remaining), expected, "{milliseconds}");
        }
    }
}
