//! The real sandbox port.
