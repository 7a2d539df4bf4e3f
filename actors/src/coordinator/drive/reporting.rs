//! What a transaction tells while it runs: its status, and events.

use apt_ostree_proto::Failure;
use apt_ostree_proto::event::{Event, MessageLevel};
use apt_ostree_proto::status::Phase;
use apt_ostree_proto::step::Step;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::pump::{Pump, printable};
use super::super::told;
use super::Drive;
use crate::context::{Report, Reporter, StepContext};

/// How many warnings one transaction keeps; nobody reads more.
const MOST_WARNINGS: usize = 200;

impl Drive {
    /// Runs `work` with a context, and publishes its reports as they come.
    pub(in super::super) async fn reporting<T>(
        &mut self,
        work: impl AsyncFnOnce(StepContext) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (report, mut reports) = Reporter::channel();
        // Nothing behind the pivot hears a cancel.
        let cancel =
            if self.is_past_pivot() { CancellationToken::new() } else { self.interruption.token() };
        let context = StepContext { transaction: self.id, cancel, report };
        let work = work(context);
        tokio::pin!(work);
        let mut pump = Pump::new(&self.parts, self.id);
        let result = loop {
            tokio::select! {
                biased;
                Some(report) = reports.recv() => self.take_report(report, &mut pump),
                result = &mut work => break result,
            }
        };
        drain(&mut reports, |report| self.take_report(report, &mut pump));
        result
    }

    fn take_report(&mut self, report: Report, pump: &mut Pump) {
        self.progress.take(&report);
        match report {
            Report::Fraction(_) | Report::Transfer { .. } => self.publish_progress(pump),
            Report::Item { item, status, percentage } => {
                let status = status.to_owned();
                pump.item(Event::Item { id: self.id, item, status, percentage }, percentage);
            }
            Report::Log(line) => {
                if let Some(line) = self.printed.take(&printable(&line)) {
                    pump.log(&line);
                }
            }
            Report::Warning(text) => {
                if self.facts.warnings.len() >= MOST_WARNINGS {
                    return;
                }
                let text = printable(&text);
                self.facts.warnings.push(text.clone());
                let (id, level) = (self.id, MessageLevel::Warning);
                self.parts.publish.publish(Event::Message { id, level, text });
            }
        }
    }

    fn publish_progress(&mut self, pump: &mut Pump) {
        if !pump.progress_is_due() {
            return;
        }
        let (percentage, speed) = (self.progress.percentage(), self.progress.speed());
        let remaining_seconds = self.progress.remaining_seconds();
        self.status.send_modify(|status| {
            status.percentage = percentage;
            status.speed = speed;
            status.remaining_seconds = remaining_seconds;
        });
        let id = self.id;
        self.parts.publish.publish(Event::Progress { id, percentage, speed, remaining_seconds });
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        told::entered(self.id, phase);
        if let Phase::Running(step) = phase {
            self.progress.enter(step);
        }
        let cancellable = match phase {
            Phase::Running(step) => step < Step::Deploy,
            Phase::Undoing(_) | Phase::Finished(_) => false,
        };
        let (percentage, failure) = (self.progress.percentage(), self.facts.failure.clone());
        self.status.send_modify(|status| {
            status.phase = phase;
            status.percentage = percentage;
            status.cancellable = cancellable;
            status.confirmation = None;
            status.failure = failure;
            status.speed = 0;
            status.remaining_seconds = 0;
        });
        let id = self.id;
        self.parts.publish.publish(Event::PhaseChanged { id, phase });
        let (speed, remaining_seconds) = (0, 0);
        self.parts.publish.publish(Event::Progress { id, percentage, speed, remaining_seconds });
    }
}

fn drain(reports: &mut mpsc::UnboundedReceiver<Report>, mut take: impl FnMut(Report)) {
    while let Ok(report) = reports.try_recv() {
        take(report);
    }
}
