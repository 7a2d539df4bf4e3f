//! Progress: bars on a terminal, plain lines elsewhere, nothing when nobody wants it.

use std::io::IsTerminal as _;

use apt_ostree_proto::step::Step;
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::arguments::Global;
use super::follow::Told;
use super::terminal::{self, one_line};

/// Draws one transaction.
pub(super) struct Display {
    bar: Option<ProgressBar>,
    lines: bool,
    step: String,
    countdown: Option<Countdown>,
}

/// The wait for a confirmation, told to somebody who has to do something before it ends.
#[derive(Debug)]
struct Countdown {
    /// How many seconds were left when it was last told in a line of its own.
    told: u32,
}

/// When a line of its own tells how many seconds are left, where there is no bar.
const TOLD_AT: [u32; 6] = [12 * 3600, 3600, 600, 60, 30, 10];

impl Countdown {
    fn begin() -> Self {
        Self { told: u32::MAX }
    }

    /// Whether so much less is left that it is worth a line: at the beginning, then at fewer and
    /// fewer seconds.
    fn is_worth_a_line(&mut self, left: u32) -> bool {
        let is_first = self.told == u32::MAX;
        let is_due = is_first || TOLD_AT.iter().any(|at| (left..self.told).contains(at));
        if is_due {
            self.told = left;
        }
        is_due
    }
}

impl Display {
    pub(super) fn new(global: &Global) -> Self {
        let wanted = !global.quiet && !global.no_progress;
        let on_terminal = std::io::stderr().is_terminal();
        let bar = (wanted && on_terminal).then(|| {
            let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:30} {pos:>3}%  {prefix}  {msg:.dim}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let lines = wanted && !on_terminal;
        Self { bar, lines, step: String::new(), countdown: None }
    }

    pub(super) fn hear(&mut self, told: &Told) {
        match told {
            Told::Phase { state, detail } => self.enter(state, detail),
            Told::Progress { remaining_seconds: left, .. } if self.countdown.is_some() => {
                self.count_down(*left);
            }
            Told::Progress { percentage, speed, remaining_seconds } => {
                if let Some(bar) = &self.bar {
                    bar.set_position(u64::from(*percentage).min(100));
                    if *speed > 0 {
                        let speed = HumanBytes(*speed);
                        bar.set_message(format!("{speed}/s, {remaining_seconds} s left"));
                    }
                }
            }
            Told::Item { item, status, .. } => {
                if let Some(bar) = &self.bar {
                    bar.set_message(one_line(&format!("{item} {status}")).into_owned());
                }
            }
            Told::Message { level, text } if level == "warning" => {
                self.print(&format!("warning: {text}"));
            }
            Told::Message { .. } => {}
            Told::Error { message, .. } => self.print(&format!("failed: {message}")),
            Told::Finished { .. } => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
            }
        }
    }

    fn count_down(&mut self, left: u32) {
        // What is told with the step's beginning is not known yet.
        let Some(countdown) = self.countdown.as_mut().filter(|_| left > 0) else { return };
        if countdown.is_worth_a_line(left) {
            self.print(&format!(
                "Everything is put back in {left} s unless somebody runs: apt-ostree confirm \
                 (at once: apt-ostree cancel)"
            ));
        }
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{left} s left"));
        }
    }

    fn enter(&mut self, state: &str, detail: &str) {
        let step = Step::parse(detail);
        let waits = (state, step) == ("running", Some(Step::Confirm));
        // A daemon that goes on with the wait enters it again.
        self.countdown =
            if waits { self.countdown.take().or(Some(Countdown::begin())) } else { None };
        let title = match (state, step) {
            ("running", Some(step)) => step.title().to_owned(),
            ("undoing", Some(step)) => format!("Undoing: {}", step.title()),
            _ => return,
        };
        if let Some(bar) = &self.bar {
            bar.set_prefix(title.clone());
            bar.set_message("");
        }
        if self.lines && self.step != title {
            self.print(&title);
        }
        self.step = title;
    }

    fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(one_line(line)),
            None if self.lines => terminal::complain(line),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_told_at_its_beginning_and_when_it_is_about_to_end() {
        let told = |from: u32| {
            let mut countdown = Countdown::begin();
            (1..=from).rev().filter(|left| countdown.is_worth_a_line(*left)).collect::<Vec<_>>()
        };
        assert_eq!(told(5), [5]);
        assert_eq!(told(60), [60, 30, 10]);
        assert_eq!(told(86_400), [86_400, 43_200, 3_600, 600, 60, 30, 10]);
        // Seconds that were never told, for the host was suspended, are no reason for many lines.
        let mut countdown = Countdown::begin();
        let lines = [7_000, 25, 24].map(|left| countdown.is_worth_a_line(left));
        assert_eq!(lines, [true, true, false]);
    }
}
