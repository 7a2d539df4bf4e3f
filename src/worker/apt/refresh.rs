//! `apt update`.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use apt_ostree_proto::{ErrorCode, Failure};
use rust_apt::config::Config;
use rust_apt::error::AptErrors;
use rust_apt::progress::{AcquireProgress, DynAcquireProgress};
use rust_apt::raw::{AcqTextStatus, ItemDesc, ItemState, PkgAcquire};

use super::{cache, lists};
use crate::output::Output;

/// How often libapt reports, in microseconds: 0 would be as often as it can.
pub(super) const PULSE_MICROSECONDS: usize = 200_000;
/// How many lists that failed are named.
const MOST_NAMED: usize = 6;
/// What libapt and its methods say when a list is there but cannot be trusted. They have no codes,
/// and are in English because the worker never sets a locale.
const SIGNS_OF_DISTRUST: &[&str] = &[
    "GPG error",
    "NO_PUBKEY",
    "BADSIG",
    "EXPKEYSIG",
    "EXPSIG",
    "REVKEYSIG",
    "is not signed",
    "no longer signed",
    "signatures couldn't be verified",
    "signatures were invalid",
    "invalid signature",
    "could not be verified",
    "Clearsigned file isn't valid",
    "Release file is expired",
    "is expired (invalid since",
    "is not valid yet",
    "Hash Sum mismatch",
    "File has unexpected size",
    "considered strong enough for security purposes",
    "insecure repositor",
    "changed its '",
    "Conflicting distribution",
];

/// libapt's advice beside an error: the failure's own hint says it shorter.
const ADVICE: &[&str] = &[
    "Updating from such a repository can't be done securely",
    "See apt-secure(8)",
    "Some index files failed to download",
];
/// How much of a reason makes two messages about the same.
const TELLING_PART: usize = 40;

/// Fetches the package lists.
pub(crate) fn refresh((): (), output: &Output) -> Result<(), Failure> {
    let config = Config::new();
    let directory = PathBuf::from(config.dir("Dir::State::lists", "/var/lib/apt/lists/"));
    lists::remove_empty(&directory).map_err(|error| unusable(&error))?;
    let cache = cache::open(&config)?;
    let complaints = Rc::new(RefCell::new(Vec::new()));
    let watcher = Watcher { output, complaints: Rc::clone(&complaints) };
    let result = cache.update(&mut AcquireProgress::new(watcher));
    // Lists that could not be fetched leave warnings behind a result that is well.
    let (errors, succeeded) = match result {
        Ok(()) => (AptErrors::new(), true),
        Err(errors) => (errors, false),
    };
    let complaints = complaints.take();
    let mut texts: Vec<String> = complaints.clone();
    for error in errors.iter() {
        let text = cache::shown(&error.msg);
        if error.is_error || says_distrust(&text) {
            texts.push(text);
        } else if !ADVICE.iter().any(|advice| text.starts_with(advice)) {
            output.warning(&text);
        }
    }
    if succeeded && texts.is_empty() {
        return lists::make_durable(&directory).map_err(|error| unusable(&error));
    }
    let temporary = std::env::temp_dir();
    let failure = lists::without_room(&[&directory, &temporary]).unwrap_or_else(|| judge(texts));
    Err(failure.with_kept("The lists that were there are still in use."))
}

fn unusable(error: &io::Error) -> Failure {
    Failure::caused(ErrorCode::RefreshFailed, "the package lists on the disk are unusable", error)
}

/// What kind of failure libapt's messages are, and all of it that people need.
fn judge(texts: Vec<String>) -> Failure {
    if let Some(locked) = texts.iter().find(|text| text.contains("Could not get lock")) {
        return Failure::new(ErrorCode::Locked, locked.clone());
    }
    let (distrusted, mut unreachable): (Vec<String>, Vec<String>) =
        texts.into_iter().partition(|text| says_distrust(text));
    if unreachable.iter().any(|text| !says_nothing_came(text)) {
        unreachable.retain(|text| !says_nothing_came(text));
    }
    if distrusted.is_empty() {
        return Failure::new(
            ErrorCode::RefreshFailed,
            format!("the package lists could not be fetched: {}", named(unreachable)),
        );
    }
    Failure::new(
        ErrorCode::Untrusted,
        format!("a repository cannot be trusted: {}", named(distrusted)),
    )
}

fn says_distrust(text: &str) -> bool {
    !says_nothing_came(text) && SIGNS_OF_DISTRUST.iter().any(|sign| text.contains(sign))
}

/// libapt calls a repository "no longer signed", by the name of `InRelease`, when that file could not be
/// fetched at all. One that came without a signature it calls by the name of `Release`.
fn says_nothing_came(text: &str) -> bool {
    text.contains(" InRelease' is ") && text.contains(" signed.")
}

/// Each message once, without what repeats another in more words.
fn without_repetition(texts: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for text in texts {
        let text = text.split(" Hashes of expected file:").next().unwrap_or_default().to_owned();
        // "Failed to fetch URI  REASON"
        let reason = text.strip_prefix("Failed to fetch ").and_then(|rest| rest.split_once("  "));
        let reason: Option<String> =
            reason.map(|(_, reason)| reason.chars().take(TELLING_PART).collect());
        let says_the_same = |earlier: &String| {
            let same_reason = reason.as_ref().is_some_and(|reason| earlier.contains(reason));
            text.contains(earlier.as_str()) || same_reason
        };
        if !kept.iter().any(says_the_same) {
            kept.push(text);
        }
    }
    kept
}

fn named(texts: Vec<String>) -> String {
    let mut texts = without_repetition(texts);
    let more = texts.len().saturating_sub(MOST_NAMED);
    texts.truncate(MOST_NAMED);
    if more > 0 {
        texts.push(format!("and {more} more"));
    }
    if texts.is_empty() { "libapt gives no reason".to_owned() } else { texts.join("; ") }
}

/// Reports what libapt fetches and keeps what failed. Nothing in here may panic: libapt calls it.
pub(super) struct Watcher<'a> {
    pub(super) output: &'a Output,
    pub(super) complaints: Rc<RefCell<Vec<String>>>,
}

impl DynAcquireProgress for Watcher<'_> {
    fn pulse_interval(&self) -> usize {
        PULSE_MICROSECONDS
    }

    fn hit(&mut self, item: &ItemDesc) {
        self.output.log(&format!("unchanged {}", cache::shown(&item.description())));
    }

    fn fetch(&mut self, item: &ItemDesc) {
        self.output.log(&format!("fetching {}", cache::shown(&item.description())));
    }

    fn fail(&mut self, item: &ItemDesc) {
        let owner = item.owner();
        // An optional list that is not there is no failure: libapt has it "ignored".
        if matches!(owner.status(), ItemState::StatIdle | ItemState::StatDone) {
            return;
        }
        let text = format!("{}: {}", item.description(), owner.error_text());
        if let Ok(mut complaints) = self.complaints.try_borrow_mut() {
            complaints.push(cache::shown(&text));
        }
    }

    fn pulse(&mut self, status: &AcqTextStatus, _owner: &PkgAcquire) {
        self.output.transfer(status.current_bytes(), status.total_bytes());
        self.output.fraction((status.percent() / 100.0).clamp(0.0, 1.0));
    }

    fn done(&mut self, _item: &ItemDesc) {}

    fn start(&mut self) {}

    fn stop(&mut self, _status: &AcqTextStatus) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_libapt_are_told_apart_by_whether_they_speak_of_trust() {
        use ErrorCode::{Locked, RefreshFailed, Untrusted};
        for (text, code) in [
            (
                "GPG error: http://m stable InRelease: The following signatures couldn't be verified \
              because the public key is not available: NO_PUBKEY 12",
                Untrusted,
            ),
            ("The repository 'http://m stable Release' is not signed.", Untrusted),
            ("Release file for http://m/InRelease is expired (invalid since 3d).", Untrusted),
            ("Failed to fetch http://m/Packages.gz  Hash Sum mismatch", Untrusted),
            ("Failed to fetch http://m/InRelease  Could not connect to m:80", RefreshFailed),
            ("Failed to fetch http://m/InRelease  404  Not Found", RefreshFailed),
            (
                "The repository 'http://m stable Release' does not have a Release file.",
                RefreshFailed,
            ),
            ("The repository 'http://m stable InRelease' is no longer signed.", RefreshFailed),
            ("Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt)", Locked),
        ] {
            assert_eq!(judge(vec![text.to_owned()]).code, code, "{text}");
        }
    }

    #[test]
    fn what_libapt_says_three_times_is_told_once() {
        let reason = "The following signatures couldn't be verified because of NO_PUBKEY 12";
        let failure = judge(vec![
            format!("http://m stable InRelease: {reason}"),
            format!("An error occurred. GPG error: http://m stable InRelease: {reason}"),
            format!("Failed to fetch http://m/dists/stable/InRelease  {reason}"),
        ]);
        assert_eq!(failure.message.matches("NO_PUBKEY").count(), 1, "{failure}");

        let failure = judge(vec![
            "http://m stable InRelease: 503".to_owned(),
            "The repository 'http://m stable InRelease' is no longer signed.".to_owned(),
        ]);
        assert!(!failure.message.contains("signed"), "{failure}");
    }

    #[test]
    fn one_distrusted_repository_outweighs_unreachable_ones_and_is_named() {
        let failure = judge(vec![
            "Failed to fetch http://gone/InRelease  Could not connect".to_owned(),
            "The repository 'http://bad stable Release' is not signed.".to_owned(),
        ]);
        assert_eq!(failure.code, ErrorCode::Untrusted);
        assert!(failure.message.contains("http://bad"));
    }
}
