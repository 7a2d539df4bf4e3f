//! What has to be measured from inside a booted host: this program is copied there.

mod commit;
mod outdated;
mod switches;

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, bail, ensure};

/// The first argument of the program inside.
pub(super) const WORD: &str = "inside";

pub(super) use switches::Switches;

/// Runs one task and prints its answer as a line of JSON.
pub(super) fn run(task: &[String]) -> Result<()> {
    let words: Vec<&str> = task.iter().map(String::as_str).collect();
    let answer = match words.as_slice() {
        ["time", count, command @ ..] => serde_json::to_string(&time(count.parse()?, command)?)?,
        ["switches", count] => serde_json::to_string(&switches::run(count.parse()?)?)?,
        ["commit", count] => serde_json::to_string(&commit::run(count.parse()?)?)?,
        ["outdated"] => serde_json::to_string(&outdated::run()?)?,
        _ => bail!("nothing inside is called {words:?}"),
    };
    #[expect(clippy::print_stdout, reason = "a command that answers on its standard output")]
    {
        println!("{answer}");
    }
    Ok(())
}

/// The milliseconds of each of `count` runs of a command.
fn time(count: usize, command: &[&str]) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        let ended = Command::new(command[0])
            .args(&command[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        ensure!(ended.success(), "{} ended with {ended}", command.join(" "));
    }
    Ok(times)
}
