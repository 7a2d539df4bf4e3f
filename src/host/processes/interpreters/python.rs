//! What a Python file imports: the language reference's chapter "The import statement".

use super::{From, Named, Reference};

/// How many lines a parenthesis of names may have.
const LONGEST_LIST: usize = 500;
/// How many names of one import count.
const MOST_NAMES: usize = 500;
/// How long a dotted name may be that counts. It stands for a file of each of its parts, so the paths of
/// a longer one are many.
const LONGEST_NAME: usize = 255;

/// Reads `import a.b as c, d` and `from .a import b, c`, wherever they stand.
pub(super) fn references(text: &str) -> Vec<Reference> {
    let mut found = Named::default();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = statement(line);
        if let Some(names) = after_word(line, "import") {
            let modules = names.split(',').filter_map(first_word);
            found.extend(modules.map(|module| searched(&module_files(module))));
        } else if let Some((module, names)) = after_word(line, "from").and_then(split_from) {
            let mut names = names.to_owned();
            if names.starts_with('(') && !names.contains(')') {
                for more in lines.by_ref().take(LONGEST_LIST) {
                    let more = statement(more);
                    names.push(' ');
                    names.push_str(more);
                    if more.contains(')') {
                        break;
                    }
                }
            }
            found.extend(from(module, &names));
        }
    }
    found.references
}

/// A line without its indentation and comment.
fn statement(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

/// What follows the word, if the line begins with it.
fn after_word<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(word)?;
    rest.starts_with([' ', '\t']).then(|| rest.trim_start())
}

/// `MODULE import NAMES`
fn split_from(text: &str) -> Option<(&str, &str)> {
    let (module, rest) = text.split_once([' ', '\t'])?;
    Some((module, after_word(rest.trim_start(), "import")?))
}

/// The first word of one of several names, if it is one: `a.b as c`.
fn first_word(text: &str) -> Option<&str> {
    let word = text.trim_matches(|c: char| c.is_whitespace() || "()\\;".contains(c));
    let word = word.split([' ', '\t', ';']).next()?;
    is_dotted(word).then_some(word)
}

fn is_dotted(name: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_');
    name.len() <= LONGEST_NAME && name.split('.').all(is_part)
}

/// A module and the names from it, each of which may be a module in turn.
fn from(module: &str, names: &str) -> Option<Reference> {
    let plain = module.trim_start_matches('.');
    let dots = module.len() - plain.len();
    if !plain.is_empty() && !is_dotted(plain) {
        return None;
    }
    let mut candidates = if plain.is_empty() { Vec::new() } else { module_files(plain) };
    let directory = plain.replace('.', "/");
    let names = names.split(',').filter_map(first_word).filter(|name| !name.contains('.'));
    for name in names.take(MOST_NAMES) {
        let path =
            if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
        candidates.push(format!("{path}.py"));
        candidates.push(format!("{path}/__init__.py"));
    }
    if dots == 0 {
        return Some(searched(&candidates));
    }
    if plain.is_empty() {
        candidates.push("__init__.py".to_owned());
    }
    Some(Reference { from: From::Above(dots - 1), candidates })
}

fn searched(candidates: &[String]) -> Reference {
    Reference { from: From::SearchPath, candidates: candidates.to_vec() }
}

/// The files of a module that is run as a program, `python3 -m NAME`; none of what is no name.
pub(super) fn program_files(module: &str) -> Vec<String> {
    if !is_dotted(module) {
        return Vec::new();
    }
    let path = module.replace('.', "/");
    let mut files = vec![format!("{path}/__main__.py"), format!("{path}.py")];
    files.extend(module_files(module));
    files
}

/// The files of a module and of the packages that it is in: `a/__init__.py`, `a/b.py`, ….
fn module_files(module: &str) -> Vec<String> {
    let mut files = Vec::new();
    let mut path = String::new();
    for part in module.split('.') {
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(part);
        files.push(format!("{path}/__init__.py"));
        files.push(format!("{path}.py"));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> Vec<String> {
        references(text).into_iter().flat_map(|reference| reference.candidates).collect()
    }

    #[test]
    fn imports_of_every_form_are_read() {
        for (text, expected) in [
            ("import os", &["os/__init__.py", "os.py"][..]),
            ("    import os  # why", &["os/__init__.py", "os.py"]),
            (
                "import a.b as c, d",
                &["a/__init__.py", "a.py", "a/b/__init__.py", "a/b.py", "d/__init__.py", "d.py"],
            ),
            ("from a import b", &["a/__init__.py", "a.py", "a/b.py", "a/b/__init__.py"]),
            ("from a import *", &["a/__init__.py", "a.py"]),
            (
                "from a import (\n  b, # x\n  c,\n)\nimport d",
                &[
                    "a/__init__.py",
                    "a.py",
                    "a/b.py",
                    "a/b/__init__.py",
                    "a/c.py",
                    "a/c/__init__.py",
                    "d/__init__.py",
                    "d.py",
                ],
            ),
            ("important = 1", &[]),
            ("from_here import x", &[]),
            ("x = 'import os'", &[]),
            ("from ../x import y", &[]),
            ("import /etc/passwd", &[]),
            ("import", &[]),
            ("from a import (", &["a/__init__.py", "a.py"]),
        ] {
            assert_eq!(files(text), expected, "{text}");
        }
    }

    #[test]
    fn what_nobody_writes_by_hand_takes_no_more_memory_than_it_is_worth() {
        let deep = "a.".repeat(60_000) + "a";
        assert_eq!(program_files(&deep), Vec::<String>::new());
        assert_eq!(program_files("a.b").len(), 6);
        assert_eq!(files(&format!("import {deep}\nfrom {deep} import x")), Vec::<String>::new());
        let many = "x,".repeat(700_000);
        let module = "a.".repeat(50) + "a";
        for text in [
            format!("from . import {many}"),
            format!("from {module} import {many}"),
            format!("import {many}"),
            format!("import {module}\n").repeat(8_000),
            format!("from {module} import x, y, z\n").repeat(8_000),
        ] {
            let bytes: usize = references(&text).iter().map(Reference::bytes).sum();
            assert!(bytes > 0 && bytes <= super::super::MOST_NAMED_BYTES, "{bytes}");
        }
    }

    #[test]
    fn relative_imports_begin_above_the_file() {
        for (text, above, first) in [
            ("from . import a", 0, "a.py"),
            ("from .a import b", 0, "a/__init__.py"),
            ("from ...a import b", 2, "a/__init__.py"),
        ] {
            let found = references(text);
            assert_eq!(found[0].from, From::Above(above), "{text}");
            assert_eq!(found[0].candidates[0], first, "{text}");
        }
    }
}
