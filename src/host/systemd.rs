//! The real systemd port.
