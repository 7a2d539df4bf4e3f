//! The edges of apt-ostree: the host that it changes, the bus that it is asked on, the terminal
//! that it is watched on.

pub mod cli;
pub mod config;
pub mod dbus;
pub mod early;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod host;
pub mod mount;
pub mod telemetry;
