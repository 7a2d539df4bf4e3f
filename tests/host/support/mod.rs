//! What tests do with a host: boot it, run things in it, spoil its mirror, compare it with itself.

mod client;
mod emulator;
mod host;
mod look;
mod mirror;
mod poller;
mod product;
mod scripts;
mod snapshot;
mod torture;

pub(crate) use emulator::Emulator;
pub(crate) use host::{Host, Image, Output};
pub(crate) use look::look;
pub(crate) use mirror::{Repository, empty_package, real_upgrades};
pub(crate) use poller::{Poller, Polls};
pub(crate) use product::{Listener, MANAGER, STEPS, Told};
pub(crate) use scripts::{host_root, run_script, wait_for};
pub(crate) use snapshot::Snapshot;
pub(crate) use torture::note_torture;
