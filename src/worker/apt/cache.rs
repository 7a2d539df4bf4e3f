//! Opening the cache, and libapt's errors as failures.

use std::path::Path;

use apt_ostree_proto::{ErrorCode, Failure};
use rust_apt::config::Config;
use rust_apt::error::AptErrors;
use rust_apt::{Cache, Package, new_cache};

/// How many of libapt's messages are passed on: one cause often repeats itself for every list.
const MOST_MESSAGES: usize = 5;
/// The longest part of one message that is passed on.
const LONGEST_MESSAGE: usize = 400;

/// Opens the cache. libapt takes a missing dpkg database for an empty one, so that is looked at
/// first. And it takes a file for unchanged that has the same size and time, which OSTree makes 0 for
/// all: so it must not keep what it once read of the database. What it keeps of the lists is used.
pub(super) fn open(config: &Config) -> Result<Cache, Failure> {
    let status = config.file("Dir::State::status", "/var/lib/dpkg/status");
    if !Path::new(&status).is_file() {
        return Err(Failure::new(
            ErrorCode::DatabaseOutsideTree,
            format!("there is no dpkg database at {status}"),
        ));
    }
    config.set("Dir::Cache::pkgcache", "");
    if config.find_vector("APT::Architectures").is_empty() {
        // Unless it is told, libapt runs dpkg for them whenever somebody asks.
        let architectures = config.get_architectures();
        let names: Vec<&str> = architectures.iter().map(String::as_str).collect();
        config.set_vector("APT::Architectures", &names);
    }
    new_cache!().map_err(|errors| {
        failure(ErrorCode::Internal, "the package lists cannot be read", &errors)
            .with_hint("Run apt-get update, and look at /etc/apt/sources.list.d.")
    })
}

/// A failure with libapt's own messages, its errors before its warnings.
pub(super) fn failure(code: ErrorCode, what: &str, errors: &AptErrors) -> Failure {
    let messages = messages(errors);
    if messages.is_empty() {
        return Failure::new(code, what);
    }
    Failure::new(code, format!("{what}: {}", messages.join("; ")))
}

/// libapt's messages, bounded, without control characters.
pub(super) fn messages(errors: &AptErrors) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for wanted in [true, false] {
        for error in errors.iter().filter(|error| error.is_error == wanted) {
            let text = shown(&error.msg);
            if !texts.contains(&text) && texts.len() < MOST_MESSAGES {
                texts.push(text);
            }
        }
    }
    texts
}

/// A text of somebody else's, made fit for one line of a message.
pub(super) fn shown(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut shown: String = text.trim().chars().take(LONGEST_MESSAGE).map(clean).collect();
    if text.trim().chars().count() > LONGEST_MESSAGE {
        shown.push('…');
    }
    shown
}

/// A package's name as people write it: with the architecture only where it is a foreign one.
pub(super) fn label(package: &Package<'_>) -> String {
    package.fullname(true)
}

/// Marks many packages as one action: libapt looks for unused packages once, not after each mark.
pub(super) fn together<Answer>(cache: &Cache, marks: impl FnOnce() -> Answer) -> Answer {
    let group = action_group(cache);
    let answer = marks();
    drop(group);
    answer
}

#[expect(unsafe_code, reason = "rust-apt has action groups in its raw interface alone")]
fn action_group(cache: &Cache) -> impl Drop + '_ {
    struct Held<'a, Group>(Option<Group>, std::marker::PhantomData<&'a Cache>);
    impl<Group> Drop for Held<'_, Group> {
        fn drop(&mut self) {
            drop(self.0.take());
        }
    }
    // SAFETY: a group must not outlive its cache; `Held` borrows the cache for as long as it lives.
    let group = unsafe { cache.depcache().action_group() };
    Held(Some(group), std::marker::PhantomData)
}
