//! What tests do with a host: boot it, run things in it, spoil its mirror, compare it with itself.

mod emulator;
mod host;
mod mirror;
mod poller;
mod scripts;
mod snapshot;

pub(crate) use emulator::Emulator;
pub(crate) use host::{Host, Image, Output};
pub(crate) use mirror::{Repository, real_upgrades};
pub(crate) use poller::Poller;
pub(crate) use snapshot::Snapshot;
