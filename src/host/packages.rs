//! The real packages port.

pub mod status;
