//! Faults: what goes wrong, for which paths.
//!
//! One line of the control file is `PATTERN FAULT [VALUE [TIMES]]`. `*` in a pattern stands for any text,
//! every line that matches a path applies, and TIMES limits how often it does. Lines that start with `#`
//! are comments.
//!
//! | fault | effect |
//! |---|---|
//! | `latency MILLISECONDS` | each answer comes that long after its request, pipelined or not |
//! | `bandwidth BYTES` | bytes a second on each connection |
//! | `status CODE` | that status instead of the file |
//! | `truncate BYTES` | the body ends there, its announced length being that |
//! | `close BYTES` | the connection ends there, in the middle of the body |
//! | `stall BYTES` | nothing more comes after that, and the connection stays open |
//! | `flip BYTE` | the byte at that offset of the file is another one |

use std::{cell::RefCell, collections::HashMap, path::PathBuf, time::Duration};

/// The control file and how often its limited lines have been used.
#[derive(Debug)]
pub(crate) struct Control {
    path: Option<PathBuf>,
    uses: RefCell<Uses>,
}

#[derive(Debug, Default)]
struct Uses {
    text: String,
    counts: HashMap<usize, u64>,
}

/// All that goes wrong with one answer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Faults {
    pub(crate) latency: Duration,
    pub(crate) bandwidth_bytes_per_second: Option<u64>,
    pub(crate) status: Option<u16>,
    pub(crate) truncate_at: Option<u64>,
    pub(crate) close_at: Option<u64>,
    pub(crate) stall_at: Option<u64>,
    pub(crate) flip_at: Option<u64>,
}

impl Control {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self { path, uses: RefCell::default() }
    }

    /// What goes wrong with this request for `target`. Counts: call it once a request.
    pub(crate) fn next_for(&self, target: &str) -> Faults {
        let text = self
            .path
            .as_ref()
            .and_then(|path| std::fs::read_to_string(path).ok())
            .unwrap_or_default();
        self.uses.borrow_mut().next_for(text, target)
    }
}

impl Uses {
    fn next_for(&mut self, text: String, target: &str) -> Faults {
        if self.text != text {
            self.text = text;
            self.counts.clear();
        }
        let mut faults = Faults::default();
        for (number, line) in self.text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [pattern, fault, value, times @ ..] = words.as_slice() else {
                continue;
            };
            if pattern.starts_with('#') || !matches(pattern, target) {
                continue;
            }
            if let Some(limit) = times.first().and_then(|times| times.parse().ok()) {
                let count = self.counts.entry(number).or_default();
                if *count >= limit {
                    continue;
                }
                *count += 1;
            }
            faults.set(fault, value);
        }
        faults
    }
}

impl Faults {
    /// A misspelt line must fail the test that wrote it, not quietly make it pass.
    fn set(&mut self, fault: &str, value: &str) {
        let number: u64 = value
            .parse()
            .unwrap_or_else(|_| panic!("not a number in the control file: {fault} {value}"));
        match fault {
            "latency" => self.latency = Duration::from_millis(number),
            "bandwidth" => self.bandwidth_bytes_per_second = Some(number.max(1)),
            "status" => self.status = u16::try_from(number).ok(),
            "truncate" => self.truncate_at = Some(number),
            "close" => self.close_at = Some(number),
            "stall" => self.stall_at = Some(number),
            "flip" => self.flip_at = Some(number),
            _ => panic!("no such fault: {fault}"),
        }
    }
}

/// Whether `text` fits `pattern`, where `*` stands for any text, slashes included.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            text.char_indices()
                .map(|(index, _)| index)
                .chain([text.len()])
                .any(|index| matches(rest, &text[index..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_whole_paths() {
        assert!(matches("*", "/a/b"));
        assert!(matches("*/b_*.deb", "/a/b_1.deb"));
        assert!(matches("/a", "/a"));
        assert!(!matches("/a", "/a/b"));
        assert!(!matches("*.deb", "/a.debug"));
    }

    #[test]
    fn a_limited_fault_ends() {
        let mut uses = Uses::default();
        let text = "* latency 5\n*.deb status 503 2\n".to_owned();
        let statuses: Vec<_> =
            (0..3).map(|_| uses.next_for(text.clone(), "/a.deb").status).collect();
        assert_eq!(statuses, [Some(503), Some(503), None]);
        assert_eq!(uses.next_for(text, "/b").latency, Duration::from_millis(5));
    }
}
