//! The simulated host behind the same ports as the real one: for tests of everything that happens
//! between the ports, in virtual time and with scripted failures.

mod checks;
mod disk;
mod host;
mod packages;
mod processes;
mod systemd;

pub use checks::{SimChecks, SimHook};
pub use disk::{DiskState, SIM_TREE_BYTES, SimDisk, sim_commit, sim_file};
pub use host::{SimHost, WorldState};
pub use packages::SimPackages;
pub use processes::{SimProcess, SimProcesses};
pub use systemd::{Behaviour, SimSystemd, SimUnit, UnitSnapshot};

use std::fmt;
use std::rc::Rc;

use apt_ostree_proto::{ErrorCode, Failure};

use crate::port::PortResult;

/// What goes wrong with one call of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimFault {
    /// It fails without an effect.
    ErrorBefore,
    /// It fails although its effect happened.
    ErrorAfter,
    /// It never answers, and has no effect.
    Hang,
    /// Its effect happens, and it never answers.
    HangAfter,
    /// It panics before its effect.
    Panic,
    /// The bus is gone: neither the question nor the answer gets anywhere.
    BusLost,
}

type FaultHook = Rc<dyn Fn(&str) -> Option<SimFault>>;

/// Decides which calls go wrong; asked once for each call, by the name of the port and the method:
/// `systemd.start`.
#[derive(Clone, Default)]
pub struct Faults(Option<FaultHook>);

impl Faults {
    /// Faults that `hook` decides about.
    pub fn from_hook(hook: impl Fn(&str) -> Option<SimFault> + 'static) -> Self {
        Self(Some(Rc::new(hook)))
    }

    /// Runs `effect` as the call named `call`, with the fault that it is to have.
    pub async fn around<T>(
        &self,
        call: &str,
        effect: impl Future<Output = PortResult<T>>,
    ) -> PortResult<T> {
        let failure = || Failure::new(ErrorCode::Internal, format!("simulated failure of {call}"));
        match self.0.as_ref().and_then(|hook| hook(call)) {
            None => effect.await,
            Some(SimFault::ErrorBefore) => Err(failure()),
            Some(SimFault::ErrorAfter) => {
                effect.await?;
                Err(failure())
            }
            Some(SimFault::Hang) => std::future::pending().await,
            Some(SimFault::HangAfter) => {
                effect.await?;
                std::future::pending().await
            }
            Some(SimFault::Panic) => panic!("simulated panic of {call}"),
            Some(SimFault::BusLost) => Err(Failure::new(
                ErrorCode::BusLost,
                format!("simulated loss of the bus in {call}"),
            )),
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Faults").field(&self.0.is_some()).finish()
    }
}
