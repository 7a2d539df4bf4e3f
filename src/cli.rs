//! The command line. Data goes to standard output; progress and diagnostics to standard error.
//!
//! Modules in reading order: [`arguments`] is what can be asked, `commands` what each command does,
//! `points` what those of rollback points do, `outdated` what `services` does, `inspection` those that look
//! at the whole host, `configuration` the one that looks at the configuration, `follow`
//! waits for a transaction, `progress` draws it, `render` draws everything else, `terminal` prints it.

mod arguments;
mod commands;
mod configuration;
mod connect;
mod exit;
mod follow;
mod inspection;
mod outdated;
mod points;
mod progress;
mod render;
mod terminal;

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use clap::Parser as _;

pub use arguments::Arguments;

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers and go to standard output; clap knows which is which.
            if error.use_stderr() {
                render::usage(&error.render().to_string());
                return ExitCode::from(exit::USAGE);
            }
            return match error.print() {
                Ok(()) => ExitCode::from(exit::DONE),
                Err(_) => ExitCode::from(exit::FAILED),
            };
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(&arguments)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        // Whoever read the answer has enough of it, as `head` has.
        Err(error) if is_unread(&error) => ExitCode::from(exit::FAILED),
        Err(error) => {
            render::error(&error, &arguments.global);
            ExitCode::from(exit::status_of(&error))
        }
    }
}

/// Whether it is our own output that nobody reads any more. A connection to the bus that breaks is an
/// error of the bus, not of this kind.
fn is_unread(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
