//! How many transfers run from one host at once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::warn;

/// A host that is overloaded answers all its connections so: they count as one complaint.
const ONE_COMPLAINT: Duration = Duration::from_secs(2);

/// The gates of all hosts.
#[derive(Debug)]
pub(super) struct HostGates {
    width: usize,
    gates: RefCell<BTreeMap<String, Rc<Gate>>>,
}

#[derive(Debug)]
struct Gate {
    permits: Arc<Semaphore>,
    width: Cell<usize>,
    /// Permits to take back from transfers that still hold them.
    owed: Cell<usize>,
    narrowed: Cell<Option<Instant>>,
}

/// The right to one transfer from a host.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Rc<Gate>,
    permit: Option<OwnedSemaphorePermit>,
}

impl HostGates {
    pub(super) fn new(width: usize) -> Self {
        Self { width: width.max(1), gates: RefCell::default() }
    }

    /// Waits until another transfer from the host of `uri` may begin.
    pub(super) async fn enter(&self, uri: &str) -> Pass {
        let gate = self.gate(uri);
        // The semaphore is never closed; without a permit the transfer would merely run unbounded.
        let permit = Arc::clone(&gate.permits).acquire_owned().await.ok();
        Pass { gate, permit }
    }

    /// Halves the width for the host of `uri`, which said that it is asked too much.
    pub(super) fn narrow(&self, uri: &str) {
        let gate = self.gate(uri);
        let now = Instant::now();
        if gate.narrowed.get().is_some_and(|last| now - last < ONE_COMPLAINT) {
            return;
        }
        gate.narrowed.set(Some(now));
        let width = (gate.width.get() / 2).max(1);
        let surplus = gate.width.replace(width) - width;
        let taken = gate.permits.forget_permits(surplus);
        gate.owed.set(gate.owed.get() + surplus - taken);
        warn!(host = host_of(uri), connections = width, "the mirror is overloaded");
    }

    fn gate(&self, uri: &str) -> Rc<Gate> {
        let fresh = || {
            Rc::new(Gate {
                permits: Arc::new(Semaphore::new(self.width)),
                width: Cell::new(self.width),
                owed: Cell::new(0),
                narrowed: Cell::new(None),
            })
        };
        let mut gates = self.gates.borrow_mut();
        Rc::clone(gates.entry(host_of(uri).to_owned()).or_insert_with(fresh))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && let Some(owed) = self.gate.owed.get().checked_sub(1)
        {
            self.gate.owed.set(owed);
            permit.forget();
        }
    }
}

/// Host and port of a URI; empty for those without.
fn host_of(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// A URI for people: without credentials or control characters, cut where it is long.
pub(super) fn show_uri(uri: &str) -> String {
    /// Longer than any real package's URI.
    const LONGEST: usize = 240;
    let (scheme, rest) = uri.split_once("://").map_or(("", uri), |(scheme, rest)| (scheme, rest));
    let split = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(split);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let separator = if scheme.is_empty() { "" } else { "://" };
    let plain = format!("{scheme}{separator}{host}{path}");
    let mut shown: String = plain.chars().take(LONGEST).flat_map(char::escape_default).collect();
    if plain.chars().count() > LONGEST {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_shown_without_credentials_and_control_characters() {
        for (uri, host, shown) in [
            ("http://user:pass@mirror:8080/a@b", "mirror:8080", "http://mirror:8080/a@b"),
            ("https://mirror", "mirror", "https://mirror"),
            ("file:/var/x", "", "file:/var/x"),
            ("http://m/\u{1b}[2J", "m", "http://m/\\u{1b}[2J"),
        ] {
            assert_eq!(host_of(uri), host);
            assert_eq!(show_uri(uri), shown);
        }
        assert!(show_uri(&"x".repeat(10_000)).len() < 300);
    }

    #[tokio::test(start_paused = true)]
    async fn an_overloaded_host_gets_half_the_connections_also_of_those_that_run() {
        let gates = HostGates::new(4);
        let passes = [gates.enter("http://m/1").await, gates.enter("http://m/2").await];
        let third = gates.enter("http://m/3").await;
        gates.narrow("http://m/3");
        gates.narrow("http://m/3");
        drop(third);
        let gate = gates.gate("http://m/");
        assert_eq!((gate.width.get(), gate.permits.available_permits()), (2, 0));
        drop(passes);
        assert_eq!(gate.permits.available_permits(), 2);
        assert_eq!(gates.gate("http://other/").permits.available_permits(), 4);
    }
}
