//! Blocking work, off the arbiter.

use std::sync::{Arc, Mutex, PoisonError};

use apt_ostree_proto::{ErrorCode, Failure};

use crate::journal::Journal;

/// The journal, shared between the coordinator and the transaction that runs.
#[derive(Clone, Debug)]
pub(crate) struct SharedJournal(Arc<Mutex<Journal>>);

impl SharedJournal {
    pub(crate) fn new(journal: Journal) -> Self {
        Self(Arc::new(Mutex::new(journal)))
    }

    /// Runs `act` on a blocking thread.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Journal) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let journal = Arc::clone(&self.0);
        run(move || act(&journal.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    /// Runs `act` at once. For single short writes whose answer is needed before anything else may
    /// happen on the arbiter.
    pub(crate) fn now<T>(
        &self,
        act: impl FnOnce(&Journal) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        act(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
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
