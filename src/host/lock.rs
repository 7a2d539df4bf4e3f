//! The real lock port.
