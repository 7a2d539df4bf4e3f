//! What a host consists of, for "as before, byte for byte".

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde::{Deserialize, Serialize};

use super::scripts::run_script_for_output;

/// More differences than this tell nobody anything new.
const SHOWN_DIFFERENCES: usize = 40;

/// The state of a host's `/usr`, `/etc`, dpkg database (which lies in `/usr`), units and mounts, as
/// `state.sh` prints it: each line, and how often it occurs. Two equal mounts are one too many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    lines: BTreeMap<String, usize>,
}

impl Snapshot {
    pub(crate) fn of(name: &str) -> Self {
        Self::of_lines(run_script_for_output("state.sh", [name]).lines())
    }

    /// These facts, one a line.
    pub(crate) fn of_lines<'a>(facts: impl Iterator<Item = &'a str>) -> Self {
        let mut lines = BTreeMap::new();
        for line in facts {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
        Self { lines }
    }

    /// Fails the test, and says what differs, unless `self` equals `before`.
    #[track_caller]
    pub(crate) fn assert_same_as(&self, before: &Self) {
        let differences = self.differences(before);
        assert!(differences.is_empty(), "the host is not as before:\n{differences}");
    }

    /// Fails the test unless `self` equals `before` in all but the facts that begin with one of these.
    #[track_caller]
    pub(crate) fn assert_same_but_for(&self, before: &Self, own: &[&str]) {
        let differences: Vec<String> = self
            .differences(before)
            .lines()
            .filter(|line| !own.iter().any(|own| line[2..].starts_with(own)))
            .map(str::to_owned)
            .collect();
        assert!(differences.is_empty(), "the host is not as before:\n{}", differences.join("\n"));
    }

    /// The lines that only one of the two has, `-` for what is gone and `+` for what is new.
    pub(crate) fn differences(&self, before: &Self) -> String {
        let (now, old) = (&self.lines, &before.lines);
        let lines: BTreeSet<&String> = now.keys().chain(old.keys()).collect();
        let mut text = String::new();
        for line in lines
            .into_iter()
            .filter(|line| now.get(*line) != old.get(*line))
            .take(SHOWN_DIFFERENCES)
        {
            let sign = if now.get(line) > old.get(line) { '+' } else { '-' };
            writeln!(text, "{sign} {line}").expect("a string takes all");
        }
        text
    }
}
