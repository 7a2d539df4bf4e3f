//! The tasks about trees: staging areas, commits, checkouts, deployments. libostree and what must
//! write below `/sysroot`.
//!
//! Architecture invariant: every task that writes does so in a private mount namespace where
//! `/sysroot` is writable; the host's own `/sysroot` stays as it is.

mod amend;
mod change;
mod checkout;
mod clean_up;
mod commit;
mod compare;
mod conffiles;
mod copy;
mod deployment;
mod etc_copy;
mod file;
mod kernel;
mod lock;
mod look;
mod namespace;
mod objects;
mod repository;
mod retention;
mod size;
mod staging;
mod target;
mod users;
mod verify;

pub(crate) use self::checkout::{check_out, prepare};
pub(crate) use self::clean_up::{clean_up, sweep};
pub(crate) use self::commit::commit;
pub(crate) use self::compare::describe_difference;
pub(crate) use self::deployment::{deploy, stage_deployment, undeploy};
pub(crate) use self::file::read_file;
pub(crate) use self::look::{look, restore_ref};
pub(crate) use self::namespace::make_private;
pub(crate) use self::retention::hold;
pub(crate) use self::staging::stage;
pub(crate) use self::target::find_target;
pub(crate) use self::verify::compare_running;
