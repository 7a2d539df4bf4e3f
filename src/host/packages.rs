//! The real packages port.
