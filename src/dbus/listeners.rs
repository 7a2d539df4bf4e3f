//! Who is told what tools and scripts print. It may be confidential, so it goes to nobody but whoever
//! began the transaction, and whoever may look for updates and asked for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use zbus::message::Header;
use zbus::names::UniqueName;

use super::attendance;

/// How many can listen at a time: each gets a copy of every line.
const MOST_LISTENERS: usize = 64;

/// A connection to the bus; none where there is no bus, and one peer alone.
type Client = Option<UniqueName<'static>>;

/// Everybody who listens.
#[derive(Clone, Debug, Default)]
pub(super) struct Listeners(Arc<Mutex<Vec<Listener>>>);

#[derive(Debug, PartialEq, Eq)]
struct Listener {
    client: Client,
    /// The one transaction that it listens to.
    transaction: Option<TransactionId>,
}

impl Listeners {
    /// Has the caller listen until it leaves the bus: to this transaction or to all. Idempotent. Errors:
    /// `Busy` when too many listen.
    pub(super) fn add(
        &self,
        connection: &zbus::Connection,
        header: &Header<'_>,
        transaction: Option<TransactionId>,
    ) -> Result<(), Failure> {
        let client = header.sender().map(UniqueName::to_owned);
        if !self.insert(client.clone(), transaction)? {
            return Ok(());
        }
        let (this, connection) = (self.clone(), connection.clone());
        tokio::spawn(async move {
            attendance::left(&connection, client.clone()).await;
            this.all().retain(|listener| listener.client != client);
        });
        Ok(())
    }

    /// Whoever listens to this transaction.
    pub(super) fn to(&self, transaction: TransactionId) -> Vec<Client> {
        let all = self.all();
        let hears = |listener: &&Listener| listener.transaction.is_none_or(|id| id == transaction);
        let mut clients: Vec<Client> =
            all.iter().filter(hears).map(|listener| listener.client.clone()).collect();
        clients.sort();
        clients.dedup();
        clients
    }

    /// Nothing more comes of this transaction.
    pub(super) fn ended(&self, transaction: TransactionId) {
        self.all().retain(|listener| listener.transaction != Some(transaction));
    }

    /// Answers whether it is the client's first.
    fn insert(&self, client: Client, transaction: Option<TransactionId>) -> Result<bool, Failure> {
        let mut all = self.all();
        let is_first = all.iter().all(|listener| listener.client != client);
        let listener = Listener { client, transaction };
        if all.contains(&listener) {
            return Ok(false);
        }
        if all.len() >= MOST_LISTENERS {
            let text = format!("{MOST_LISTENERS} clients listen already");
            return Err(Failure::new(ErrorCode::Busy, text));
        }
        all.push(listener);
        Ok(is_first)
    }

    fn all(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str) -> Client {
        UniqueName::try_from(name.to_owned()).ok()
    }

    #[test]
    fn one_transactions_lines_go_to_who_began_it_and_to_who_listens_to_all() {
        let listeners = Listeners::default();
        let [first, second] = [1, 2].map(TransactionId);
        assert!(listeners.insert(client(":1.1"), Some(first)).unwrap());
        assert!(listeners.insert(client(":1.2"), Some(second)).unwrap());
        assert!(listeners.insert(client(":1.3"), None).unwrap());
        assert!(!listeners.insert(client(":1.1"), None).unwrap());
        assert!(!listeners.insert(client(":1.1"), None).unwrap());
        assert_eq!(listeners.to(first), [":1.1", ":1.3"].map(client));
        assert_eq!(listeners.to(second), [":1.1", ":1.2", ":1.3"].map(client));
        listeners.ended(second);
        assert_eq!(listeners.to(second), [":1.1", ":1.3"].map(client));
    }

    #[test]
    fn no_more_listen_than_there_is_room_for() {
        let listeners = Listeners::default();
        for number in 0..MOST_LISTENERS as u64 {
            listeners.insert(None, Some(TransactionId(number))).unwrap();
        }
        let failure = listeners.insert(client(":1.1"), None).unwrap_err();
        assert_eq!(failure.code, ErrorCode::Busy);
    }
}
