//! Blocking work, off the arbiter.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use apt_ostree_proto::{ErrorCode, Failure};

use crate::journal::Journal;
use crate::sim::Faults;

/// A disk that is this slow does not come back by itself.
const LONGEST_WRITE: Duration = Duration::from_secs(5 * 60);

/// The journal, shared between the coordinator and the transaction that runs.
#[derive(Clone, Debug)]
pub struct SharedJournal {
    journal: Arc<Mutex<Journal>>,
    faults: Faults,
}

impl SharedJournal {
    /// Shares a journal.
    pub fn new(journal: Journal) -> Self {
        Self { journal: Arc::new(Mutex::new(journal)), faults: Faults::default() }
    }

    /// The same with writes that go wrong, under the name `journal`: for tests of what happens then.
    pub fn disturbed_by(self, faults: Faults) -> Self {
        Self { faults, ..self }
    }

    /// Runs `act`, which writes, on a blocking thread. Durable when it returns.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Journal) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let written = self.faults.around("journal", self.with(act));
        tokio::time::timeout(LONGEST_WRITE, written).await.unwrap_or_else(|_| {
            let text = format!("a write took longer than {} minutes", LONGEST_WRITE.as_secs() / 60);
            Err(Failure::new(ErrorCode::TimedOut, text))
        })
    }

    /// Runs `act` on a blocking thread.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Journal) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let journal = Arc::clone(&self.journal);
        run(move || act(&journal.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    /// Runs `act` at once. For single short writes whose answer is needed before anything else may
    /// happen on the arbiter.
    pub(crate) fn now<T>(
        &self,
        act: impl FnOnce(&Journal) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        act(&self.journal.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs `work` on a blocking thread. A panic there is a failure here.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Failure::caused(ErrorCode::Internal, "a blocking task ended", &error)),
    }
}
