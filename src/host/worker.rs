//! Worker processes: the wire format, and how the daemon runs one.
//!
//! A task is one process. It gets one JSON document on standard input and answers with JSON lines
//! on standard output: any number of reports, then one result or failure. Killing it cancels it.

pub mod protocol;
