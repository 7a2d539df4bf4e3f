//! What a Ruby file requires: `Kernel#require`, `#require_relative`, `#load` and `#autoload`.

use super::{From, Named, Reference, quoted};

/// Reads the four with a text in quotation marks.
pub(super) fn references(text: &str) -> Vec<Reference> {
    let mut found = Named::default();
    for line in text.lines() {
        let line = line.trim_start();
        if line == "__END__" {
            break;
        }
        let end = line.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(line.len());
        let (word, rest) = line.split_at(end);
        let from = match word {
            "require" | "load" | "autoload" => From::SearchPath,
            "require_relative" => From::Above(0),
            _ => continue,
        };
        let Some(name) = quoted(rest).next().filter(|name| is_usable(name)) else { continue };
        let bare = name.strip_suffix(".rb").unwrap_or(name);
        let candidates = vec![format!("{bare}.rb")];
        found.push(Reference { from, candidates });
    }
    found.references
}

/// Whether it is a path that is looked for; what is put together of parts is not known here.
fn is_usable(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('/') && !name.contains("#{")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_read() {
        for (text, from, expected) in [
            ("require 'json'", From::SearchPath, Some("json.rb")),
            ("  require(\"net/http\")", From::SearchPath, Some("net/http.rb")),
            ("require_relative '../lib/x'", From::Above(0), Some("../lib/x.rb")),
            ("load 'x.rb'", From::SearchPath, Some("x.rb")),
            ("autoload :X, 'a/x'", From::SearchPath, Some("a/x.rb")),
            ("require \"#{x}/y\"", From::SearchPath, None),
            ("requires 'x'", From::SearchPath, None),
            ("__END__\nrequire 'x'", From::SearchPath, None),
        ] {
            let found = references(text);
            let first = found.first().map(|found| (found.from, found.candidates[0].as_str()));
            assert_eq!(first, expected.map(|name| (from, name)), "{text}");
        }
    }
}
