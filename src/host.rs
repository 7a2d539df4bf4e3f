//! The real host behind the ports of [`apt_ostree_actors::port`], one module a port.

pub mod archive;
pub mod files;
pub mod http;
pub mod lock;
pub mod mounts;
pub mod namespace;
pub mod packages;
pub mod paths;
pub mod processes;
pub mod sandbox;
pub mod systemd;
pub mod tree;
pub mod worker;
