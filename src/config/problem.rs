use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// The longest text: what is wrong repeats words of the file, which may hold anything.
const LONGEST_TEXT: usize = 400;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The configuration is not used.
    Error,
    /// It is used, but may not be what was meant.
    Warning,
}

/// Something that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1 on.
    pub line: Option<usize>,
    /// What is wrong, in one bounded line.
    pub text: String,
}

impl Problem {
    /// An error in a file.
    pub fn error(file: impl Into<PathBuf>, line: Option<usize>, text: &str) -> Self {
        Self { severity: Severity::Error, file: file.into(), line, text: one_line(text) }
    }

    /// The same as part of a sentence.
    pub fn sentence(&self) -> String {
        let line = self.line.map(|line| format!(", line {line}")).unwrap_or_default();
        format!("{}{line}: {}", self.file.display(), self.text)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(formatter, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(formatter, ":{line}")?;
        }
        write!(formatter, ": {severity}: {}", self.text)
    }
}

fn one_line(text: &str) -> String {
    let text = text.replace(|c: char| c.is_control(), " ");
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(LONGEST_TEXT).collect()
}
