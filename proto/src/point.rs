//! Rollback points: states of the host that are kept, and how a caller names a state.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{CommitId, InvalidName, PointName, SHORTEST_COMMIT_PREFIX, TransactionId};

/// A state that an admin gave a name to. It is kept until the name is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Its name.
    pub name: PointName,
    /// The newest update that is part of it; 0 for none.
    pub after: TransactionId,
    /// Its commit.
    pub commit: CommitId,
    /// When it was named, in seconds since 1970.
    pub named_seconds: i64,
    /// Who named it: the user id.
    pub uid: u32,
}

/// An update that can be undone, because the tree before it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptUpdate {
    /// The update.
    pub id: TransactionId,
    /// The commit that undoing it leads to.
    pub commit: CommitId,
    /// What that commit occupies in the repository, and nothing else does: no deployment, no named
    /// point, no newer one of these.
    pub bytes: u64,
}

/// A state of the host, as a caller names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// What `/usr` shows now: `running`.
    Running,
    /// The booted deployment: `booted`.
    Booted,
    /// What boots next: `next`.
    Next,
    /// The state that an update led to: its number.
    Update(TransactionId),
    /// A named point.
    Point(PointName),
    /// A commit: its 64 digits, or the first twelve or more of one that this host knows.
    Commit(String),
}

impl FromStr for Reference {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let is_commit = (SHORTEST_COMMIT_PREFIX..=64).contains(&text.len());
        Ok(match text {
            "running" => Self::Running,
            "booted" => Self::Booted,
            "next" => Self::Next,
            _ if is_commit && text.bytes().all(is_digit) => Self::Commit(text.to_owned()),
            _ => match text.parse() {
                Ok(number) if text.bytes().all(|b| b.is_ascii_digit()) => {
                    Self::Update(TransactionId(number))
                }
                _ => Self::Point(PointName::parse(text)?),
            },
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => formatter.write_str("running"),
            Self::Booted => formatter.write_str("booted"),
            Self::Next => formatter.write_str("next"),
            Self::Update(id) => id.fmt(formatter),
            Self::Point(name) => name.fmt(formatter),
            Self::Commit(text) => formatter.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_named_by_a_word_a_number_a_point_or_a_commit() {
        let commit = "0123456789ab".repeat(5) + "cdef";
        for (text, expected) in [
            ("running", Reference::Running),
            ("booted", Reference::Booted),
            ("next", Reference::Next),
            ("7", Reference::Update(TransactionId(7))),
            ("before-x", Reference::Point(PointName::parse("before-x").unwrap())),
            ("abcdef", Reference::Point(PointName::parse("abcdef").unwrap())),
            ("123456789012", Reference::Commit("123456789012".to_owned())),
            (commit.as_str(), Reference::Commit(commit.clone())),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap(), expected, "{text}");
            assert_eq!(expected.to_string(), text);
        }
    }

    #[test]
    fn what_names_no_state_is_refused() {
        let long = "1".repeat(65);
        for bad in ["", "+7", "-7", "../x", "a\nb", "$(x)", long.as_str()] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
