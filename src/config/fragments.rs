//! Finds fragments, merges them, and finds where in them something stands.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::rules::Complaint;
use super::{Config, Problem};

/// Where fragments are, below the root.
const DIRECTORIES: &[&str] = &["usr/lib/apt-ostree/config.d", "etc/apt-ostree/config.d"];
/// The admin's main file; read between the two directories.
const MAIN_FILE: &str = "etc/apt-ostree/config.toml";

/// The fragments of a host, in the order in which they are merged. Each is understood by itself.
#[derive(Debug)]
pub(super) struct Fragments(Vec<Fragment>);

#[derive(Debug)]
struct Fragment {
    path: PathBuf,
    text: String,
    table: Table,
}

impl Fragments {
    /// Reads all of them; answers what is wrong with each that cannot be read.
    pub(super) fn read(root: &Path) -> Result<Self, Vec<Problem>> {
        let (mut fragments, mut problems) = (Vec::new(), Vec::new());
        for path in paths(root).map_err(|problem| vec![problem])? {
            match Fragment::read(path) {
                Ok(fragment) => fragments.push(fragment),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(Self(fragments)) } else { Err(problems) }
    }

    /// All of them as one.
    pub(super) fn merged(&self) -> Result<Config, Vec<Problem>> {
        let mut merged = Table::new();
        for fragment in &self.0 {
            merge(&mut merged, fragment.table.clone());
        }
        Value::Table(merged).try_into().map_err(|error: toml::de::Error| {
            let file = self.0.last().map(|fragment| fragment.path.clone()).unwrap_or_default();
            vec![Problem::error(file, None, error.message())]
        })
    }

    /// Where the value stands that is complained about: in the last fragment that has it.
    pub(super) fn locate(&self, complaint: Complaint) -> Problem {
        let Complaint { key, text } = complaint;
        let key: Vec<&str> = key.iter().map(String::as_str).collect();
        let found = self.0.iter().filter_map(|fragment| Some((fragment, fragment.find(&key)?)));
        // The deepest, and of these the last.
        let found = found.max_by_key(|(_, (depth, _))| *depth);
        let (path, line) = found.map_or_else(
            || (PathBuf::from("/").join(MAIN_FILE), None),
            |(fragment, (_, span))| (fragment.path.clone(), Some(line_of(&fragment.text, &span))),
        );
        Problem::error(path, line, &text)
    }
}

impl Fragment {
    fn read(path: PathBuf) -> Result<Self, Problem> {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Problem::error(&path, None, &format!("cannot be read: {error}")))?;
        match parse(&text) {
            Ok(table) => Ok(Self { path, text, table }),
            Err(error) => {
                let line = error.span().map(|span| line_of(&text, &span));
                Err(Problem::error(path, line, error.message()))
            }
        }
    }

    /// How much of the key this fragment has, and where that stands.
    fn find(&self, key: &[&str]) -> Option<(usize, Range<usize>)> {
        let table = DeTable::parse(&self.text).ok()?;
        let (first, rest) = key.split_first()?;
        let (name, value) = entry(table.get_ref(), first)?;
        Some(find_in(value, name.span(), rest, 1))
    }
}

/// Checks a fragment by itself, so that an error has a line.
fn parse(text: &str) -> Result<Table, toml::de::Error> {
    toml::from_str::<Config>(text)?;
    toml::from_str(text)
}

fn entry<'t, 'i>(
    table: &'t DeTable<'i>,
    name: &str,
) -> Option<(&'t Spanned<toml::de::DeString<'i>>, &'t Spanned<DeValue<'i>>)> {
    table.iter().find(|(key, _)| key.get_ref().as_ref() == name)
}

/// A table is where its name stands, an element of an array where it stands itself.
fn find_in(
    value: &Spanned<DeValue<'_>>,
    place: Range<usize>,
    key: &[&str],
    depth: usize,
) -> (usize, Range<usize>) {
    let Some((first, rest)) = key.split_first() else { return (depth, place) };
    match value.get_ref() {
        DeValue::Table(table) => match entry(table, first) {
            Some((name, inner)) => find_in(inner, name.span(), rest, depth + 1),
            None => (depth, place),
        },
        DeValue::Array(array) => match first.parse().ok().and_then(|index: usize| array.get(index))
        {
            Some(inner) => find_in(inner, inner.span(), rest, depth + 1),
            None => (depth, place),
        },
        _ => (depth, place),
    }
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    let before = text.as_bytes().iter().take(span.start);
    1 + before.filter(|byte| **byte == b'\n').count()
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(more)) => merge(inner, more),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// The fragments that are there, in the order in which they are merged.
pub(super) fn paths(root: &Path) -> Result<Vec<PathBuf>, Problem> {
    let mut paths = Vec::new();
    for (index, directory) in DIRECTORIES.iter().enumerate() {
        if index == 1 {
            // A link that leads nowhere, or where nothing can be read, is no file that is not there.
            let main = Some(root.join(MAIN_FILE));
            let is_missing = |error: std::io::Error| error.kind() == ErrorKind::NotFound;
            let is_there = |path: &PathBuf| !path.symlink_metadata().is_err_and(is_missing);
            paths.extend(main.filter(is_there));
        }
        let directory = root.join(directory);
        let unreadable = |error: std::io::Error| {
            Problem::error(&directory, None, &format!("cannot be read: {error}"))
        };
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(unreadable(error)),
        };
        let mut here = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(unreadable)?;
        here.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        here.sort();
        paths.append(&mut here);
    }
    Ok(paths)
}

#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(text: &str) {
    let Ok(table) = parse(text) else { return };
    let mut merged = table.clone();
    merge(&mut merged, table.clone());
    assert_eq!(merged, table);
    let (path, text) = (PathBuf::from("fuzz"), text.to_owned());
    let fragments = Fragments(vec![Fragment { path, text, table }]);
    if let Ok(config) = fragments.merged() {
        for complaint in super::rules::complaints(&config) {
            assert!(fragments.locate(complaint).line.is_some());
        }
        drop(config.probes());
    }
}
