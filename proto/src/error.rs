//! Failures that reach people: a stable code, what happened, what was kept, what to do.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($(#[doc = $meaning:literal] $code:ident => $hint:literal,)*) => {
        /// The stable names of everything that can go wrong; on D-Bus `org.aptostree1.Error.<Code>`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $(#[doc = $meaning] $code,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$code,)*];

            /// Its name on the wire.
            pub fn name(self) -> &'static str {
                match self { $(Self::$code => stringify!($code),)* }
            }

            /// What it means, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$code => $meaning.trim_ascii(),)* }
            }

            /// What to do about it, where the failure itself does not know better.
            pub fn hint(self) -> &'static str {
                match self { $(Self::$code => $hint,)* }
            }
        }
    };
}

codes! {
    /// The caller may not do this.
    NotAuthorized => "Run the command as root, or ask an administrator for the polkit action.",
    /// An option is unknown, of the wrong type, or makes no sense with another.
    InvalidArgument => "See apt-ostree --help for the options and their values.",
    /// Another transaction runs.
    Busy => "Wait for it (apt-ostree monitor) or cancel it (apt-ostree cancel).",
    /// Another program holds a lock that is needed.
    Locked => "Wait until the other program has finished, then try again.",
    /// There is no such transaction, plan or package.
    NotFound => "See apt-ostree history and apt-ostree status.",
    /// There is as much of it as can be.
    LimitReached => "Remove a rollback point that is not needed: apt-ostree point --remove NAME.",
    /// The daemon is not installed, or cannot be started.
    DaemonUnavailable => "See the journal: journalctl -u apt-ostreed.",
    /// The configuration cannot be used.
    InvalidConfiguration => "Mend the file that is named, then run the command again.",
    /// The host was not booted from an OSTree deployment.
    NotBooted => "Live updates need a host that was booted by OSTree.",
    /// The dpkg database is not part of the tree.
    DatabaseOutsideTree => "Build the image with /var/lib/dpkg as a symbolic link to /usr/lib/sysimage/dpkg.",
    /// Something else is mounted on /usr.
    ForeignMount => "Take it off first: systemd-sysext unmerge, or reboot out of ostree admin unlock.",
    /// A deployment that somebody else made waits for the next boot.
    PendingDeployment => "Apply it (apt-ostree apply-live --target=pending), reboot, or remove it (ostree admin undeploy 0).",
    /// The wanted packages cannot be installed together.
    Unsatisfiable => "Ask for another set of packages, or release the hold or pin that is named.",
    /// A package can only be changed by a reboot.
    NextBootOnly => "Have it wait for the next boot (apt-ostree apply-live --next-boot), or leave the package out.",
    /// The plan was made from another state than the present one.
    StalePlan => "Make a new plan: apt-ostree apply-live --dry-run.",
    /// A repository is not signed, wrongly signed, or its signature has expired.
    Untrusted => "Mend the repository or its Signed-By entry in /etc/apt/sources.list.d.",
    /// The package lists could not be fetched.
    RefreshFailed => "Check the network and /etc/apt/sources.list.d, or use --no-refresh.",
    /// A package could not be fetched from any mirror.
    DownloadFailed => "Check the network and the mirrors; what was fetched is kept and will be resumed.",
    /// A package is not what the signed index says.
    VerificationFailed => "Do not use that mirror; tell its operator.",
    /// Not enough space.
    NoSpace => "Free the space that is named, then try again.",
    /// A package or its scripts failed.
    InstallFailed => "See the script's output: apt-ostree show ID.",
    /// What was installed does not pass its test; nothing of it reached the host.
    TestFailed => "Mend what the test says, or leave the package out; tests are in apt-ostree config show.",
    /// A package wants something that a live update cannot give.
    UnsupportedPackage => "Leave the package out, or build it into the image.",
    /// The new tree could not be committed.
    CommitFailed => "Check the repository: ostree fsck.",
    /// The switch to the new tree failed.
    SwitchFailed => "See the journal: journalctl -u apt-ostreed.",
    /// A unit could not be stopped or started.
    UnitFailed => "See the unit's log: journalctl -u UNIT.",
    /// A unit did not stay healthy, or a required check failed.
    Unhealthy => "See the unit's log: journalctl -u UNIT.",
    /// The new tree could not be deployed for the next boot.
    DeployFailed => "Check the sysroot: ostree admin status, and the space on /boot.",
    /// The update was not confirmed in time.
    NotConfirmed => "Apply it again and confirm with: apt-ostree confirm.",
    /// It was cancelled.
    Cancelled => "Nothing needs to be done.",
    /// It is too late to cancel.
    TooLate => "Undo the update when it has finished: apt-ostree rollback.",
    /// An undo failed: the host is neither in the old state nor in the new one.
    Stuck => "Run apt-ostree repair.",
    /// The daemon was stopped or crashed in the middle, and the update was put back.
    Interrupted => "Apply the update again.",
    /// The state database cannot be read.
    StateUnreadable => "See the journal: journalctl -u apt-ostreed.",
    /// A step took longer than any that still gets somewhere.
    TimedOut => "See what it waited for: apt-ostree show ID, journalctl -u apt-ostreed.",
    /// The connection to the system bus broke: units can neither be asked nor told.
    BusLost => "See the journal: journalctl -u dbus -u apt-ostreed.",
    /// Something that should not happen.
    Internal => "Report this with the output of journalctl -u apt-ostreed.",
}

impl ErrorCode {
    /// Reads a name that [`ErrorCode::name`] gave.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.name())
    }
}

/// A failure as people and programs see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The stable code.
    pub code: ErrorCode,
    /// What happened, in one sentence, with its causes.
    pub message: String,
    /// What was kept: the state that the host is in.
    pub kept: Option<String>,
    /// What to do.
    pub hint: String,
    /// The failure of an undo that followed, when that failed too.
    pub undo: Option<Box<Failure>>,
}

impl Failure {
    /// A failure with the code's own hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let hint = code.hint().to_owned();
        Self { code, message: message.into(), kept: None, hint, undo: None }
    }

    /// A failure that something else caused; the causes are joined into the message.
    pub fn caused(code: ErrorCode, what: &str, cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = what.to_owned();
        let mut next = Some(cause);
        while let Some(error) = next {
            message.push_str(": ");
            message.push_str(&error.to_string());
            next = error.source();
        }
        Self::new(code, message)
    }

    /// The same with another hint.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same with a word on the state that the host is in.
    pub fn with_kept(mut self, kept: impl Into<String>) -> Self {
        self.kept = Some(kept.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn every_code_has_a_hint_and_is_read_back_by_its_name() {
        for code in ErrorCode::ALL {
            assert!(code.hint().ends_with('.'), "{code}");
            assert_eq!(ErrorCode::parse(code.name()), Some(*code));
        }
    }

    #[test]
    fn the_documentation_has_every_code_as_programs_and_people_see_it() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md");
        let text = std::fs::read_to_string(path).unwrap();
        let found: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
        let row = |code: &ErrorCode| format!("| `{code}` | {} | {} |", code.meaning(), code.hint());
        let expected: Vec<String> = ErrorCode::ALL.iter().map(row).collect();
        assert_eq!(found, expected, "the rows are to be:\n{}", expected.join("\n"));
    }

    /// The tests of whole transactions, on booted hosts and on the simulated one.
    const TESTS: [&str; 2] = ["/../tests/host", "/../actors/tests/transactions"];

    #[test]
    fn every_code_is_provoked_by_a_test_of_whole_transactions() {
        let mut texts = String::new();
        let mut directories: Vec<PathBuf> = TESTS
            .iter()
            .map(|path| format!("{}{path}", env!("CARGO_MANIFEST_DIR")).into())
            .collect();
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    texts.push_str(&std::fs::read_to_string(path).unwrap());
                }
            }
        }
        let is_told = |code: &&ErrorCode| {
            let ways = [
                format!("\"{code}\""),
                format!("ErrorCode::{code}"),
                format!("[{code}]"),
                format!("Error.{code}\""),
            ];
            ways.iter().any(|way| texts.contains(way))
        };
        let untold: Vec<&ErrorCode> = ErrorCode::ALL.iter().filter(|code| !is_told(code)).collect();
        assert_eq!(untold, Vec::<&ErrorCode>::new(), "no test expects them");
    }
}
