//! The real http port.
