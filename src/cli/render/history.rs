//! What was done, by whom, how it ended, and whether it can be undone.

use std::collections::BTreeMap;
use std::io::{self, Write};

use apt_ostree_proto::PointName;
use apt_ostree_proto::record::{FinishedTransaction, HistoryEntry, RollbackState};
use indicatif::HumanBytes;
use nix::unistd::{Uid, User};

use super::{changes, seconds, section, table, units};
use crate::cli::terminal::one_line;

/// The history.
pub(in crate::cli) fn history(out: &mut dyn Write, entries: &Vec<HistoryEntry>) -> io::Result<()> {
    let header =
        ["ID", "WHEN", "WHO", "WHAT", "RESULT", "PACKAGES", "SECONDS", "ROLLBACK", "POINTS"];
    let mut table = table(&header);
    let mut users = Users::default();
    for entry in entries {
        let HistoryEntry { record, rollback, kept_bytes, points, .. } = entry;
        let points: Vec<&str> = points.iter().map(PointName::as_str).collect();
        table.add_row([
            record.id.to_string(),
            date(record.started_seconds),
            users.name(record.caller.uid),
            one_line(&record.title).into_owned(),
            result(entry),
            record.changes.len().to_string(),
            format!("{:.1}", seconds(record.duration_milliseconds)),
            rollback_text(*rollback, *kept_bytes),
            points.join(", "),
        ]);
    }
    writeln!(out, "{}", table.trim_fmt())
}

fn result(HistoryEntry { record, awaits_boot, .. }: &HistoryEntry) -> String {
    match &record.failure {
        Some(failure) => format!("{} ({})", record.outcome.name(), failure.code),
        None if *awaits_boot => "awaits the boot".to_owned(),
        None => record.outcome.name().to_owned(),
    }
}

fn rollback_text(rollback: Option<RollbackState>, kept_bytes: Option<u64>) -> String {
    let word = match rollback {
        None => return "-".to_owned(),
        Some(RollbackState::Possible) => "possible",
        Some(RollbackState::Undone) => "undone",
        Some(RollbackState::Gone) => "gone",
    };
    match kept_bytes {
        Some(bytes) => format!("{word} ({})", HumanBytes(bytes)),
        None => word.to_owned(),
    }
}

/// One finished transaction, whole.
pub(in crate::cli) fn finished(
    out: &mut dyn Write,
    finished: &FinishedTransaction,
) -> io::Result<()> {
    let FinishedTransaction { entry, log } = finished;
    let HistoryEntry { record, rollback, kept_bytes, points, .. } = entry;
    let who = Users::default().name(record.caller.uid);
    writeln!(out, "{} {} ({who})", date(record.started_seconds), one_line(&record.title))?;
    if let (Some(base), Some(commit)) = (&record.base, &record.commit) {
        writeln!(out, "from {base}\nto   {commit}")?;
    }
    changes(out, &record.changes)?;
    units(out, &record.units)?;
    section(out, "Steps", &record.steps, |(step, took)| format!("{step:20} {took:6} ms"))?;
    section(out, "Warnings", &record.warnings, Clone::clone)?;
    if let Some(failure) = &record.failure {
        writeln!(out, "\nFailed: {} [{}]", one_line(&failure.message), failure.code)?;
        for text in failure.kept.iter().chain([&failure.hint]) {
            writeln!(out, "  {}", one_line(text))?;
        }
    }
    section(out, "Output", log, Clone::clone)?;
    section(out, "Points", points, ToString::to_string)?;
    let took = seconds(record.duration_milliseconds);
    writeln!(out, "\n{} in {took:.1} s", result(entry))?;
    if let Some(next) = record.followed_by {
        writeln!(out, "what could not change live: see {next}")?;
    }
    if rollback.is_some() {
        writeln!(out, "rollback: {}", rollback_text(*rollback, *kept_bytes))?;
    }
    Ok(())
}

pub(super) fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map(|at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
        .unwrap_or_default()
}

/// The names of users, each looked up once: that may ask a server.
#[derive(Debug, Default)]
pub(in crate::cli) struct Users {
    names: BTreeMap<u32, String>,
}

impl Users {
    /// The user's name; the number where nobody has it any more.
    pub(in crate::cli) fn name(&mut self, uid: u32) -> String {
        let look_up = || match User::from_uid(Uid::from_raw(uid)) {
            Ok(Some(user)) => one_line(&user.name).into_owned(),
            Ok(None) | Err(_) => format!("uid {uid}"),
        };
        self.names.entry(uid).or_insert_with(look_up).clone()
    }
}
