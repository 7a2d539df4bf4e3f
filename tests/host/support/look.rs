//! What a host must be, all of it.

use super::{Host, Snapshot};

/// The host's state: `look.sh` says of what it consists.
pub(crate) fn look(host: &Host) -> Snapshot {
    Snapshot::of_lines(host.shell(include_str!("look.sh")).lines())
}
