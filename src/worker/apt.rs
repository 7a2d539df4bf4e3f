//! The tasks of libapt.
//!
//! libapt is global to the process: one task opens one cache, and no second one while that lives.
//! Nothing here prints; what libapt and its children print goes to standard error.

mod cache;
mod change;
mod clash;
mod fetch;
mod find;
mod inputs;
mod install;
mod install_output;
mod lists;
mod mark;
mod refresh;
mod resolve;
mod transport;

pub(crate) use fetch::fetch;
pub(crate) use install::{has_script_environment, install, script_environment};
pub(crate) use refresh::refresh;
pub(crate) use resolve::resolve;
pub(crate) use transport::transport;
