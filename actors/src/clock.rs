//! The time since the host was booted.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use apt_ostree_proto::id::BootId;
use serde::{Deserialize, Serialize};

/// The time since the boot, the time in which the host was suspended included: `CLOCK_BOOTTIME` of
/// `clock_gettime(2)`. Nobody can set it, and every daemon of one boot reads the same.
#[derive(Clone)]
pub struct BootClock(Rc<dyn Fn() -> Duration>);

impl BootClock {
    /// The kernel's.
    pub fn of_kernel() -> Self {
        Self::reading(|| {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
            Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
        })
    }

    /// Another one, which must not go back.
    pub fn reading(read: impl Fn() -> Duration + 'static) -> Self {
        Self(Rc::new(read))
    }

    /// The time since the boot.
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for BootClock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("BootClock").field(&self.now()).finish()
    }
}

/// A moment of one boot. It never comes in another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// The boot; none on a host that does not tell it.
    pub boot: Option<BootId>,
    /// The time since that boot.
    pub milliseconds: u64,
}

impl Deadline {
    /// So long from now on.
    pub fn after(wait: Duration, clock: &BootClock, boot: Option<&BootId>) -> Self {
        let at = clock.now().saturating_add(wait);
        let milliseconds = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        Self { boot: boot.cloned(), milliseconds }
    }

    /// The time since the boot.
    pub fn at(&self) -> Duration {
        Duration::from_millis(self.milliseconds)
    }

    /// How long it is until then; nothing once it is over.
    pub fn remaining(&self, clock: &BootClock) -> Duration {
        self.at().saturating_sub(clock.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_deadline_comes_by_the_time_since_the_boot_alone() {
        let now = Rc::new(Cell::new(Duration::from_millis(70_500)));
        let read = Rc::clone(&now);
        let clock = BootClock::reading(move || read.get());
        let deadline = Deadline::after(Duration::from_secs(60), &clock, None);
        assert_eq!(deadline.remaining(&clock), Duration::from_secs(60));
        now.set(Duration::from_millis(130_499));
        assert_eq!(deadline.remaining(&clock), Duration::from_millis(1));
        now.set(Duration::from_secs(9_999));
        assert_eq!(deadline.remaining(&clock), Duration::ZERO);
        let text = serde_json::to_string(&deadline).unwrap();
        assert_eq!(serde_json::from_str::<Deadline>(&text).unwrap(), deadline);
    }

    #[test]
    fn the_kernels_clock_goes_on() {
        let clock = BootClock::of_kernel();
        let then = clock.now();
        assert!(then > Duration::ZERO && clock.now() >= then);
    }
}
