//! What is wrong is refused: with the contract's exit status, a stable code, a message that names it and
//! what to do; and the host is as before, byte for byte.
//!
//! Each test boots one host, and asks it for everything of one kind.

mod arguments;
mod conditions;
mod daemon;
mod locks;
mod mirrors;
mod packages;
mod repositories;

use crate::support::{Host, Image, Output, Snapshot};

/// Settings that make failures quick.
const CONFIGURATION: &str =
    "[download]\nstall-seconds = 1\nattempts = 2\n[health]\ndwell-seconds = 1\n";
/// Nobody reads more than this of an error.
const LONGEST_OUTPUT: usize = 6_000;

/// The longest text of an error on the bus.
const LONGEST_ERROR: usize = 1_000;

/// What must be said of a command that is refused.
#[derive(Debug, Clone, Copy)]
struct Refusal<'a> {
    status: i32,
    code: &'a str,
    /// What the message names.
    names: &'a [&'a str],
    /// Part of what to do.
    advice: &'a str,
}

/// A host, and what it was before anything was asked of it.
#[derive(Debug)]
struct Bench {
    host: Host,
    before: Snapshot,
}

impl Bench {
    fn boot() -> Self {
        let host = Host::boot(Image::Default);
        host.configure(CONFIGURATION);
        // What a running daemon adds to the host is no difference that a refusal made.
        host.run(["apt-ostree", "status"]).success();
        let before = host.snapshot();
        Self { host, before }
    }

    /// Runs `apt-ostree` with these arguments: it must fail so, and leave the host as it was.
    #[track_caller]
    fn refuses(&self, case: &str, arguments: &[&str], refusal: Refusal<'_>) {
        self.refuses_from(case, arguments, refusal, &self.before);
    }

    /// The same for a host that the test itself has changed to `before`.
    #[track_caller]
    fn refuses_from(
        &self,
        case: &str,
        arguments: &[&str],
        refusal: Refusal<'_>,
        before: &Snapshot,
    ) {
        self.answers(case, arguments, refusal);
        let differences = self.host.snapshot().differences(before);
        assert!(differences.is_empty(), "{case}: the host is not as before:\n{differences}");
    }

    /// The same, for what is refused before the daemon begins anything: the host is compared by the
    /// caller, once for all of a table.
    #[track_caller]
    fn answers(&self, case: &str, arguments: &[&str], refusal: Refusal<'_>) {
        let output = self.host.run(["apt-ostree", "--no-progress"].iter().chain(arguments));
        eprintln!("{case}:\n{}", output.stderr);
        refusal.assert_told(case, &output);
    }

    #[track_caller]
    fn assert_as_before(&self) {
        self.host.snapshot().assert_same_as(&self.before);
    }

    /// Empties apt's cache, so that every package is fetched anew.
    fn forget_packages(&self) {
        self.host.shell("find /var/cache/apt/archives -type f ! -name lock -delete");
    }

    /// Calls a method of the manager as any client may: it is refused with this error, whose text names
    /// `told` and stays short and printable.
    #[track_caller]
    fn refuses_call(
        &self,
        method: &str,
        arguments: &(impl serde::Serialize + zbus::zvariant::DynamicType),
        error: &str,
        told: &str,
    ) {
        let (name, text) = self.host.call_refused(method, arguments);
        assert_eq!(name, error, "{method}: {text}");
        assert!(text.contains(told), "{method}: no {told:?} in: {text}");
        assert!(text.len() < LONGEST_ERROR, "{method}: {} bytes", text.len());
        assert!(!text.contains(char::is_control), "{method}: {text:?}");
    }

    /// The code and message of the `Error` signal of a transaction that `ApplyLive` begins with these
    /// options, in busctl's notation.
    #[track_caller]
    fn error_of_transaction(&self, options: &[&str]) -> (String, String) {
        let manager = ["org.aptostree1", "/org/aptostree1", "org.aptostree1.Manager"];
        let call = ["call"].iter().chain(&manager).chain(&["ApplyLive", "a{sv}"]).chain(options);
        let path = self.host.busctl(call).expect("the transaction begins");
        let path = path["data"][0].as_str().expect("a path").to_owned();
        // busctl waits for nothing: the record is there once the transaction has ended.
        let id = path.rsplit('/').next().expect("a number").to_owned();
        let record =
            crate::support::wait_for("the end of the transaction", LONGEST_TRANSACTION, || {
                let output = self.host.run(["apt-ostree", "--json", "show", &id]);
                serde_json::from_str::<serde_json::Value>(&output.stdout)
                    .ok()
                    .filter(|value| value["outcome"].is_string() && value["failure"].is_object())
            });
        let failure = &record["failure"];
        let text = |key: &str| failure[key].as_str().unwrap_or_default().to_owned();
        (text("code"), text("message"))
    }
}

/// A transaction that only fails takes a second or two.
const LONGEST_TRANSACTION: std::time::Duration = std::time::Duration::from_secs(60);

impl<'a> Refusal<'a> {
    /// Failed before anything changed.
    fn failed(code: &'a str, names: &'a [&'a str], advice: &'a str) -> Self {
        Self { status: 1, code, names, advice }
    }

    fn usage(names: &'a [&'a str]) -> Self {
        Self { status: 2, code: "InvalidArgument", names, advice: "apt-ostree --help" }
    }

    #[track_caller]
    fn assert_told(&self, case: &str, output: &Output) {
        let told = &output.stderr;
        assert_eq!(output.code, Some(self.status), "{case}: {told}{}", output.stdout);
        assert_clean_and_bounded(case, output);
        let line = told.lines().find(|line| line.starts_with("apt-ostree: "));
        let line = line.unwrap_or_else(|| panic!("{case}: no message in: {told}"));
        assert!(line.ends_with(&format!(" [{}]", self.code)), "{case}: {line}");
        for name in self.names {
            assert!(line.contains(name), "{case}: no {name:?} in: {line}");
        }
        let hint = told.lines().last().unwrap_or_default();
        assert!(hint.starts_with("  ") && hint.contains(self.advice), "{case}: {told}");
    }
}

/// What is printed neither drives a terminal nor fills it.
#[track_caller]
fn assert_clean_and_bounded(case: &str, output: &Output) {
    for text in [&output.stdout, &output.stderr] {
        assert!(text.len() <= LONGEST_OUTPUT, "{case}: {} bytes", text.len());
        let control = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(control, None, "{case}: {text:?}");
    }
}
