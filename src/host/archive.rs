//! The real archive port.
