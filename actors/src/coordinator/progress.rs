//! One monotone percentage over the whole transaction, with speed and remaining time.

use std::time::Duration;

use apt_ostree_proto::step::Step;
use tokio::time::Instant;

use crate::context::Report;

/// How often progress is published at the most: ten times a second is smooth for eyes and cheap on
/// the bus.
pub(super) const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// How long a time the speed is averaged over.
const SPEED_WINDOW: Duration = Duration::from_secs(3);

/// Where a transaction stands, in numbers.
#[derive(Debug)]
pub(super) struct Progress {
    steps: Vec<Step>,
    highest: u32,
    current: Option<Step>,
    speed: Speed,
    frozen: bool,
}

impl Progress {
    pub(super) fn new(steps: &[Step]) -> Self {
        Self {
            steps: steps.to_vec(),
            highest: 0,
            current: None,
            speed: Speed::default(),
            frozen: false,
        }
    }

    /// A step begins.
    pub(super) fn enter(&mut self, step: Step) {
        self.current = Some(step);
        self.speed = Speed::default();
        self.raise(0.0);
    }

    /// A step tells how far it is.
    pub(super) fn take(&mut self, report: &Report) {
        match report {
            Report::Fraction(fraction) => self.raise(*fraction),
            Report::Transfer { done_bytes, total_bytes } => {
                self.speed.take(*done_bytes, *total_bytes);
                if *total_bytes > 0 {
                    #[expect(clippy::cast_precision_loss, reason = "a share needs no last digit")]
                    self.raise(*done_bytes as f64 / *total_bytes as f64);
                }
            }
            Report::Item { .. } | Report::Log(_) | Report::Warning(_) => {}
        }
    }

    /// The transaction unwinds: the percentage stands still from here on.
    pub(super) fn freeze(&mut self) {
        self.frozen = true;
        self.speed = Speed::default();
    }

    /// The transaction succeeded.
    pub(super) fn complete(&mut self) {
        self.highest = 100;
        self.speed = Speed::default();
    }

    pub(super) fn percentage(&self) -> u32 {
        self.highest
    }

    /// Bytes a second.
    pub(super) fn speed(&self) -> u64 {
        self.speed.bytes_per_second
    }

    pub(super) fn remaining_seconds(&self) -> u64 {
        self.speed.remaining_bytes.checked_div(self.speed.bytes_per_second).unwrap_or(0)
    }

    fn raise(&mut self, fraction: f64) {
        let Some(current) = self.current.filter(|_| !self.frozen) else { return };
        let total: u32 = self.steps.iter().map(|step| step.weight()).sum();
        let before: u32 =
            self.steps.iter().filter(|step| **step < current).map(|step| step.weight()).sum();
        let done = f64::from(before) + f64::from(current.weight()) * fraction.clamp(0.0, 1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share between 0 and 100"
        )]
        let percentage = (done * 100.0 / f64::from(total.max(1))) as u32;
        // 100 means success and nothing else.
        self.highest = self.highest.max(percentage.min(99));
    }
}

#[derive(Debug, Default)]
struct Speed {
    mark: Option<(Instant, u64)>,
    bytes_per_second: u64,
    remaining_bytes: u64,
}

impl Speed {
    fn take(&mut self, done_bytes: u64, total_bytes: u64) {
        self.remaining_bytes = total_bytes.saturating_sub(done_bytes);
        let now = Instant::now();
        let (at, bytes) = *self.mark.get_or_insert((now, done_bytes));
        let elapsed = now.duration_since(at);
        if elapsed >= PUBLISH_INTERVAL {
            let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
            self.bytes_per_second =
                done_bytes.saturating_sub(bytes).saturating_mul(1000) / milliseconds;
        }
        if elapsed >= SPEED_WINDOW {
            self.mark = Some((now, done_bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentage_never_falls_and_reaches_a_hundred_only_on_success() {
        let mut progress = Progress::new(Step::FROM_PACKAGES);
        let mut last = 0;
        for step in Step::FROM_PACKAGES {
            progress.enter(*step);
            for fraction in [0.5, 0.2, 1.0, 7.0, -1.0] {
                progress.take(&Report::Fraction(fraction));
                assert!(progress.percentage() >= last && progress.percentage() < 100);
                last = progress.percentage();
            }
        }
        progress.complete();
        assert_eq!(progress.percentage(), 100);
    }

    #[test]
    fn it_stands_still_while_the_transaction_unwinds() {
        let mut progress = Progress::new(Step::FROM_PACKAGES);
        progress.enter(Step::Install);
        let before = progress.percentage();
        progress.freeze();
        progress.enter(Step::Finalize);
        progress.take(&Report::Fraction(1.0));
        assert_eq!(progress.percentage(), before);
    }

    #[tokio::test(start_paused = true)]
    async fn speed_and_remaining_time_follow_the_transfer() {
        let mut progress = Progress::new(Step::FROM_PACKAGES);
        progress.enter(Step::Download);
        progress.take(&Report::Transfer { done_bytes: 0, total_bytes: 10_000 });
        tokio::time::advance(Duration::from_secs(1)).await;
        progress.take(&Report::Transfer { done_bytes: 1_000, total_bytes: 10_000 });
        assert_eq!(progress.speed(), 1_000);
        assert_eq!(progress.remaining_seconds(), 9);
    }
}
