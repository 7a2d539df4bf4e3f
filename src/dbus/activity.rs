//! When the daemon was last of use, so that it can exit when it is not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::host::programs::Original;

/// How long a daemon stays whose last transaction has ended: clients still ask it how.
const FAREWELL: Duration = Duration::from_secs(2);

/// Told of every call; heard by whoever waits for the daemon to be idle.
#[derive(Clone, Debug)]
pub struct Activity {
    called: Arc<Notify>,
    quiet: Duration,
    program: Original,
}

impl Activity {
    /// The activity of a daemon that may exit after `quiet` without a call, and sooner once another
    /// version of `program` is installed.
    pub fn new(quiet: Duration, program: Original) -> Self {
        Self { called: Arc::default(), quiet, program }
    }

    /// A call came.
    pub fn note(&self) {
        self.called.notify_one();
    }

    /// Whether the next call had better be answered by another version of the daemon.
    pub fn is_superseded(&self) -> bool {
        self.program.is_replaced()
    }

    /// Returns once no call has come for long enough.
    pub async fn idle(&self) {
        self.none_for(|| if self.is_superseded() { FAREWELL.min(self.quiet) } else { self.quiet })
            .await;
    }

    /// Returns once nobody asks any more how a transaction ended.
    pub async fn farewell(&self) {
        self.none_for(|| FAREWELL).await;
    }

    async fn none_for(&self, quiet: impl Fn() -> Duration) {
        while tokio::time::timeout(quiet(), self.called.notified()).await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    async fn idle_after_a_call_at_8_seconds(program: Original) -> Duration {
        let activity = Activity::new(Duration::from_secs(10), program);
        let caller = activity.clone();
        let begun = Instant::now();
        let wait = tokio::spawn(async move { activity.idle().await });
        tokio::time::sleep(Duration::from_secs(8)).await;
        caller.note();
        wait.await.unwrap();
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_puts_the_idle_time_off() {
        let waited = idle_after_a_call_at_8_seconds(Original::at("/proc/self/exe")).await;
        assert_eq!(waited, Duration::from_secs(18));
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_was_replaced_leaves_soon() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let program = Original::at(file.path());
        drop(file);
        let activity = Activity::new(Duration::from_secs(10), program);
        let begun = Instant::now();
        activity.idle().await;
        assert!(activity.is_superseded());
        assert_eq!(begun.elapsed(), FAREWELL);
    }
}
