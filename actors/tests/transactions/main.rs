//! Whole transactions on the simulated host: whatever fails, the host ends in the state before or in
//! the state after, and says which.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test that calls it")]

mod at_boot;
mod checks;
mod confirm;
mod contract;
mod daemon;
mod errors;
mod faults;
mod inspections;
mod outdated;
mod points;
#[path = "../../../tests/host/support/torture.rs"]
mod torture;
mod ways;
