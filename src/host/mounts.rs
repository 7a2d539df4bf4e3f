//! The real mounts port.
