//! Rollback points, and what differs between two states.

use std::io::{self, Write};

use apt_ostree_proto::difference::{Change, ChangedFile, Difference};
use apt_ostree_proto::point::Point;

use super::history::{Users, date};
use super::{changes, section, table};
use crate::cli::terminal::one_line;

/// Where the defaults of `/etc` are.
const DEFAULTS_OF_ETC: &str = "/usr/etc";

/// Named points.
pub(in crate::cli) fn points(out: &mut dyn Write, points: &[Point]) -> io::Result<()> {
    if points.is_empty() {
        return writeln!(out, "No rollback point has a name.");
    }
    let mut table = table(&["NAME", "AFTER", "COMMIT", "NAMED", "BY"]);
    let mut users = Users::default();
    for point in points {
        let after = if point.after.0 == 0 { "-".to_owned() } else { point.after.to_string() };
        table.add_row([
            point.name.to_string(),
            after,
            point.commit.short().to_owned(),
            date(point.named_seconds),
            users.name(point.uid),
        ]);
    }
    writeln!(out, "{}", table.trim_fmt())
}

/// One of them.
pub(in crate::cli) fn point(out: &mut dyn Write, point: &Point) -> io::Result<()> {
    points(out, std::slice::from_ref(point))
}

/// What differs between two states.
pub(in crate::cli) fn difference(out: &mut dyn Write, found: &Difference) -> io::Result<()> {
    let Difference { old, new, packages, tree } = found;
    for (mark, side) in [('-', old), ('+', new)] {
        writeln!(out, "{mark} {} ({})", one_line(&side.name), side.commit.short())?;
    }
    if old.commit == new.commit {
        return writeln!(out, "Nothing differs.");
    }
    changes(out, packages)?;
    section(out, "Units", &tree.units, |unit| format!("{} {}", mark(unit.change), unit.unit))?;
    left_out(out, tree.units_left_out)?;
    let (etc, files): (Vec<&ChangedFile>, Vec<&ChangedFile>) =
        tree.files.iter().partition(|file| file.path.starts_with(DEFAULTS_OF_ETC));
    let line = |file: &&ChangedFile| format!("{} {}", mark(file.change), file.path.display());
    section(out, "Defaults of /etc", &etc, line)?;
    section(out, "Files", &files, line)?;
    left_out(out, tree.files_left_out)?;
    let counts = &tree.counts;
    writeln!(
        out,
        "\n{} packages; {} files added, {} removed, {} changed.",
        packages.len(),
        counts.added,
        counts.removed,
        counts.changed
    )
}

fn left_out(out: &mut dyn Write, count: u64) -> io::Result<()> {
    if count == 0 { Ok(()) } else { writeln!(out, "  … and {count} more") }
}

fn mark(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Changed => '~',
    }
}
