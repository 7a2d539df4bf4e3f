//! The D-Bus contract: names, options, and proxies for Rust clients.
//!
//! Rich values (plans, records, host states) travel as JSON texts in the shape of this crate's own
//! types, so that `busctl`, scripts and every language's JSON reader get all of them; what a desktop
//! client needs at a glance are properties and signals of plain types.

mod proxy;

use std::collections::HashMap;

use zbus::zvariant::{OwnedValue, Value};

pub use self::proxy::*;
use crate::id::TransactionId;

/// The bus name.
pub const BUS_NAME: &str = "org.aptostree1";
/// The manager's object.
pub const MANAGER_PATH: &str = "/org/aptostree1";
/// Transactions stand below this path, by number.
pub const TRANSACTION_PATH: &str = "/org/aptostree1/transaction";
/// What error names begin with.
pub const ERROR_PREFIX: &str = "org.aptostree1.Error.";
/// A percentage that is not known.
pub const UNKNOWN_PERCENTAGE: u32 = 101;

/// The polkit action for changing the host.
pub const ACTION_UPDATE: &str = "org.aptostree1.apply-update";
/// The polkit action for fetching lists and making plans.
pub const ACTION_CHECK: &str = "org.aptostree1.check-updates";
/// The polkit action for undoing an update.
pub const ACTION_ROLL_BACK: &str = "org.aptostree1.roll-back";
/// The polkit action for naming rollback points and removing their names.
pub const ACTION_POINTS: &str = "org.aptostree1.manage-points";
/// The polkit action for mending a host that is stuck.
pub const ACTION_REPAIR: &str = "org.aptostree1.repair-host";
/// The polkit action for cancelling somebody's transaction.
pub const ACTION_CANCEL: &str = "org.aptostree1.cancel-transaction";

/// The object path of a transaction.
pub fn transaction_path(id: TransactionId) -> String {
    format!("{TRANSACTION_PATH}/{id}")
}

/// The number in a transaction's object path.
pub fn transaction_of_path(path: &str) -> Option<TransactionId> {
    let number = path.strip_prefix(TRANSACTION_PATH)?.strip_prefix('/')?;
    number.parse().ok().map(TransactionId)
}

/// Options of a method call.
pub type Options<'a> = HashMap<&'a str, Value<'a>>;

/// Options as a service receives them.
pub type ReceivedOptions = HashMap<String, OwnedValue>;
