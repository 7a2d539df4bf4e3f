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
        Self { bar, lines: wanted && !on_terminal, step: String::new() }
    }

    pub(super) fn hear(&mut self, told: &Told) {
        match told {
            Told::Phase { state, detail } => self.enter(state, detail),
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

    fn enter(&mut self, state: &str, detail: &str) {
        let title = match (state, Step::parse(detail)) {
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
