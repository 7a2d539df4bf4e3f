//! What the daemon and the rescue binary both know about mounts: pure, no I/O.
//!
//! The rescue binary includes this module by path, so that it links nothing of the daemon's.

pub mod mountinfo;
pub mod usr;
