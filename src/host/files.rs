//! The real files port.
