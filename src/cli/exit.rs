//! Exit statuses.

use apt_ostree_proto::{ErrorCode, Failure};

/// Done, nothing to do included.
pub(super) const DONE: u8 = 0;
/// Failed before anything changed.
pub(super) const FAILED: u8 = 1;
/// The command line is wrong.
pub(super) const USAGE: u8 = 2;
/// The caller may not do this.
const NOT_AUTHORIZED: u8 = 5;
/// An undo failed: `apt-ostree repair` is needed.
const STUCK: u8 = 6;
/// Another transaction runs.
const BUSY: u8 = 7;
/// Nothing to do, where `--unchanged-exit-77` asks for it.
pub(super) const UNCHANGED: u8 = 77;

/// The status for a command that failed with `error`.
pub(super) fn status_of(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Failure>().map(|failure| failure.code) {
        Some(ErrorCode::InvalidArgument) => USAGE,
        Some(ErrorCode::NotAuthorized) => NOT_AUTHORIZED,
        Some(ErrorCode::Stuck) => STUCK,
        Some(ErrorCode::Busy) => BUSY,
        _ => FAILED,
    }
}
