//! Ours against the peers, in turn, in one run: `make bench`, or `make bench ONLY=update-20` for one row.
//!
//! Prints a table of medians and writes the same to `target/bench.json`. What needs a host boots one of
//! the test host's images; the program copies itself there for what has to be measured from inside.

#![expect(clippy::print_stderr, reason = "a program that tells how far it is")]

mod download;
mod guest;
mod idle;
mod inside;
mod restarts;
mod rollback;
mod row;
mod services;
mod size;
#[expect(dead_code, unused_imports, reason = "the tests use the rest of it")]
#[path = "../tests/host/support/mod.rs"]
mod support;
mod switch;
mod update;

use std::time::Instant;

use anyhow::Result;
use row::Row;

/// A benchmark: the ids of its rows begin with its name.
struct Benchmark {
    name: &'static str,
    run: fn() -> Result<Vec<Row>>,
}

const BENCHMARKS: &[Benchmark] = &[
    Benchmark { name: "switch", run: switch::run },
    Benchmark { name: "download-30ms", run: download::slow },
    Benchmark { name: "download-0ms", run: download::fast },
    Benchmark { name: "update-1", run: update::one },
    Benchmark { name: "update-20", run: update::twenty },
    Benchmark { name: "update-100", run: update::hundred },
    Benchmark { name: "commit", run: size::run },
    Benchmark { name: "restarts", run: restarts::run },
    Benchmark { name: "rollback", run: rollback::run },
    Benchmark { name: "idle", run: idle::run },
    Benchmark { name: "services", run: services::run },
];

fn main() -> Result<()> {
    // Cargo adds --bench.
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if let Some((inside::WORD, task)) = words.split_first().map(|(word, task)| (&**word, task)) {
        return inside::run(task);
    }
    let only = std::env::var("ONLY").unwrap_or_default();
    let wanted = |benchmark: &&Benchmark| only.is_empty() || means(&only, benchmark.name);
    row::print_head()?;
    let mut missed = 0;
    for benchmark in BENCHMARKS.iter().filter(wanted) {
        let begun = Instant::now();
        let rows = (benchmark.run)()?;
        missed += rows.iter().filter(|row| !row.passes()).count();
        row::publish(&rows)?;
        eprintln!("  ({} took {:.0} s)", benchmark.name, begun.elapsed().as_secs_f64());
    }
    if missed > 0 {
        eprintln!("{missed} goals were missed");
    }
    Ok(())
}

/// Whether `ONLY=word` means the benchmark: `update` all three, `update-1` one, `update-size` what
/// `commit` measures beside.
fn means(word: &str, name: &str) -> bool {
    let word = if word == "update-size" { "commit" } else { word };
    name == word || name.strip_prefix(word).is_some_and(|rest| rest.starts_with('-'))
}
