//! What a Perl file uses: perlfunc(1), `use` and `require`.

use super::{From, Named, Reference, quoted};

/// Reads `use A::B …;`, `require A::B;`, `require "a.pl";` and `use parent qw(A B);`.
pub(super) fn references(text: &str) -> Vec<Reference> {
    let mut found = Named::default();
    for line in text.lines() {
        let line = line.trim_start();
        if matches!(line, "__END__" | "__DATA__") {
            break;
        }
        for statement in line.split(';') {
            read(statement.trim(), &mut found);
        }
    }
    found.references
}

fn read(statement: &str, found: &mut Named) {
    let Some((word, rest)) = statement.split_once([' ', '\t']) else { return };
    if !matches!(word, "use" | "require" | "no") {
        return;
    }
    let rest = rest.trim_start();
    if word == "require" && rest.starts_with(['"', '\'']) {
        let names = quoted(rest).filter(|name| is_relative(name));
        found.extend(names.map(|name| searched(name.to_owned())));
        return;
    }
    let end = rest.find(|c: char| !(is_of_name(c) || c == ':')).unwrap_or(rest.len());
    let (module, arguments) = rest.split_at(end);
    found.extend(file_of(module).map(searched));
    if matches!(module, "parent" | "base") {
        let is_between = |c: char| !(is_of_name(c) || c == ':');
        let names = arguments.split(is_between).filter(|name| !matches!(*name, "qw" | "norequire"));
        found.extend(names.filter_map(file_of).map(searched));
    }
}

fn is_of_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// `A/B.pm` of `A::B`; none of a version.
fn file_of(module: &str) -> Option<String> {
    let is_name = module.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let is_version = module
        .strip_prefix('v')
        .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit()));
    (is_name && !is_version && !module.ends_with(':'))
        .then(|| format!("{}.pm", module.replace("::", "/")))
}

fn is_relative(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('/') && !name.contains("..")
}

fn searched(file: String) -> Reference {
    Reference { from: From::SearchPath, candidates: vec![file] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_and_requirements_are_read() {
        for (text, expected) in [
            ("use strict;", &["strict.pm"][..]),
            ("use Net::Server::PreFork 0.9 qw(x);", &["Net/Server/PreFork.pm"]),
            ("  require Foo::Bar; use Baz;", &["Foo/Bar.pm", "Baz.pm"]),
            ("use parent qw(A::B C);", &["parent.pm", "A/B.pm", "C.pm"]),
            ("use base 'A';", &["base.pm", "A.pm"]),
            ("require \"lib/x.pl\";", &["lib/x.pl"]),
            ("require '/etc/x';", &[]),
            ("require '../x';", &[]),
            ("use 5.010;\nuse v5;", &[]),
            ("user me;", &[]),
            ("__END__\nuse strict;", &[]),
            ("use", &[]),
        ] {
            let found: Vec<String> =
                references(text).into_iter().flat_map(|reference| reference.candidates).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
