//! The one line of JSON that a command ends with.

use std::fmt::Write as _;
use std::io::Write as _;

/// What a command did.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// Whether anything was changed; a command that finds its work done changes nothing.
    pub(crate) changed: bool,
    /// How long the step took that other processes can see, in nanoseconds.
    pub(crate) step_nanos: u64,
    /// Mounts on `/usr` afterwards.
    pub(crate) layers: usize,
    /// Mount points below `/usr` that were carried over.
    pub(crate) carried: Vec<String>,
}

impl Reply {
    pub(crate) fn unchanged(layers: usize) -> Self {
        Self { layers, ..Self::default() }
    }

    pub(crate) fn print(&self) {
        let carried: Vec<String> = self.carried.iter().map(|path| quote(path)).collect();
        print_line(&format!(
            "{{\"changed\":{},\"step_nanos\":{},\"layers\":{},\"carried\":[{}]}}",
            self.changed,
            self.step_nanos,
            self.layers,
            carried.join(",")
        ));
    }
}

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) struct Trouble {
    code: &'static str,
    message: String,
}

impl Trouble {
    /// The command line makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: "Internal", message: message.into() }
    }

    /// Something else is mounted on `/usr`.
    pub(crate) fn foreign(what: &str) -> Self {
        Self { code: "ForeignMount", message: format!("{what} is mounted on /usr") }
    }

    /// It cannot be done, or a call failed.
    pub(crate) fn switch(message: impl Into<String>) -> Self {
        Self { code: "SwitchFailed", message: message.into() }
    }

    pub(crate) fn print(&self) {
        print_line(&format!(
            "{{\"code\":{},\"message\":{}}}",
            quote(self.code),
            quote(&self.message)
        ));
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

/// Turns an error of a call into trouble that says what was tried.
pub(crate) trait Tried<T> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T, Trouble>;
}

impl<T, E: std::fmt::Display> Tried<T> for Result<T, E> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T, Trouble> {
        self.map_err(|error| Trouble::switch(format!("cannot {}: {error}", what())))
    }
}

fn print_line(line: &str) {
    // When nobody reads any more there is nobody to tell; the exit status still says how it went.
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(74);
    }
}

fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(character);
            }
            control if control < ' ' => {
                // Writing to a string cannot fail.
                write!(quoted, "\\u{:04x}", u32::from(control)).unwrap_or(());
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn text_is_quoted_as_json_wants_it() {
        assert_eq!(quote("a \"b\" \\ \n\u{1}\u{e4}"), "\"a \\\"b\\\" \\\\ \\u000a\\u0001\u{e4}\"");
    }
}
