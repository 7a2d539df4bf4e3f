//! What a benchmark says: a table for people, rows in `target/bench.json` for programs.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One measured number against its peer's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    id: String,
    what: String,
    ours: f64,
    peer: f64,
    unit: String,
    /// How many times faster ours is.
    ratio: f64,
    goal: f64,
    pass: bool,
}

impl Row {
    /// A comparison of times of which ours has to be `goal` times as short.
    pub(super) fn new(id: &str, what: &str, ours: Duration, peer: Duration, goal: f64) -> Self {
        let ratio = peer.as_secs_f64() / ours.as_secs_f64();
        Self {
            id: id.to_owned(),
            what: what.to_owned(),
            ours: ours.as_secs_f64(),
            peer: peer.as_secs_f64(),
            unit: "s".to_owned(),
            ratio,
            goal,
            pass: ratio >= goal,
        }
    }
}

/// Prints the rows, and puts them in the place of older ones with the same ids.
pub(super) fn publish(rows: &[Row]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:<15} {:>8} {:>8} {:>7} {:>6}  pass  what",
        "id", "ours s", "peer s", "ratio", "goal"
    )?;
    for row in rows {
        let Row { id, what, ours, peer, ratio, goal, pass, .. } = row;
        let pass = if *pass { "yes" } else { "NO" };
        writeln!(
            out,
            "{id:<15} {ours:>8.3} {peer:>8.3} {ratio:>6.1}x {goal:>5.1}x  {pass:<4}  {what}"
        )?;
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
