//! When the daemon was last of use, so that it can exit when it is not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

/// Told of every call; heard by whoever waits for the daemon to be idle.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    called: Arc<Notify>,
}

impl Activity {
    /// A call came.
    pub fn note(&self) {
        self.called.notify_one();
    }

    /// Returns once no call has come for `quiet`.
    pub async fn idle_for(&self, quiet: Duration) {
        while tokio::time::timeout(quiet, self.called.notified()).await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_call_puts_the_idle_time_off() {
        let activity = Activity::default();
        let caller = activity.clone();
        let begun = Instant::now();
        let wait = tokio::spawn(async move { activity.idle_for(Duration::from_secs(10)).await });
        tokio::time::sleep(Duration::from_secs(8)).await;
        caller.note();
        wait.await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(18));
    }
}
