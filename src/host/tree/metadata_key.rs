//! The keys under which a commit says what it is.

/// The plan that it realizes, as text.
pub const PLAN: &str = "apt-ostree.plan";
/// The package changes, as JSON.
pub const CHANGES: &str = "apt-ostree.changes";
/// Why it was made.
pub const REASON: &str = "apt-ostree.reason";
/// The transaction that made it, as a number.
pub const TRANSACTION: &str = "apt-ostree.transaction";
