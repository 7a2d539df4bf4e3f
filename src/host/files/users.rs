//! The user databases of `/etc`, merged line by line: passwd(5), group(5), shadow(5), gshadow(5),
//! subuid(5), subgid(5).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How a database's lines are told apart and merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Database {
    /// A line a name; with the index of the field that holds the numeric id, where there is one.
    Names { id_field: Option<usize> },
    /// The same, and from this field on every field is a list of members, which is merged too.
    Members { id_field: Option<usize>, lists_from: usize },
    /// Several lines a name: a line is its own key.
    Lines,
}

/// The databases, by their path within `/etc`.
const DATABASES: &[(&str, Database)] = &[
    ("passwd", Database::Names { id_field: Some(2) }),
    ("shadow", Database::Names { id_field: None }),
    ("group", Database::Members { id_field: Some(2), lists_from: 3 }),
    ("gshadow", Database::Members { id_field: None, lists_from: 2 }),
    ("subuid", Database::Lines),
    ("subgid", Database::Lines),
];

/// The database at `path` within `/etc`.
pub(super) fn database(path: &Path) -> Option<Database> {
    DATABASES.iter().find(|(name, _)| path == Path::new(name)).map(|(_, database)| *database)
}

/// Whether `path` within `/etc` is a copy of a database that the tools keep, or their lock.
pub(super) fn is_backup_or_lock(path: &Path) -> bool {
    let Some(name) = path.to_str() else { return false };
    name == ".pwd.lock"
        || name
            .strip_suffix('-')
            .or_else(|| name.strip_suffix(".lock"))
            .is_some_and(|name| DATABASES.iter().any(|(database, _)| *database == name))
}

/// What came of a merge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Merged {
    /// The new text.
    pub(super) text: Vec<u8>,
    /// Names whose lines were changed on both sides; the host's stay.
    pub(super) kept: Vec<String>,
}

/// Merges the change from `base` to `theirs` into `ours`. Where nothing else changed the answer is
/// `theirs` byte for byte. Idempotent: merged into its own answer, the same change does nothing.
pub(super) fn merge(database: Database, base: &[u8], theirs: &[u8], ours: &[u8]) -> Merged {
    if base == ours {
        return Merged { text: theirs.to_owned(), kept: Vec::new() };
    }
    if base == theirs || ours == theirs {
        return Merged { text: ours.to_owned(), kept: Vec::new() };
    }
    let (base, theirs, ours) =
        (index(database, base), index(database, theirs), index(database, ours));
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut kept = Vec::new();
    let gone = gone(&base, &theirs, &ours);
    for (key, line) in &ours.lines {
        let (was, wanted) = (base.get(key), theirs.get(key));
        if wanted == was || wanted == Some(line) {
            lines.push(line.clone());
        } else if gone.contains(key) {
            // The update's removal.
        } else if let (true, Some(wanted)) = (was == Some(line), wanted) {
            lines.push(wanted.clone());
        } else {
            let both = merge_members(database, was, wanted, line);
            if both.is_none() {
                kept.push(name_of(line));
            }
            lines.push(both.unwrap_or_else(|| line.clone()));
        }
    }
    // New lines go in front of those that include a network's database: they come last.
    let at = lines.iter().position(|line| line.starts_with(b"+")).unwrap_or(lines.len());
    let mut added = Vec::new();
    let mut is_there: BTreeSet<&Key> = ours.by_key.keys().collect();
    for (key, line) in &theirs.lines {
        // A further line of a name only after the earlier ones, or it would be the first by the next time.
        let follows = key.1.checked_sub(1).is_none_or(|n| is_there.contains(&(key.0.clone(), n)));
        match (ours.get(key), base.get(key)) {
            (None, None) if follows => {
                is_there.insert(key);
                added.push(line.clone());
            }
            (None, None) => kept.push(name_of(line)),
            // Removed on the host, changed by the update.
            (None, Some(was)) if was != line => kept.push(name_of(line)),
            _ => {}
        }
    }
    lines.splice(at..at, added);
    let mut text = lines.join(&b'\n');
    if !text.is_empty() {
        text.push(b'\n');
    }
    Merged { text, kept }
}

/// The lines of `ours` that the change removes. Of several lines of one name only the last can go, or the
/// next one would stand for it by the next time.
fn gone<'a>(base: &Index, theirs: &Index, ours: &'a Index) -> BTreeSet<&'a Key> {
    let mut gone = BTreeSet::new();
    for (key, line) in ours.lines.iter().rev() {
        let next = (key.0.clone(), key.1 + 1);
        let is_last = ours.get(&next).is_none() || gone.contains(&next);
        if is_last && theirs.get(key).is_none() && base.get(key) == Some(line) {
            gone.insert(key);
        }
    }
    gone
}

/// `merged`, with the lines of `ours` that it lacks for one of `names`, each where it was.
pub(super) fn retain(
    database: Database,
    merged: &[u8],
    ours: &[u8],
    names: &BTreeSet<Vec<u8>>,
) -> Vec<u8> {
    let (merged, ours) = (index(database, merged), index(database, ours));
    let mut lines = Vec::new();
    for (key, line) in &ours.lines {
        match merged.get(key) {
            Some(merged) => lines.push(merged.clone()),
            None if names.contains(field(line, 0)) => lines.push(line.clone()),
            None => {}
        }
    }
    let at = lines.iter().position(|line| line.starts_with(b"+")).unwrap_or(lines.len());
    let added = merged.lines.iter().filter(|(key, _)| ours.get(key).is_none());
    lines.splice(at..at, added.map(|(_, line)| line.clone()));
    let mut text = lines.join(&b'\n');
    if !text.is_empty() {
        text.push(b'\n');
    }
    text
}

/// The names of `ours` that `merged` lacks, with their numeric ids.
pub(super) fn lost_ids(database: Database, merged: &[u8], ours: &[u8]) -> BTreeMap<Vec<u8>, u32> {
    let (Database::Names { id_field: Some(number) }
    | Database::Members { id_field: Some(number), .. }) = database
    else {
        return BTreeMap::new();
    };
    let merged = index(database, merged);
    let lost = index(database, ours).lines.into_iter().filter(|(key, _)| merged.get(key).is_none());
    lost.filter_map(|(_, line)| {
        let id = std::str::from_utf8(line.split(|byte| *byte == b':').nth(number)?).ok()?;
        Some((field(&line, 0).to_owned(), id.parse().ok()?))
    })
    .collect()
}

/// Names that `merged` has and `ours` has not, whose id is another name's in `ours`. An id that the
/// update itself gives to both names is meant to be so.
pub(super) fn clashes(database: Database, theirs: &[u8], ours: &[u8]) -> Vec<String> {
    let (Database::Names { id_field: Some(field) }
    | Database::Members { id_field: Some(field), .. }) = database
    else {
        return Vec::new();
    };
    let (theirs, ours) = (ids(theirs, field), ids(ours, field));
    let mut clashes = Vec::new();
    for (name, id) in &theirs {
        if ours.contains_key(name) {
            continue;
        }
        let holder = ours.iter().find(|(other, taken)| {
            *taken == id && theirs.get(*other).is_none_or(|elsewhere| elsewhere != id)
        });
        if let Some((holder, _)) = holder {
            clashes.push(format!("{name:?} needs id {id:?}, which {holder:?} has by now"));
        }
    }
    clashes
}

/// Names of users or groups of `text` and their ids.
fn ids(text: &[u8], field: usize) -> BTreeMap<String, String> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let id = line.split(|byte| *byte == b':').nth(field)?;
            Some((name_of(line), shorten(id)))
        })
        .collect()
}

#[derive(Debug)]
struct Index {
    lines: Vec<(Key, Vec<u8>)>,
    by_key: BTreeMap<Key, usize>,
}

/// The name, and how many lines with that name come before.
type Key = (Vec<u8>, usize);

impl Index {
    fn get(&self, key: &Key) -> Option<&Vec<u8>> {
        self.by_key.get(key).map(|at| &self.lines[*at].1)
    }
}

fn index(database: Database, text: &[u8]) -> Index {
    let mut seen: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut index = Index { lines: Vec::new(), by_key: BTreeMap::new() };
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.is_empty() {
        return index;
    }
    for line in text.split(|byte| *byte == b'\n') {
        let name = match database {
            Database::Lines => line,
            Database::Names { .. } | Database::Members { .. } => field(line, 0),
        };
        let count = seen.entry(name.to_owned()).or_default();
        let key = (name.to_owned(), *count);
        *count += 1;
        index.by_key.insert(key.clone(), index.lines.len());
        index.lines.push((key, line.to_owned()));
    }
    index
}

fn field(line: &[u8], number: usize) -> &[u8] {
    line.split(|byte| *byte == b':').nth(number).unwrap_or_default()
}

/// Merges member lists, when nothing but them was changed on both sides.
fn merge_members(
    database: Database,
    base: Option<&Vec<u8>>,
    theirs: Option<&Vec<u8>>,
    ours: &[u8],
) -> Option<Vec<u8>> {
    let Database::Members { lists_from, .. } = database else { return None };
    let split = |line: &[u8]| -> Vec<Vec<u8>> {
        line.split(|byte| *byte == b':').map(<[u8]>::to_vec).collect()
    };
    let (base, theirs, ours) = (split(base?), split(theirs?), split(ours));
    if base.len() != ours.len() || theirs.len() != ours.len() {
        return None;
    }
    let mut merged = Vec::with_capacity(ours.len());
    for (number, our) in ours.iter().enumerate() {
        let (was, wanted) = (&base[number], &theirs[number]);
        merged.push(if wanted == was || wanted == our {
            our.clone()
        } else if our == was {
            wanted.clone()
        } else if number >= lists_from {
            merge_list(was, wanted, our)
        } else {
            return None;
        });
    }
    Some(merged.join(&b':'))
}

fn merge_list(base: &[u8], theirs: &[u8], ours: &[u8]) -> Vec<u8> {
    let split = |list: &[u8]| -> Vec<Vec<u8>> {
        list.split(|byte| *byte == b',')
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    };
    let (base, theirs, mut ours) = (split(base), split(theirs), split(ours));
    let set = |names: &[Vec<u8>]| names.iter().cloned().collect::<BTreeSet<_>>();
    let (base, wanted) = (set(&base), (set(&theirs), theirs));
    ours.retain(|name| wanted.0.contains(name) || !base.contains(name));
    for name in wanted.1 {
        if !base.contains(&name) && !ours.contains(&name) {
            ours.push(name);
        }
    }
    ours.join(&b',')
}

fn name_of(line: &[u8]) -> String {
    shorten(field(line, 0))
}

/// Names end up in messages.
fn shorten(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_change_is_merged_line_by_line() {
        let passwd = Database::Names { id_field: Some(2) };
        let group = Database::Members { id_field: Some(2), lists_from: 3 };
        for (database, base, theirs, ours, expected, kept) in [
            (passwd, "a:1\n", "a:1\nb:2\n", "a:1\n", "a:1\nb:2\n", 0),
            (passwd, "a:1\n", "a:1\nb:2\n", "a:1\nc:3\n", "a:1\nc:3\nb:2\n", 0),
            (passwd, "a:1\nb:2\n", "a:1\n", "a:1\nb:2\nc:3\n", "a:1\nc:3\n", 0),
            (passwd, "a:1\n", "a:2\n", "a:3\n", "a:3\n", 1),
            (passwd, "a:1\nb:1\n", "a:2\nb:1\n", "b:1\n", "b:1\n", 1),
            (passwd, "a:1\n", "a:1\nb:2\n", "x:9\na:1\n+::\n", "x:9\na:1\nb:2\n+::\n", 0),
            (group, "g:x:4:a\n", "g:x:4:a,b\n", "g:x:4:a,c\n", "g:x:4:a,c,b\n", 0),
            (group, "g:x:4:a,b\n", "g:x:4:b\n", "g:x:4:a,b,c\n", "g:x:4:b,c\n", 0),
            (group, "g:x:4:a\n", "g:x:5:a\n", "g:x:6:a\n", "g:x:6:a\n", 1),
            (
                Database::Lines,
                "a:1:2\n",
                "a:1:2\na:5:6\n",
                "b:1:2\na:1:2\n",
                "b:1:2\na:1:2\na:5:6\n",
                0,
            ),
            (passwd, "", "a:1", "b:2", "b:2\na:1\n", 0),
            // The same name twice: nobody's tool writes that, but nobody's line is lost.
            (passwd, "a:1\nb:2\n", "b:3\n", "a:1\na:1\n", "a:1\na:1\n", 2),
            (passwd, "a:1\na:2\nb:1\n", "b:1\n", "a:1\na:2\nb:4\n", "b:4\n", 0),
        ] {
            let merge = |ours: &[u8]| merge(database, base.as_bytes(), theirs.as_bytes(), ours);
            let merged = merge(ours.as_bytes());
            assert_eq!(
                String::from_utf8_lossy(&merged.text),
                expected,
                "{base:?} {theirs:?} {ours:?}"
            );
            assert_eq!(merged.kept.len(), kept, "{base:?} {theirs:?} {ours:?}");
            assert_eq!(
                merge(&merged.text).text,
                merged.text,
                "twice: {base:?} {theirs:?} {ours:?}"
            );
        }
    }

    #[test]
    fn an_id_clashes_only_with_a_name_that_the_update_does_not_know_of() {
        let passwd = Database::Names { id_field: Some(2) };
        for (theirs, ours, clashing) in [
            ("a:x:1\nb:x:2\n", "a:x:1\n", 0),
            ("a:x:1\nb:x:2\n", "a:x:1\nc:x:2\n", 1),
            ("root:x:0\ntoor:x:0\n", "root:x:0\n", 0),
            ("a:x:1\n", "a:x:1\nc:x:1\n", 0),
        ] {
            let found = clashes(passwd, theirs.as_bytes(), ours.as_bytes());
            assert_eq!(found.len(), clashing, "{theirs:?} {ours:?} {found:?}");
        }
    }

    #[test]
    fn copies_and_locks_of_the_databases_are_known() {
        for (path, known) in [
            ("passwd-", true),
            ("gshadow-", true),
            (".pwd.lock", true),
            ("group.lock", true),
            ("passwd", false),
            ("other-", false),
            ("sub/passwd-", false),
        ] {
            assert_eq!(is_backup_or_lock(Path::new(path)), known, "{path}");
        }
    }
}
