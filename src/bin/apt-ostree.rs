//! The command line: an unprivileged client of the daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    apt_ostree::cli::run()
}
