//! The objects of transactions on the bus.

use actix::Addr;
use apt_ostree_actors::coordinator::{Coordinator, WatchBegun};
use apt_ostree_proto::TransactionId;
use apt_ostree_proto::dbus::{MANAGER_PATH, transaction_path};
use apt_ostree_proto::status::{Phase, TransactionStatus};
use apt_ostree_proto::step::Step;
use zbus::Connection;
use zbus::object_server::{InterfaceRef, SignalEmitter};
use zbus::zvariant::OwnedObjectPath;

use super::activity::Activity;
use super::authority::Authority;
use super::listeners::Listeners;
use super::manager::Manager;
use super::transaction::Transaction;

/// Makes transactions' objects, and finds them.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    pub(super) connection: Connection,
    pub(super) coordinator: Addr<Coordinator>,
    pub(super) authority: Authority,
    pub(super) activity: Activity,
    pub(super) listeners: Listeners,
}

impl Objects {
    /// The transaction's object, made and announced where it is missing.
    pub(super) async fn get(&self, id: TransactionId) -> zbus::Result<InterfaceRef<Transaction>> {
        let path = transaction_path(id);
        let server = self.connection.object_server();
        if let Ok(object) = server.interface::<_, Transaction>(path.as_str()).await {
            return Ok(object);
        }
        let transaction = Transaction::new(
            self.status(id).await,
            self.coordinator.clone(),
            self.authority.clone(),
            self.activity.clone(),
        );
        if server.at(path.as_str(), transaction).await? {
            let manager = SignalEmitter::new(&self.connection, MANAGER_PATH)?;
            let object = OwnedObjectPath::try_from(path.clone())?;
            Manager::transaction_added(&manager, object).await?;
        }
        server.interface::<_, Transaction>(path.as_str()).await
    }

    /// Takes the transaction's object off the bus.
    pub(super) async fn remove(&self, id: TransactionId) -> zbus::Result<()> {
        let path = transaction_path(id);
        self.connection.object_server().remove::<Transaction, _>(path.as_str()).await.map(drop)
    }

    async fn status(&self, id: TransactionId) -> TransactionStatus {
        let begun = self.coordinator.send(WatchBegun(id)).await.ok().flatten();
        let status = begun.map(|begun| begun.borrow().clone());
        status.unwrap_or_else(|| TransactionStatus {
            id,
            title: String::new(),
            phase: Phase::Running(Step::Plan),
            percentage: 0,
            speed: 0,
            remaining_seconds: 0,
            cancellable: false,
            confirmation: None,
            failure: None,
        })
    }
}
