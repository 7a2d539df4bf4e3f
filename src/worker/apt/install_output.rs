//! What dpkg and the maintainer scripts print, line by line, while libapt runs them.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::stdio::{dup2_stderr, dup2_stdout};

use super::cache::shown;
use crate::output::Output;

/// How many of the last lines are kept for a failure's message.
const KEPT_LINES: usize = 60;
/// The longest line that is passed on whole; a script that prints no line ends is cut here.
const LONGEST_LINE_BYTES: usize = 4096;

/// What was printed, at its end.
pub(super) struct Transcript {
    /// The last lines.
    pub(super) last: VecDeque<String>,
}

/// Runs `work` with standard output and error going to the log, and gives it a pipe for the lines of
/// apt's status protocol (`README.progress-reporting` of apt).
pub(super) fn capture<Answer>(
    output: &Output,
    work: impl FnOnce(&PipeWriter) -> Answer,
) -> io::Result<(Answer, Transcript)> {
    let (printed, printer) = io::pipe()?;
    let (status, status_writer) = io::pipe()?;
    // A script may leave a process behind that keeps the pipe open: the end of the work is told by
    // this pipe's end, not by that one's.
    let (finished, finish) = io::pipe()?;
    thread::scope(|scope| {
        let log = scope.spawn(|| read_log(printed, &finished, output));
        scope.spawn(|| read_status(status, output));
        let redirected = Redirected::to(&printer)?;
        let answer = work(&status_writer);
        drop(redirected);
        drop((printer, status_writer, finish));
        let last = log.join().map_err(|_| io::Error::other("the reader of the log failed"))??;
        Ok((answer, Transcript { last }))
    })
}

/// Standard output and error while they go elsewhere; as they were when this is dropped.
struct Redirected {
    output: std::os::fd::OwnedFd,
    error: std::os::fd::OwnedFd,
}

impl Redirected {
    fn to(printer: &PipeWriter) -> io::Result<Self> {
        let output = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
        let error = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)?;
        dup2_stdout(printer)?;
        dup2_stderr(printer)?;
        Ok(Self { output, error })
    }
}

impl Drop for Redirected {
    fn drop(&mut self) {
        for result in [dup2_stdout(&self.output), dup2_stderr(&self.error)] {
            if let Err(error) = result {
                // Nothing is printed from here on but the answer, which has its own descriptor.
                eprintln!("the output cannot be put back: {error}");
            }
        }
    }
}

fn read_log(
    mut printed: PipeReader,
    finished: &PipeReader,
    output: &Output,
) -> io::Result<VecDeque<String>> {
    let mut lines = Lines { pending: Vec::new(), last: VecDeque::new(), output };
    let mut buffer = [0; 8192];
    loop {
        let mut descriptors =
            [PollFd::new(&printed, PollFlags::IN), PollFd::new(finished, PollFlags::IN)];
        match poll(&mut descriptors, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let [has_output, is_finished] =
            descriptors.map(|descriptor| !descriptor.revents().is_empty());
        if has_output {
            match printed.read(&mut buffer)? {
                0 => break,
                count => lines.take(&buffer[..count]),
            }
        } else if is_finished {
            break;
        }
    }
    lines.end_line();
    Ok(lines.last)
}

/// Bytes on their way to lines.
struct Lines<'a> {
    pending: Vec<u8>,
    last: VecDeque<String>,
    output: &'a Output,
}

impl Lines<'_> {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            // dpkg and others overwrite a line of progress by a carriage return.
            if matches!(byte, b'\n' | b'\r') || self.pending.len() >= LONGEST_LINE_BYTES {
                self.end_line();
            }
            if !matches!(byte, b'\n' | b'\r') {
                self.pending.push(*byte);
            }
        }
    }

    fn end_line(&mut self) {
        let text = String::from_utf8_lossy(&self.pending);
        let line: String =
            text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.pending.clear();
        if line.is_empty() {
            return;
        }
        self.output.log(&line);
        self.last.push_back(line);
        if self.last.len() > KEPT_LINES {
            self.last.pop_front();
        }
    }
}

fn read_status(status: PipeReader, output: &Output) {
    let mut last = None;
    for line in BufReader::new(status).split(b'\n') {
        // A broken pipe ends the progress, not the installation.
        let Ok(line) = line else { return };
        let Some(step) = parse_status(&String::from_utf8_lossy(&line)) else { continue };
        output.fraction(step.fraction);
        let item = (step.package, step.state);
        if last.as_ref() != Some(&item) {
            output.item(&item.0, item.1, step.percentage);
            last = Some(item);
        }
    }
}

/// One line of the status protocol.
#[derive(Debug, PartialEq)]
struct StatusStep {
    package: String,
    state: &'static str,
    percentage: u32,
    fraction: f64,
}

/// Reads `pmstatus:PACKAGE:PERCENTAGE:TEXT`. The text is in English: the worker sets no locale.
fn parse_status(line: &str) -> Option<StatusStep> {
    let rest = line.strip_prefix("pmstatus:")?;
    // A package with an architecture holds a colon, a percentage is the last field of the head.
    let second_colon = || {
        let at = rest.char_indices().filter(|(_, c)| *c == ':').nth(1)?.0;
        Some((&rest[..at], &rest[at + 1..]))
    };
    let (head, text) = rest.split_once(": ").or_else(second_colon)?;
    let (package, percent) = head.rsplit_once(':')?;
    let percent: f64 = percent.parse().ok()?;
    // libapt's own name for a run of dpkg.
    if package == "dpkg-exec" {
        return None;
    }
    let mut words = text.trim().split(' ');
    let (state, percentage) = match (words.next()?, words.nth(1)) {
        ("Preparing", Some("configure")) | ("Configuring", _) => ("configuring", 101),
        ("Preparing", Some("removal")) | ("Removing", _) => ("removing", 101),
        ("Preparing" | "Unpacking", _) => ("unpacking", 101),
        ("Installing" | "Unpacked", _) => ("unpacked", 101),
        ("Installed", _) => ("installed", 100),
        ("Removed" | "Completely", _) => ("removed", 100),
        ("Running", _) => ("running triggers", 101),
        _ => ("working", 101),
    };
    let package = shown(package);
    Some(StatusStep { package, state, percentage, fraction: (percent / 100.0).clamp(0.0, 1.0) })
}

/// The package and the reason that dpkg gives for a failure, from the last lines that it printed.
pub(super) fn blame(lines: &VecDeque<String>) -> Option<(String, String)> {
    let mut lines = lines.iter();
    while let Some(line) = lines.next() {
        let Some(rest) = line.strip_prefix("dpkg: error processing ") else { continue };
        let subject = rest.strip_prefix("package ").or_else(|| rest.strip_prefix("archive "))?;
        let (subject, _action) = subject.split_once(" (--")?;
        let file = subject.rsplit('/').next().unwrap_or(subject);
        let package = file.split(['_', ':']).next().unwrap_or(file);
        let reason = lines.next().map_or("dpkg gives no reason", |reason| reason.trim());
        return Some((package.to_owned(), reason.to_owned()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_of_apt_are_read() {
        for (line, package, state, fraction) in [
            ("pmstatus:nginx:28.5:Unpacking nginx (amd64)", "nginx", "unpacking", 0.285),
            ("pmstatus:libc6:100:Installed libc6 (amd64)", "libc6", "installed", 1.0),
            ("pmstatus:nginx:30:Preparing to configure nginx (amd64)", "nginx", "configuring", 0.3),
            ("pmstatus:nginx:10:Preparing nginx (amd64)", "nginx", "unpacking", 0.1),
            ("pmstatus:x:7:Frobnicating", "x", "working", 0.07),
        ] {
            let step = parse_status(line).expect(line);
            assert_eq!((step.package.as_str(), step.state), (package, state), "{line}");
            assert!((step.fraction - fraction).abs() < 1e-9, "{line}");
        }
        for line in [
            "",
            "pmstatus:dpkg-exec:0.0000:Running dpkg",
            "pmstatus:",
            "pmstatus:a",
            "pmstatus:a:x:y",
            "media-change: x",
        ] {
            assert_eq!(parse_status(line), None, "{line}");
        }
    }

    #[test]
    fn dpkg_tells_which_package_failed_and_how() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<VecDeque<_>>();
        let script = "Setting up a (1) ...\ndpkg: error processing package hello-svc (--configure):\n \
                      installed hello-svc package post-installation script subprocess returned error \
                      exit status 1\nErrors were encountered while processing:\n hello-svc";
        let (package, reason) = blame(&lines(script)).expect("blamed");
        assert_eq!(package, "hello-svc");
        assert!(reason.contains("post-installation script"), "{reason}");
        let archive = "dpkg: error processing archive /var/cache/apt/archives/foo_2_all.deb (--unpack):\n \
                       trying to overwrite '/usr/bin/x', which is also in package bar 1";
        let (package, reason) = blame(&lines(archive)).expect("blamed");
        assert_eq!((package.as_str(), reason.starts_with("trying to")), ("foo", true));
        assert_eq!(blame(&lines("all went well")), None);
    }
}
