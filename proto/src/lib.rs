//! The vocabulary that the daemon, its actors, its worker processes and its clients share.
//!
//! Architecture invariant: this crate does no I/O and knows no actor; it only names things, checks
//! that names are well formed, and says how they look on the wire.

pub mod dbus;
pub mod difference;
pub mod error;
pub mod event;
pub mod id;
pub mod inspection;
pub mod outdated;
pub mod package;
pub mod plan;
pub mod point;
pub mod record;
pub mod request;
pub mod service;
pub mod status;
pub mod step;
pub mod strategy;

pub use error::{ErrorCode, Failure};
pub use id::{
    CommitId, PackageName, PlanId, PointName, Sha256, TransactionId, UnitName, UnitPattern, Version,
};
