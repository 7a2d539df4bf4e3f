//! The command line as scripts use it, where no daemon is needed.

use std::io::{Error, pipe};
use std::process::{Command, Output};

/// Runs `apt-ostree` with an output that nobody reads.
fn unread(arguments: &[&str]) -> Result<Output, Error> {
    let (reader, writer) = pipe()?;
    drop(reader);
    Command::new(env!("CARGO_BIN_EXE_apt-ostree")).args(arguments).stdout(writer).output()
}

#[test]
fn an_output_that_nobody_reads_ends_a_command_without_a_word() -> Result<(), Error> {
    for arguments in
        [&["completions", "bash"][..], &["completions", "zsh"], &["manual-page"], &["--help"]]
    {
        let output = unread(arguments)?;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    }
    Ok(())
}

#[test]
fn a_command_line_that_makes_no_sense_is_refused_with_its_own_status() -> Result<(), Error> {
    for arguments in [
        &["no-such-command"][..],
        &["apply-live", "--packages"],
        &["apply-live", "--restart-services", "--no-restart-services"],
        &["rollback", "one", "two"],
        &[],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_apt-ostree")).args(arguments).output()?;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    Ok(())
}
