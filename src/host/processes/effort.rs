//! How much one look at the processes does for each owner of them.
//!
//! Any user may start an interpreter with megabytes of arguments, on a program that names a million
//! modules. Each owner has a share, and what goes beyond it is left out of what is told of that owner
//! alone.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cgroup::Owner;

/// One owner's share, in bytes that are read: several times what the 4,000 files of the largest
/// programs take, and a matter of seconds.
const SHARE: u64 = 512 << 20;
/// What a byte costs that is kept until the look is over. So one owner takes 64 MiB at the most.
const KEPT_BYTE: u64 = 8;
/// What it costs to look whether a name is known.
const LOOKUP: u64 = 64;

/// Ends a look that nobody waits for any more. Its copies end together.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Fails once the look is to end.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.is_set() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    /// Ends the look when it is dropped.
    pub(super) fn on_drop(&self) -> StopOnDrop {
        StopOnDrop(self.clone())
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// See [`Stop::on_drop`].
#[derive(Debug)]
pub(super) struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// The shares of all owners.
#[derive(Debug, Default)]
pub(super) struct Efforts {
    of: HashMap<Owner, Effort>,
    stop: Stop,
}

impl Efforts {
    pub(super) fn new(stop: &Stop) -> Self {
        Self { of: HashMap::new(), stop: stop.clone() }
    }

    /// The share of whoever the process belongs to: all units of one user have one.
    pub(super) fn of(&mut self, owner: Owner) -> &mut Effort {
        let owner = match owner {
            Owner::User(uid, _) => Owner::User(uid, None),
            owner => owner,
        };
        let new = || Effort { owner: owner.clone(), left: SHARE, stop: self.stop.clone() };
        self.of.entry(owner.clone()).or_insert_with(new)
    }
}

/// What is left of one owner's share.
#[derive(Debug)]
pub(super) struct Effort {
    owner: Owner,
    left: u64,
    stop: Stop,
}

/// The share is used up, or nobody waits any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spent;

impl Effort {
    /// For so many bytes that are read.
    pub(super) fn read(&mut self, bytes: u64) -> Result<(), Spent> {
        self.spend(bytes)
    }

    /// For so many bytes that are kept until the look is over.
    pub(super) fn keep(&mut self, bytes: usize) -> Result<(), Spent> {
        self.spend(u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(KEPT_BYTE))
    }

    /// For looking whether a name is known.
    pub(super) fn look_up(&mut self) -> Result<(), Spent> {
        self.spend(LOOKUP)
    }

    fn spend(&mut self, cost: u64) -> Result<(), Spent> {
        if self.stop.is_set() || self.left == 0 {
            return Err(Spent);
        }
        self.left = self.left.saturating_sub(cost);
        if self.left == 0 {
            tracing::warn!(owner = ?self.owner, "runs more than is looked at");
            return Err(Spent);
        }
        Ok(())
    }

    /// A share of a test's own.
    #[cfg(test)]
    pub(super) fn whole() -> Self {
        Self::of_bytes(SHARE)
    }

    #[cfg(test)]
    pub(super) fn of_bytes(left: u64) -> Self {
        Self { owner: Owner::Nobody, left, stop: Stop::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_users_units_share_and_take_nothing_from_anybody_else() {
        let mut efforts = Efforts::default();
        let app = || Some(apt_ostree_proto::UnitName::parse("app.service").unwrap());
        assert_eq!(efforts.of(Owner::User(1000, app())).read(SHARE), Err(Spent));
        assert_eq!(efforts.of(Owner::User(1000, None)).look_up(), Err(Spent));
        for other in [Owner::User(1001, app()), Owner::Unit(app().unwrap()), Owner::Nobody] {
            assert_eq!(efforts.of(other).read(SHARE - 1), Ok(()));
        }
    }

    #[test]
    fn a_look_that_nobody_waits_for_ends() {
        let stop = Stop::default();
        let waiting = stop.on_drop();
        let mut efforts = Efforts::new(&stop);
        assert_eq!(efforts.of(Owner::Nobody).look_up(), Ok(()));
        assert!(stop.check().is_ok());
        drop(waiting);
        assert_eq!(efforts.of(Owner::Nobody).look_up(), Err(Spent));
        assert!(stop.check().is_err());
    }
}
