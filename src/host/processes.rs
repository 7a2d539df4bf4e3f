//! The real processes port.
