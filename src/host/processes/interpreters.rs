//! What interpreters have read: their program and the modules that it names, as the command line and
//! the text of the files tell.
//!
//! An interpreter reads a file once and closes it; nothing in `/proc` shows it afterwards. So the
//! program is taken from the arguments, and what it names is looked for where the interpreter does,
//! from file to file. No interpreter is ever run for it. What is not seen: names that are put together
//! while the program runs, files that a title in place of the arguments hides, and modules of a Java
//! program inside its archives, which count as the archive. An import that was never reached counts.

mod arguments;
mod node;
mod perl;
mod python;
mod ruby;
mod search;
mod sources;

use std::path::Path;

pub(super) use arguments::{Program, Started};
pub(super) use search::{Resolved, Root};
pub(super) use sources::Sources;

/// What an interpreter interprets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Language {
    Python,
    Perl,
    Ruby,
    Node,
    Java,
    Shell,
}

impl Language {
    /// By the file that the process executes; what follows the name is a version.
    pub(super) fn of(program: &Path) -> Option<Self> {
        let name = program.file_name()?.to_str()?;
        let name = name.strip_suffix(" (deleted)").unwrap_or(name);
        let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        match bare {
            "python" | "pypy" => Some(Self::Python),
            "perl" => Some(Self::Perl),
            "ruby" => Some(Self::Ruby),
            "node" | "nodejs" => Some(Self::Node),
            "java" => Some(Self::Java),
            "sh" | "bash" | "dash" | "ksh" | "zsh" | "mksh" => Some(Self::Shell),
            _ => None,
        }
    }
}

/// How much of what one file names counts, in bytes of the paths: some ten times what is in the largest
/// programs that are written by people.
const MOST_NAMED_BYTES: usize = 256 * 1024;
/// What a path takes besides its bytes.
const PATH_BYTES: usize = 32;

/// What one file names, as far as it counts.
#[derive(Debug, Default)]
struct Named {
    references: Vec<Reference>,
    bytes: usize,
}

impl Named {
    fn push(&mut self, reference: Reference) {
        self.bytes = self.bytes.saturating_add(reference.bytes());
        if self.bytes <= MOST_NAMED_BYTES {
            self.references.push(reference);
        }
    }
}

impl Extend<Reference> for Named {
    fn extend<T: IntoIterator<Item = Reference>>(&mut self, references: T) {
        references.into_iter().for_each(|reference| self.push(reference));
    }
}

/// What one file names: paths without a directory of their own. Each that is there counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reference {
    /// Where they are looked for.
    from: From,
    /// What they may be called.
    candidates: Vec<String>,
}

impl Reference {
    /// What it takes in memory.
    fn bytes(&self) -> usize {
        let paths = self.candidates.iter().map(|path| PATH_BYTES + path.len());
        size_of::<Self>() + paths.sum::<usize>()
    }
}

/// Where a name is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum From {
    /// Along the interpreter's search path.
    SearchPath,
    /// So many directories above the file's own.
    Above(usize),
}

/// Reads what the text of a file names.
fn references(language: Language, text: &str) -> Vec<Reference> {
    match language {
        Language::Python => python::references(text),
        Language::Perl => perl::references(text),
        Language::Ruby => ruby::references(text),
        Language::Node => node::references(text),
        // Archives are not read, and shell scripts name little by name.
        Language::Java | Language::Shell => Vec::new(),
    }
}

/// The texts between quotation marks of either kind.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find(['"', '\''])?;
        let mark = rest.as_bytes()[start];
        let after = &rest[start + 1..];
        let end = after.find(char::from(mark))?;
        rest = &after[end + 1..];
        Some(&after[..end])
    })
}

/// Reads these bytes as the arguments of an interpreter and as a program of it.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for language in [
        Language::Python,
        Language::Perl,
        Language::Ruby,
        Language::Node,
        Language::Java,
        Language::Shell,
    ] {
        drop(Program::of(language, data));
        for reference in references(language, &text) {
            assert!(!reference.candidates.is_empty(), "{reference:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_known_by_their_files() {
        for (path, language) in [
            ("/usr/bin/python3.11", Some(Language::Python)),
            ("/usr/bin/python3.11 (deleted)", Some(Language::Python)),
            ("/usr/bin/perl", Some(Language::Perl)),
            ("/usr/bin/perl5.36.0", Some(Language::Perl)),
            ("/usr/bin/ruby3.1", Some(Language::Ruby)),
            ("/usr/bin/node", Some(Language::Node)),
            ("/usr/lib/jvm/java-17-openjdk-amd64/bin/java", Some(Language::Java)),
            ("/usr/bin/dash", Some(Language::Shell)),
            ("/usr/sbin/nginx", None),
            ("/usr/bin/python3-config", None),
            ("/", None),
        ] {
            assert_eq!(Language::of(Path::new(path)), language, "{path}");
        }
    }

    #[test]
    fn quoted_texts_are_found_with_either_mark() {
        let found: Vec<&str> = quoted("require 'a', \"b'c\" + 'open").collect();
        assert_eq!(found, ["a", "b'c"]);
    }
}
