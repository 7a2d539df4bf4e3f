//! What the ports promise, held against what they do: every call goes through to a host, real or
//! simulated, and is looked at before and after by the port's own reading calls. What is documented to
//! be idempotent, and every undo, is called twice. So the simulated host, on which everything is
//! tested, cannot come to differ from the real one.
//!
//! A broken promise changes nothing about the call: it is told in the [`ContractReport`].

mod checks;
mod edges;
mod exercise;
mod files;
mod mounts;
mod packages;
mod promise;
mod systemd;
mod tree;

pub use exercise::{Subjects, at_rest, there_and_back};
pub use promise::Promise;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;
use std::rc::Rc;

use apt_ostree_proto::package::PackageChange;
use apt_ostree_proto::{CommitId, TransactionId};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::context::{Reporter, StepContext};
use crate::port::{Delta, Host, PortResult};

/// One promise that is broken again and again tells nothing more.
const MOST_BREACHES: usize = 100;
/// Looks at whole hosts are long.
const LONGEST_QUOTE: usize = 2_000;

/// The promises of the ports of one host, and how they were kept.
#[derive(Clone, Debug, Default)]
pub struct Contract(Rc<Notes>);

#[derive(Debug, Default)]
struct Notes {
    kept: RefCell<BTreeMap<Promise, u64>>,
    broken: RefCell<Vec<Breach>>,
    unseen: Cell<u64>,
    looking: Cell<u32>,
}

/// How the promises were kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContractReport {
    /// How often each promise was found kept, by its text.
    pub kept: BTreeMap<String, u64>,
    /// Those that were not: the first hundred.
    pub broken: Vec<Breach>,
    /// How often nothing could be told because the host could not be looked at.
    pub unseen: u64,
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breach {
    /// The call and what it promises.
    pub promise: String,
    /// What was to be found.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl Contract {
    /// The ports of `host`, each of whose calls is held to its promises.
    pub fn around(&self, host: &Host) -> Host {
        let checked = Rc::new(Checked {
            host: host.clone(),
            contract: self.clone(),
            memory: RefCell::default(),
        });
        Host {
            packages: Rc::clone(&checked) as _,
            archive: Rc::clone(&checked) as _,
            http: Rc::clone(&checked) as _,
            tree: Rc::clone(&checked) as _,
            sandbox: Rc::clone(&checked) as _,
            mounts: Rc::clone(&checked) as _,
            files: Rc::clone(&checked) as _,
            systemd: Rc::clone(&checked) as _,
            processes: Rc::clone(&checked) as _,
            checks: checked as _,
        }
    }

    /// What was found so far.
    pub fn report(&self) -> ContractReport {
        let kept = self.0.kept.borrow();
        ContractReport {
            kept: kept.iter().map(|(promise, count)| (promise.text().to_owned(), *count)).collect(),
            broken: self.0.broken.borrow().clone(),
            unseen: self.0.unseen.get(),
        }
    }

    /// Whether a call that is made at this moment is one of the contract's own: a look, or the second
    /// of two.
    pub fn is_looking(&self) -> bool {
        self.0.looking.get() > 0
    }

    fn look(&self) -> Looking<'_> {
        self.0.looking.set(self.0.looking.get() + 1);
        Looking(&self.0.looking)
    }

    fn kept(&self, promise: Promise) {
        *self.0.kept.borrow_mut().entry(promise).or_default() += 1;
    }

    fn broken(&self, promise: Promise, expected: &dyn Debug, found: &dyn Debug) {
        let quote = |what: &dyn Debug| format!("{what:?}").chars().take(LONGEST_QUOTE).collect();
        let breach = Breach {
            promise: promise.text().to_owned(),
            expected: quote(expected),
            found: quote(found),
        };
        tracing::error!(expected = %breach.expected, found = %breach.found, "broken: {promise}");
        let mut broken = self.0.broken.borrow_mut();
        if broken.len() < MOST_BREACHES {
            broken.push(breach);
        }
    }
}

/// As long as it lives, calls are the contract's own.
struct Looking<'a>(&'a Cell<u32>);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// All ports of a host, with an eye on each call.
#[derive(Debug)]
struct Checked {
    host: Host,
    contract: Contract,
    memory: RefCell<Memory>,
}

/// What earlier calls told, for what later ones promise.
#[derive(Debug, Default)]
struct Memory {
    /// Transactions whose guard was stood down.
    stood_down: BTreeSet<TransactionId>,
    /// Which commit a tree is of, by its root.
    commits: BTreeMap<PathBuf, CommitId>,
    /// What a commit changes about the packages of the one that ran when it was planned.
    changes: BTreeMap<CommitId, Vec<PackageChange>>,
    /// What each transaction does to files.
    deltas: BTreeMap<TransactionId, Delta>,
}

impl Checked {
    /// What a look shows; nothing where it fails, which the report says.
    async fn seen<T>(&self, look: impl Future<Output = PortResult<T>>) -> Option<T> {
        let looking = self.contract.look();
        let seen = look.await;
        drop(looking);
        seen.inspect_err(|failure| {
            tracing::warn!(%failure, "the contract could not be looked after");
            self.contract.0.unseen.set(self.contract.0.unseen.get() + 1);
        })
        .ok()
    }

    /// Notes whether `found` is what was promised.
    fn equal<T: PartialEq + Debug>(&self, promise: Promise, expected: &T, found: &T) {
        if expected == found {
            self.contract.kept(promise);
        } else {
            self.contract.broken(promise, expected, found);
        }
    }

    /// Notes whether what was promised `holds` of what was found.
    fn holds(&self, promise: Promise, holds: bool, found: &dyn Debug) {
        if holds {
            self.contract.kept(promise);
        } else {
            self.contract.broken(promise, &promise.text(), found);
        }
    }

    /// Notes whether two looks show the same; nothing where one of them failed.
    fn same<T: PartialEq + Debug>(&self, promise: Promise, before: Option<&T>, after: Option<&T>) {
        if let (Some(before), Some(after)) = (before, after) {
            self.equal(promise, before, after);
        }
    }

    /// Makes a call that succeeded once more: it has to answer the same, and to change nothing that
    /// `look` shows.
    async fn again<T, S, L>(
        &self,
        promise: Promise,
        first: &T,
        call: impl Future<Output = PortResult<T>>,
        look: impl Fn() -> L,
    ) where
        T: PartialEq + Debug,
        S: PartialEq + Debug,
        L: Future<Output = PortResult<S>>,
    {
        let Some(before) = self.seen(look()).await else { return };
        let looking = self.contract.look();
        let second = call.await;
        drop(looking);
        let Some(after) = self.seen(look()).await else { return };
        match second {
            Ok(second) => self.equal(promise, &(first, before), &(&second, after)),
            Err(failure) => self.contract.broken(promise, first, &failure),
        }
    }

    /// Asks a question that was answered once more: the answer has to be the same.
    async fn asked_again<T: PartialEq + Debug>(
        &self,
        promise: Promise,
        first: &T,
        question: impl Future<Output = PortResult<T>>,
    ) {
        if let Some(second) = self.seen(question).await {
            self.equal(promise, first, &second);
        }
    }
}

/// The context of a second call: nobody cancels it, and it tells nobody.
fn unheard(context: &StepContext) -> StepContext {
    StepContext {
        transaction: context.transaction,
        cancel: CancellationToken::new(),
        report: Reporter::silent(),
    }
}

/// The context of a look.
fn unattended(transaction: TransactionId) -> StepContext {
    StepContext { transaction, cancel: CancellationToken::new(), report: Reporter::silent() }
}
