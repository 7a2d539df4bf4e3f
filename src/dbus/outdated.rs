//! What the manager answers about what runs old code.

use actix::Addr;
use apt_ostree_actors::coordinator::{Coordinator, FindOutdated};
use apt_ostree_proto::outdated::Outdated;

use super::error::Error;

/// Lets callers look one after the other: each look reads a file or two of every process.
#[derive(Debug, Default)]
pub(super) struct Looking(tokio::sync::Mutex<()>);

impl Looking {
    /// What runs old code now.
    pub(super) async fn look(&self, coordinator: &Addr<Coordinator>) -> Result<Outdated, Error> {
        let _turn = self.0.lock().await;
        Ok(coordinator.send(FindOutdated).await??)
    }
}
