use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use apt_ostree_proto::{TransactionId, UnitName};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::PortResult;

/// Asks services whether they are ready, and runs the admin's hooks.
#[async_trait(?Send)]
pub trait Checks: fmt::Debug {
    /// Asks once, for [`Probe::timeout`] at the most. That a service is not ready is an answer; an
    /// error means that it could not be asked.
    async fn probe(&self, transaction: TransactionId, probe: &Probe) -> PortResult<CheckAnswer>;

    /// The hooks of a kind, in the order in which they run, those that must not be run among them.
    async fn hooks(&self, kind: HookKind) -> PortResult<Vec<Hook>>;

    /// Runs a hook to its end; after `timeout` it is ended with all that it started, and has failed.
    /// So has one that must not be run any more.
    async fn run_hook(
        &self,
        hook: &Hook,
        call: &HookCall,
        timeout: Duration,
    ) -> PortResult<CheckAnswer>;

    /// Ends whatever probes and hooks of the transaction still run. Undo.
    async fn end(&self, transaction: TransactionId) -> PortResult<()>;
}

/// What came of a probe or a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckAnswer {
    /// Why it failed, for people; none: it succeeded.
    pub failure: Option<String>,
    /// The end of what was printed; bounded, without control characters.
    pub output: Vec<String>,
}

impl CheckAnswer {
    /// It failed, and printed nothing.
    pub fn failed(why: impl Into<String>) -> Self {
        Self { failure: Some(why.into()), output: Vec::new() }
    }
}

/// What a failed check means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckLevel {
    /// The update is put back.
    #[default]
    Required,
    /// A warning.
    Wanted,
}

/// The probes of each unit that has any.
pub type Probes = BTreeMap<UnitName, Vec<Probe>>;

/// How a unit is asked whether it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is asked.
    pub question: Question,
    /// What it means when the unit is not ready.
    pub level: CheckLevel,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How long it is from the begin of one attempt to the begin of the next.
    pub interval: Duration,
    /// How many attempts have to succeed one after the other.
    pub successes: u32,
    /// How long, after the dwell time, it may take until they have.
    pub settle: Duration,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// Whether something accepts connections.
    Tcp {
        /// A name or an address.
        address: String,
        /// The port.
        port: u16,
    },
    /// Whether a GET is answered with the right status. Redirects are not followed.
    Http {
        /// Where.
        url: String,
        /// The status; none: any from 200 to 299.
        status: Option<u16>,
    },
    /// Whether a name on the system bus has an owner that answers. It is not started for that.
    Dbus {
        /// The well-known name.
        name: String,
    },
    /// Whether a command ends with success.
    Command {
        /// The program and its arguments.
        arguments: Vec<String>,
    },
}

impl fmt::Display for Probe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.question {
            Question::Tcp { address, port } => write!(formatter, "tcp {address} port {port}"),
            Question::Http { url, status: None } => write!(formatter, "http {url}"),
            Question::Http { url, status: Some(status) } => {
                write!(formatter, "http {url} ({status})")
            }
            Question::Dbus { name } => write!(formatter, "dbus {name}"),
            Question::Command { arguments } => {
                write!(formatter, "command {}", arguments.join(" "))
            }
        }
    }
}

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookKind {
    /// Before and after the change: the update is put back when it fails.
    Required,
    /// The same, with a warning.
    Wanted,
    /// Once the update is kept.
    Green,
    /// Once it was put back, or could not be.
    Red,
}

impl HookKind {
    /// All kinds.
    pub const ALL: &[Self] = &[Self::Required, Self::Wanted, Self::Green, Self::Red];

    /// Its directory, below those of the configuration.
    pub fn directory(self) -> &'static str {
        match self {
            Self::Required => "check/required.d",
            Self::Wanted => "check/wanted.d",
            Self::Green => "green.d",
            Self::Red => "red.d",
        }
    }
}

/// A program of the admin or of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// When it runs.
    pub kind: HookKind,
    /// The file's name, which decides about the order.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Why it must not be run, where it must not.
    pub refused: Option<String>,
}

impl fmt::Display for Hook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.kind.directory(), self.name)
    }
}

/// What a hook is told, in its environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCall {
    /// `APT_OSTREE_TRANSACTION`
    pub transaction: TransactionId,
    /// `APT_OSTREE_PHASE`: `before` or `after` the change, or what the directory is called.
    pub phase: HookPhase,
    /// `APT_OSTREE_PACKAGES`: the packages that change, with blanks between.
    pub packages: Vec<String>,
    /// `APT_OSTREE_RESULT`: how it ended, once it has.
    pub result: Option<String>,
    /// `APT_OSTREE_REASON`: why it failed, where it has.
    pub reason: Option<String>,
}

/// At which time a hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookPhase {
    /// Before anything is changed on the host.
    Before,
    /// With the new tree and the restarted units.
    After,
    /// At the end.
    End,
}

impl HookPhase {
    /// As hooks are told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::End => "end",
        }
    }
}

/// The most of one variable: the kernel takes no more than 128 KiB of each (execve(2)).
const LONGEST_VARIABLE: usize = 64 * 1024;

impl HookCall {
    /// The variables, as `NAME=VALUE`.
    pub fn environment(&self) -> Vec<String> {
        let mut variables = vec![
            format!("APT_OSTREE_TRANSACTION={}", self.transaction),
            format!("APT_OSTREE_PHASE={}", self.phase.name()),
            format!("APT_OSTREE_PACKAGES={}", bounded(&self.packages.join(" "))),
        ];
        variables.extend(self.result.iter().map(|text| format!("APT_OSTREE_RESULT={text}")));
        let reason = self.reason.iter().map(|text| format!("APT_OSTREE_REASON={}", bounded(text)));
        variables.extend(reason);
        variables
    }
}

/// The text without control characters, cut between two words where it is too long.
fn bounded(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.len() <= LONGEST_VARIABLE {
        return text;
    }
    let end = (0..=LONGEST_VARIABLE).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let cut = &text[..end];
    cut.rsplit_once(' ').map_or(cut, |(whole, _)| whole).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(packages: Vec<String>, reason: Option<String>) -> HookCall {
        let transaction = TransactionId(7);
        HookCall { transaction, phase: HookPhase::After, packages, result: None, reason }
    }

    #[test]
    fn a_hook_is_told_what_changes_in_variables_of_one_line() {
        let told = call(vec!["a".to_owned(), "b".to_owned()], Some("x\ny\u{1b}".to_owned()));
        let expected = [
            "APT_OSTREE_TRANSACTION=7",
            "APT_OSTREE_PHASE=after",
            "APT_OSTREE_PACKAGES=a b",
            "APT_OSTREE_REASON=x y ",
        ];
        assert_eq!(told.environment(), expected);
    }

    #[test]
    fn what_is_too_long_for_a_variable_is_cut_between_packages() {
        let many: Vec<String> = (0..20_000).map(|n| format!("paket-ä{n}")).collect();
        let variables = call(many, None).environment();
        let packages = variables[2].strip_prefix("APT_OSTREE_PACKAGES=").unwrap();
        assert!(packages.len() <= LONGEST_VARIABLE && packages.len() > LONGEST_VARIABLE - 20);
        assert!(packages.split(' ').enumerate().all(|(n, name)| name == format!("paket-ä{n}")));
    }
}
