//! What a benchmark says: a table for people, rows in `target/bench.json` for programs.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

/// What a number has to reach.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// The peer's time over ours, at least.
    Faster(f64),
    /// Our time over the peer's, at most.
    Share(f64),
    /// Our number alone, at most.
    Limit(f64),
    /// The same, at least.
    Least(f64),
    /// None: the number is shown.
    Shown,
}

/// One measured number, against its peer's where it has one.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    id: String,
    what: String,
    ours: f64,
    peer: Option<f64>,
    unit: &'static str,
    ratio: Option<f64>,
    goal: Option<f64>,
    pass: bool,
    #[serde(skip)]
    sign: &'static str,
}

impl Row {
    /// A number of ours and the peer's in `unit`.
    pub(super) fn new(
        id: impl Into<String>,
        what: impl Into<String>,
        (ours, peer): (f64, Option<f64>),
        unit: &'static str,
        goal: Goal,
    ) -> Self {
        let share = peer.map(|peer| ours / peer);
        let (ratio, value, sign) = match goal {
            Goal::Faster(goal) => (share.map(f64::recip), Some(goal), ">="),
            Goal::Share(goal) | Goal::Limit(goal) => (share, Some(goal), "<="),
            Goal::Least(goal) => (share, Some(goal), ">="),
            Goal::Shown => (share, None, ""),
        };
        let pass = match goal {
            Goal::Faster(goal) => ratio.is_some_and(|ratio| ratio >= goal),
            Goal::Share(goal) => ratio.is_some_and(|ratio| ratio <= goal),
            Goal::Limit(goal) => ours <= goal,
            Goal::Least(goal) => ours >= goal,
            Goal::Shown => true,
        };
        let (id, what) = (id.into(), what.into());
        Self { id, what, ours, peer, unit, ratio, goal: value, pass, sign }
    }

    /// Whether the goal is reached.
    pub(super) fn passes(&self) -> bool {
        self.pass
    }

    fn line(&self) -> String {
        let dash = || "-".to_owned();
        let peer = self.peer.map_or_else(dash, number);
        let ratio = self.ratio.map_or_else(dash, |ratio| format!("{ratio:.2}x"));
        let goal = self.goal.map_or_else(dash, |goal| format!("{}{}", self.sign, number(goal)));
        let pass = match (self.goal, self.pass) {
            (None, _) => "",
            (_, true) => "yes",
            (_, false) => "NO",
        };
        format!(
            "{:<17} {:>9} {:>9} {:<5} {:>8} {:>8}  {:<4}  {}",
            self.id,
            number(self.ours),
            peer,
            self.unit,
            ratio,
            goal,
            pass,
            self.what
        )
    }
}

/// Three digits that say something.
fn number(value: f64) -> String {
    match value {
        value if value.fract() == 0.0 => format!("{value:.0}"),
        value if value.abs() < 10.0 => format!("{value:.3}"),
        value => format!("{value:.1}"),
    }
}

/// Prints one line as soon as it is known.
pub(super) fn print_head() -> Result<()> {
    let mut out = std::io::stdout().lock();
    let (id, ours, peer, unit) = ("id", "ours", "peer", "unit");
    let (ratio, goal, pass, what) = ("ratio", "goal", "pass", "what");
    writeln!(
        out,
        "{id:<17} {ours:>9} {peer:>9} {unit:<5} {ratio:>8} {goal:>8}  {pass:<4}  {what}"
    )?;
    Ok(())
}

/// Prints the rows and puts them in the place of older ones with the same ids.
pub(super) fn publish(rows: &[Row]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for row in rows {
        writeln!(out, "{}", row.line())?;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench.json");
    let mut all: Vec<serde_json::Value> = match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).context("target/bench.json is no list")?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).context("target/bench.json cannot be read"),
    };
    all.retain(|old| !rows.iter().any(|row| old["id"] == row.id.as_str()));
    for row in rows {
        all.push(serde_json::to_value(row)?);
    }
    std::fs::write(&path, serde_json::to_vec_pretty(&all)?).context("target/bench.json")
}

/// The middle one; of two middle ones the larger.
pub(super) fn median(mut values: Vec<f64>) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().context("nothing was measured")
}

/// The same of times, in seconds.
pub(super) fn median_seconds(times: &[Duration]) -> Result<f64> {
    median(times.iter().map(Duration::as_secs_f64).collect())
}
