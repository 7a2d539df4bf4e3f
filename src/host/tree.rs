//! The real tree port.
