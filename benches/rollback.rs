//! Rolling back: what it takes of its own, without the start of the units.

use anyhow::Result;

use super::guest::{Applied, Guest};
use super::row::{Goal, Row, median};
use super::support::Repository;

const ROUNDS: usize = 5;
/// What a rollback on demand does before the units are started; what follows is watching.
const ON_DEMAND: [&str; 5] = ["plan", "stage", "commit", "stop-units", "switch"];
/// What an automatic one does before the units are started; what follows removes the new tree.
const UNTIL_ANSWER: [&str; 2] = ["undo-start-units", "undo-switch"];
/// Undoing the stop of the units is where they are started again.
const STARTS_UNITS: &str = "undo-stop-units";

/// hello-svc 3 does not come up and is put back; hello-svc 2 does, and is undone on demand.
pub(super) fn run() -> Result<Vec<Row>> {
    let guest = Guest::boot()?;
    let (mut automatic, mut answering, mut on_demand) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        guest.host.mirror().publish(&Repository::hello(3));
        guest.make_ready();
        let failed = guest.apply(&UPDATE, 3)?;
        eprintln!("  rollback, automatic: {}", failed.profile());
        automatic.push(own_undo(&failed));
        answering.push(milliseconds(UNTIL_ANSWER.iter().map(|step| failed.step(step)).sum()));
        guest.host.mirror().publish(&Repository::hello(2));
        guest.make_ready();
        guest.apply(&UPDATE, 0)?;
        let undone = guest.apply(&["rollback"], 0)?;
        eprintln!("  rollback, on demand: {}", undone.profile());
        on_demand.push(milliseconds(ON_DEMAND.iter().map(|step| undone.step(step)).sum()));
    }
    let row = |id, what, times, goal| -> Result<Row> {
        Ok(Row::new(id, what, (median(times)?, None), "ms", goal))
    };
    let limit = Goal::Limit(300.0);
    Ok(vec![
        row(
            "rollback-auto",
            "a failed update is put back, units' start excluded",
            automatic,
            limit,
        )?,
        row(
            "rollback-visible",
            "the part of it until the old units start",
            answering,
            Goal::Shown,
        )?,
        row("rollback-demand", "an update is undone on demand, the same", on_demand, limit)?,
    ])
}

const UPDATE: [&str; 3] = ["apply-live", "--no-refresh", "--packages=hello-svc"];

fn own_undo(applied: &Applied) -> f64 {
    let undos = applied.record.steps.iter();
    let own = undos.filter(|(step, _)| step.starts_with("undo-") && step != STARTS_UNITS);
    milliseconds(own.map(|(_, took)| took).sum())
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand milliseconds")]
fn milliseconds(value: u64) -> f64 {
    value as f64
}
