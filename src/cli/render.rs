//! Data for people, and the same data for programs.

mod history;
mod points;

use history::date;
pub(super) use history::{Users, finished, history};
pub(super) use points::{difference, point, points};

use std::io::{self, IsTerminal as _, Write};

use apt_ostree_proto::package::{Action, PackageChange, UpdateClass};
use apt_ostree_proto::plan::{Plan, Refusal, TreeSource};
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::request::When;
use apt_ostree_proto::service::{Reason, UnitAction, UnitEffect};
use apt_ostree_proto::status::{HostState, Outcome, TransactionStatus};
use apt_ostree_proto::strategy::Strategy;
use apt_ostree_proto::{ErrorCode, Failure};
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::HumanBytes;
use serde::Serialize;

use super::arguments::Global;
use super::exit;
use super::terminal::{self, one_line};

/// How many reasons a unit's line names; the rest is counted.
const MOST_REASONS: usize = 3;
/// How many packages are named that wait for the next boot; the rest is counted.
const MOST_WAITING: usize = 10;
/// How much of one line about the command line is shown: longer ones repeat somebody's argument.
const LONGEST_USAGE_LINE: usize = 300;

/// Prints `value` as JSON or through `draw`, to standard output.
pub(super) fn data<T: Serialize + ?Sized>(
    global: &Global,
    value: &T,
    draw: fn(&mut dyn Write, &T) -> io::Result<()>,
) -> anyhow::Result<u8> {
    if global.json {
        terminal::print_json(&value)?;
    } else {
        terminal::print(&drawn(value, draw)?)?;
    }
    Ok(exit::DONE)
}

/// What `draw` makes of `value`.
fn drawn<T: ?Sized>(
    value: &T,
    draw: impl FnOnce(&mut dyn Write, &T) -> io::Result<()>,
) -> anyhow::Result<String> {
    let mut text = Vec::new();
    draw(&mut text, value)?;
    Ok(String::from_utf8(text)?)
}

/// Prints an error of the command itself, to standard error.
pub(super) fn error(error: &anyhow::Error, global: &Global) {
    let known = error.downcast_ref::<Failure>();
    if global.json {
        let unknown = || Failure::new(ErrorCode::Internal, format!("{error:#}"));
        let object = serde_json::json!({ "failure": known.cloned().unwrap_or_else(unknown) });
        if let Err(error) = terminal::print_json(&object) {
            terminal::complain(&format!("{error:#}"));
        }
    }
    match known {
        Some(known) => failure(known),
        None => terminal::complain(&format!("apt-ostree: {error:#}")),
    }
}

/// Prints what is wrong with the command line. It repeats words of it, which may hold anything and be of
/// any length.
pub(super) fn usage(text: &str) {
    for line in text.lines() {
        let shown: String = line.chars().take(LONGEST_USAGE_LINE).collect();
        let more = if line.chars().count() > LONGEST_USAGE_LINE { "…" } else { "" };
        terminal::complain(&format!("{shown}{more}"));
    }
}

/// Prints what happened, what was kept and what to do.
pub(super) fn failure(failure: &Failure) {
    let bold = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    terminal::diagnose(&failure_text(failure, bold));
}

fn failure_text(failure: &Failure, bold: bool) -> String {
    let (on, off) = if bold { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    let mut text =
        format!("{on}apt-ostree: {}{off} [{}]\n", one_line(&failure.message), failure.code);
    let undo = failure.undo.as_ref();
    let undo = undo.map(|undo| format!("and the undo failed: {} [{}]", undo.message, undo.code));
    for line in undo.as_ref().into_iter().chain(&failure.kept).chain([&failure.hint]) {
        text.push_str("  ");
        text.push_str(&one_line(line));
        text.push('\n');
    }
    text
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|title| (*title).to_owned()));
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 1));
    }
    table
}

/// The host's state.
pub(super) fn state(out: &mut dyn Write, state: &HostState) -> io::Result<()> {
    writeln!(out, "OS        {}", one_line(&state.os_name))?;
    writeln!(out, "booted    {}", state.booted.short())?;
    let live = if state.running == state.booted { "" } else { "  (live)" };
    writeln!(out, "running   {}{live}", state.running.short())?;
    let foreign = if state.foreign_pending { "  (deployed by another program)" } else { "" };
    writeln!(out, "next boot {}{foreign}", state.next.short())?;
    if let Some(waiting) = &state.awaits_boot {
        let (id, title) = (waiting.id, one_line(&waiting.title));
        let packages = plural(waiting.packages, "package");
        writeln!(out, "          takes effect then: {id}: {title} ({packages})")?;
        for Refusal { subject, reason } in waiting.reasons.iter().take(MOST_WAITING) {
            writeln!(out, "            {}: {}", one_line(subject), one_line(reason))?;
        }
        if let Some(more) = waiting.reasons.len().checked_sub(MOST_WAITING).filter(|n| *n > 0) {
            writeln!(out, "            and {more} more")?;
        }
    }
    if let Some(oldest) = state.left_out.last() {
        writeln!(
            out,
            "          an older entry of the boot menu was booted: from before transaction {oldest}"
        )?;
    }
    match &state.transaction {
        Some(TransactionStatus { id, title, confirmation: Some(awaited), .. }) => {
            writeln!(out, "now       {id}: {}, waits for confirmation", one_line(title))?;
            let (until, left) = (date(awaited.until_seconds), awaited.remaining_seconds);
            writeln!(
                out,
                "          put back at {until} ({left} s left) unless: apt-ostree confirm"
            )?;
        }
        Some(transaction) => writeln!(
            out,
            "now       {}: {}, {} {} ({} %)",
            transaction.id,
            one_line(&transaction.title),
            transaction.phase.state(),
            transaction.phase.detail(),
            transaction.percentage
        )?,
        None => writeln!(out, "now       idle")?,
    }
    if let Some(last) = &state.last {
        writeln!(out, "last      {}: {}, {}", last.id, one_line(&last.title), last.outcome.name())?;
    }
    if let Some(why) = &state.configuration {
        writeln!(out, "config    the last good one is used: {}", one_line(why))?;
        writeln!(out, "          see apt-ostree config check")?;
    }
    if let Some(lost) = &state.lost {
        let kept = lost.kept_as.as_ref().map(|name| format!(" (kept as {name})"));
        let text = format!("{}{}", lost.reason, kept.unwrap_or_default());
        writeln!(out, "journal   begun anew on {}: {}", date(lost.at_seconds), one_line(&text))?;
        for suspect in lost.suspects.iter().flatten() {
            writeln!(out, "          {}", one_line(suspect))?;
        }
    }
    if !state.points.is_empty() {
        let names: Vec<&str> = state.points.iter().map(|point| point.name.as_str()).collect();
        writeln!(out, "points    {}", names.join(", "))?;
    }
    if !state.kept.is_empty() {
        let ids: Vec<String> = state.kept.iter().map(|update| update.id.to_string()).collect();
        let bytes = state.kept.iter().map(|update| update.bytes).sum();
        writeln!(out, "undoable  {}  ({} kept for it)", ids.join(", "), HumanBytes(bytes))?;
    }
    if state.stuck {
        let why = match &state.lost {
            Some(lost) if lost.is_suspect() => "an update may have been interrupted",
            _ => "an undo failed",
        };
        writeln!(out, "stuck     {why}: run apt-ostree repair")?;
    }
    Ok(())
}

/// A plan.
pub(super) fn plan(out: &mut dyn Write, plan: &Plan) -> io::Result<()> {
    if plan.is_empty() {
        let when = if plan.next_boot.is_empty() { "" } else { " now" };
        writeln!(out, "Nothing to do{when}.")?;
    } else {
        if plan.when == When::NextBoot {
            writeln!(out, "With the next boot:")?;
        }
        if !matches!(plan.source, TreeSource::Packages) {
            writeln!(out, "Ready tree on top of {}.", plan.base.short())?;
        }
        changes(out, &plan.changes)?;
        writeln!(
            out,
            "\n{} to upgrade, {} to install, {} to remove; {} to download, {} more on the disk.",
            plan.count(Action::Upgrade) + plan.count(Action::Downgrade),
            plan.count(Action::Install),
            plan.count(Action::Remove),
            HumanBytes(plan.download_bytes()),
            signed_bytes(plan.installed_growth_bytes()),
        )?;
    }
    section(out, "With the next boot", &plan.next_boot, |change| {
        let version = change.new_version.as_ref().map(ToString::to_string);
        let version = version.unwrap_or_else(|| "removed".to_owned());
        let why = match change.class {
            UpdateClass::Live => "goes with them",
            UpdateClass::NextBoot => change.next_boot_reason(),
        };
        format!("{} {version}: {why}", change.name)
    })?;
    units(out, &plan.units)?;
    section(out, "Local configuration that is kept", &plan.etc_conflicts, |conflict| {
        format!("{} ({}): {}", conflict.path.display(), conflict.package, conflict.resolution)
    })?;
    section(out, "Space", &plan.space, |space| {
        format!(
            "{}: up to {} of {} available",
            space.path.display(),
            HumanBytes(space.needed_bytes),
            HumanBytes(space.available_bytes)
        )
    })?;
    refusals(out, plan)?;
    section(out, "Warnings", &plan.warnings, Clone::clone)?;
    writeln!(out, "\nPlan {}", plan.id.short())
}

/// Prints what is left out of a plan of nothing.
pub(super) fn why_nothing_is_done(plan: &Plan) -> anyhow::Result<()> {
    Ok(terminal::print(&drawn(plan, refusals)?)?)
}

/// What is left out of a plan, and why.
fn refusals(out: &mut dyn Write, plan: &Plan) -> io::Result<()> {
    section(out, "Not done", &plan.refused, |refusal| {
        format!("{}: {}", refusal.subject, refusal.reason)
    })
}

fn signed_bytes(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{}", HumanBytes(bytes.unsigned_abs()))
}

pub(super) fn section<T>(
    out: &mut dyn Write,
    title: &str,
    items: &[T],
    mut line: impl FnMut(&T) -> String,
) -> io::Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}:")?;
    items.iter().try_for_each(|item| writeln!(out, "  {}", one_line(&line(item))))
}

fn changes(out: &mut dyn Write, changes: &[PackageChange]) -> io::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut table = table(&["PACKAGE", "OLD", "NEW", "ORIGIN", "SIZE"]);
    for change in changes {
        let version = |version: &Option<apt_ostree_proto::Version>| {
            version.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)
        };
        let size = change.file.as_ref().map(|file| HumanBytes(file.size_bytes).to_string());
        table.add_row([
            format!("{}:{}", change.name, change.architecture),
            version(&change.old_version),
            version(&change.new_version),
            one_line(&format!("{} {}", change.origin.label, change.origin.codename)).into_owned(),
            size.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    writeln!(out, "{}", table.trim_fmt())
}

pub(super) fn units(out: &mut dyn Write, effects: &[UnitEffect]) -> io::Result<()> {
    section(out, "Units", effects, |effect| {
        let mut reasons = reasons(&effect.reasons);
        if reasons.len() > MOST_REASONS {
            let more = reasons.len() - MOST_REASONS;
            reasons.truncate(MOST_REASONS);
            reasons.push(format!("{more} more"));
        }
        if let Some(why) = &effect.left_because {
            reasons.push(format!("left: {why}"));
        } else if effect.strategy != Strategy::Automatic {
            let group = effect.group.as_deref().map(|name| format!(" in the group {name}"));
            reasons.push(format!(
                "{}{}, as configured",
                effect.strategy.name(),
                group.unwrap_or_default()
            ));
        }
        format!("{:9} {}: {}", action(effect.action), effect.unit, reasons.join("; "))
    })
}

fn action(action: UnitAction) -> &'static str {
    match action {
        UnitAction::StopStart => "stop-start",
        UnitAction::Stop => "stop",
        UnitAction::Restart => "restart",
        UnitAction::Reload => "reload",
        UnitAction::Start => "start",
        UnitAction::Leave => "leave",
    }
}

/// The reasons for people: a process that uses many replaced files is one reason.
pub(super) fn reasons(all: &[Reason]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut processes: Vec<(u32, Vec<String>)> = Vec::new();
    for reason in all {
        match reason {
            Reason::Script { package, verb } => {
                let verb = serde_json::to_string(verb).unwrap_or_default();
                lines.push(format!("{package} asks for {}", verb.trim_matches('"')));
            }
            Reason::UnitFile { path } | Reason::Configuration { path } => {
                lines.push(format!("{} changes", path.display()));
            }
            Reason::OldCode { pid, path } => {
                let file = path.file_name().unwrap_or(path.as_os_str()).display().to_string();
                match processes.iter_mut().find(|(process, _)| process == pid) {
                    Some((_, files)) => files.push(file),
                    None => processes.push((*pid, vec![file])),
                }
            }
            Reason::Interpreted { pid, path } => {
                lines.push(format!("process {pid} interprets {}", path.display()));
            }
            Reason::OwnMount { path } => {
                lines.push(format!("has a mount of its own on {}", path.display()));
            }
            Reason::Package { package } => lines.push(format!("belongs to {package}")),
        }
    }
    lines.extend(processes.into_iter().map(|(pid, files)| match files.as_slice() {
        [file] => format!("process {pid} uses {file}"),
        [file, rest @ ..] => format!("process {pid} uses {file} and {} more", rest.len()),
        [] => format!("process {pid}"),
    }));
    lines
}

/// A number of things.
fn plural(count: usize, thing: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{ending}")
}

/// What came of a transaction.
pub(super) fn record(out: &mut dyn Write, record: &HistoryRecord) -> io::Result<()> {
    match record.outcome {
        Outcome::NothingToDo => writeln!(out, "Nothing to do.")?,
        Outcome::Committed | Outcome::Forced => {
            changes(out, &record.changes)?;
            units(out, &record.units)?;
            section(out, "Warnings", &record.warnings, Clone::clone)?;
        }
        _ => section(out, "Warnings", &record.warnings, Clone::clone)?,
    }
    let took = seconds(record.duration_milliseconds);
    let is_kept = matches!(record.outcome, Outcome::Committed | Outcome::Forced);
    let when = match record.request.when {
        When::NextBoot if is_kept => ": it takes effect with the next boot",
        _ => "",
    };
    let (title, outcome) = (one_line(&record.title), record.outcome.name());
    writeln!(out, "{}: {title}, {outcome} in {took:.1} s{when}", record.id)
}

#[expect(clippy::cast_precision_loss, reason = "durations are shown with one digit")]
fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests;
