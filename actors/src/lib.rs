//! The behaviour of apt-ostree: what happens in which order, what is undone when, and who restarts
//! whom. Everything that touches a host stands behind the traits of [`port`].
//!
//! Architecture invariants:
//! - Worker actors never message each other; they answer the coordinator.
//! - The coordinator alone writes the journal.
//! - Nothing mutates the host before its `Started` record is durable.
//! - No FFI, and no privilege: this crate runs whole in a unit test.

pub mod blocking;
pub mod clock;
pub mod context;
pub mod contract;
pub mod coordinator;
pub mod difference;
pub mod download;
pub mod health;
pub mod inspection;
pub mod journal;
pub mod overlay;
pub mod package;
pub mod port;
pub mod saga;
pub mod service;
pub mod sim;
pub mod supervisor;
pub mod verification;

pub use context::{Report, Reporter, StepContext};
