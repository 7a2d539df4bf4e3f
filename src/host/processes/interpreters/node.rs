//! What a file of Node.js loads: its manual's chapters "Modules: `CommonJS` modules" and "Modules:
//! Packages".

use super::{From, Named, Reference, quoted};

/// Reads `require('x')`, `import … from 'x'`, `import 'x'` and `export … from 'x'`. A package is
/// told by its `package.json`, which every new version of it changes.
pub(super) fn references(text: &str) -> Vec<Reference> {
    let mut found = Named::default();
    for line in text.lines() {
        for part in line.split("require(").skip(1) {
            found.extend(quoted(part).next().and_then(reference));
        }
        let line = line.trim_start();
        if !(line.starts_with("import ") || line.starts_with("export ") || line.starts_with('}')) {
            continue;
        }
        let name = line.split(" from ").nth(1).or_else(|| line.strip_prefix("import "));
        found.extend(name.and_then(|name| quoted(name).next()).and_then(reference));
    }
    found.references
}

fn reference(name: &str) -> Option<Reference> {
    if name.is_empty() || name.starts_with(['/', '#']) || name.contains("${") {
        return None;
    }
    if name.starts_with("./") || name.starts_with("../") {
        let plain = name.trim_start_matches("./");
        let candidates = ["", ".js", ".mjs", ".cjs", "/index.js"];
        let candidates = candidates.map(|end| format!("{plain}{end}"));
        return Some(Reference { from: From::Above(0), candidates: candidates.to_vec() });
    }
    let mut parts = name.splitn(3, '/');
    let first = parts.next()?;
    let package = match (first.starts_with('@'), parts.next()) {
        (true, Some(second)) => format!("{first}/{second}"),
        _ => first.to_owned(),
    };
    let candidates = vec![format!("{package}/package.json"), format!("{package}.js")];
    Some(Reference { from: From::SearchPath, candidates })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_read_whatever_loads_them() {
        for (text, from, expected) in [
            ("const x = require('./lib/x')", From::Above(0), Some("lib/x")),
            ("require(\"../y\")", From::Above(0), Some("../y")),
            ("import a from 'express'", From::SearchPath, Some("express/package.json")),
            ("import { a } from '@x/y/z'", From::SearchPath, Some("@x/y/package.json")),
            ("import 'side-effect'", From::SearchPath, Some("side-effect/package.json")),
            ("export * from './a.js'", From::Above(0), Some("a.js")),
            ("require(name)", From::Above(0), None),
            ("require('/etc/x')", From::Above(0), None),
            ("important('x')", From::Above(0), None),
        ] {
            let found = references(text);
            let first = found.first().map(|found| (found.from, found.candidates[0].as_str()));
            assert_eq!(first, expected.map(|name| (from, name)), "{text}");
        }
    }
}
