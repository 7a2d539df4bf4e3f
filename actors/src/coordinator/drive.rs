//! One transaction, from its log to its end. What it tells meanwhile is in `reporting`, how it waits
//! for its confirmation in `confirm`, and what it leaves to the next boot in `following`.

mod confirm;
mod following;
mod reporting;

use std::time::Duration;

use apt_ostree_proto::event::Event;
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::request::{Caller, UpdateRequest};
use apt_ostree_proto::status::{Outcome, Phase, TransactionStatus};
use apt_ostree_proto::step::Step;
use apt_ostree_proto::{ErrorCode, Failure, TransactionId, UnitName};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::Instrument as _;

use super::confirmation::Confirmation;
use super::deadline;
use super::facts::{Facts, durations};
use super::interruption::Interruption;
use super::progress::Progress;
use super::pump::Printed;
use super::{BeginTransaction, Parts, told};
use crate::health::Baseline;
use crate::journal::{Entry, Payload, Recorded, seconds_now};
use crate::saga::{self, Abort, Command, Mark};
use crate::supervisor::{GetWorkers, Workers};

/// The driver of one transaction.
#[derive(Debug)]
pub(super) struct Drive {
    pub(super) parts: Parts,
    pub(super) id: TransactionId,
    pub(super) title: String,
    pub(super) request: UpdateRequest,
    pub(super) caller: Caller,
    pub(super) facts: Facts,
    /// Health before anything was touched; needed only by the daemon that measured it.
    pub(super) baseline: Option<Baseline>,
    /// What must stay up from the start of the units on.
    pub(super) expected_up: Vec<UnitName>,
    steps: Vec<Step>,
    entries: Vec<Entry>,
    started_seconds: i64,
    began: Instant,
    interruption: Interruption,
    confirmation: Confirmation,
    abort_recorded: bool,
    printed: Printed,
    progress: Progress,
    status: watch::Sender<TransactionStatus>,
}

impl Drive {
    /// A new transaction.
    pub(super) fn begin(
        parts: Parts,
        id: TransactionId,
        begin: BeginTransaction,
        steps: &[Step],
    ) -> Self {
        let recorded = Recorded {
            id,
            title: begin.title,
            request: begin.request,
            caller: begin.caller,
            steps: steps.to_vec(),
            boot: None,
            started_seconds: seconds_now(),
            entries: Vec::new(),
        };
        Self::resume(parts, recorded)
    }

    /// A transaction that another daemon began.
    pub(super) fn resume(parts: Parts, recorded: Recorded) -> Self {
        let Recorded { id, title, request, caller, steps, started_seconds, entries, .. } = recorded;
        let marks: Vec<Mark> = entries.iter().map(|entry| entry.mark).collect();
        let phase = match saga::next(&steps, &marks) {
            Ok(Command::Run(step)) => Phase::Running(step),
            Ok(Command::Undo(step)) => Phase::Undoing(step),
            _ => Phase::Running(steps.first().copied().unwrap_or(Step::Plan)),
        };
        let status = TransactionStatus {
            id,
            title: title.clone(),
            phase,
            percentage: 0,
            speed: 0,
            remaining_seconds: 0,
            cancellable: true,
            confirmation: None,
            failure: None,
        };
        let abort_recorded = entries.iter().any(|entry| matches!(entry.mark, Mark::Aborted(_)));
        Self {
            facts: Facts::of(&entries),
            baseline: None,
            expected_up: Vec::new(),
            progress: Progress::new(&steps),
            status: watch::Sender::new(status),
            interruption: Interruption::default(),
            confirmation: Confirmation::default(),
            began: Instant::now(),
            printed: Printed::default(),
            abort_recorded,
            parts,
            id,
            title,
            request,
            caller,
            steps,
            entries,
            started_seconds,
        }
    }

    pub(super) fn id(&self) -> TransactionId {
        self.id
    }

    /// Whether it ends with the plan.
    pub(super) fn is_dry_run(&self) -> bool {
        self.steps == [Step::Plan]
    }

    pub(super) fn interruption(&self) -> Interruption {
        self.interruption.clone()
    }

    pub(super) fn confirmation(&self) -> Confirmation {
        self.confirmation.clone()
    }

    pub(super) fn watch_status(&self) -> watch::Receiver<TransactionStatus> {
        self.status.subscribe()
    }

    /// Runs the transaction to its end.
    pub(super) async fn run(mut self) -> HistoryRecord {
        let span = tracing::info_span!("transaction", id = %self.id);
        async move {
            loop {
                match self.advance().await {
                    Ok(None) => {}
                    Ok(Some(record)) => return record,
                    // Without its journal a transaction can neither go on nor unwind safely.
                    Err(failure) => {
                        let why = format!("the journal cannot be written: {failure}");
                        self.end_process(&why).await;
                    }
                }
            }
        }
        .instrument(span)
        .await
    }

    /// Nothing more may happen here, whatever becomes of the process.
    async fn end_process(&self, why: &str) -> ! {
        self.parts.last_resort.take(self.id, why);
        std::future::pending().await
    }

    /// Without the bus nothing can be done about units, an undo included: the next daemon has it
    /// back.
    async fn go_on_with_the_bus(&self, failure: &Failure) {
        if failure.code == ErrorCode::BusLost {
            self.end_process(&failure.message).await;
        }
    }

    /// Does what comes next; answers the record once the transaction has ended. An error is one of
    /// the journal.
    async fn advance(&mut self) -> Result<Option<HistoryRecord>, Failure> {
        if let Some(why) = self.interruption.tripped() {
            self.abort(why).await?;
        }
        let marks: Vec<Mark> = self.entries.iter().map(|entry| entry.mark).collect();
        let command = saga::next(&self.steps, &marks)
            .map_err(|error| Failure::caused(ErrorCode::Internal, "the journal is odd", &error))?;
        match command {
            Command::Run(step) => self.run_step(step).await?,
            Command::Undo(step) => self.undo_step(step).await?,
            Command::Finish(outcome) => return self.finish(outcome).await.map(Some),
            Command::Rest => {
                let text = "the transaction had ended already";
                return Err(Failure::new(ErrorCode::Internal, text));
            }
        }
        Ok(None)
    }

    /// Writes down why the transaction unwinds, once; what was confirmed, or lies behind the pivot,
    /// does not.
    async fn abort(&mut self, why: Abort) -> Result<(), Failure> {
        if self.abort_recorded || self.is_past_pivot() || self.is_confirmed() {
            return Ok(());
        }
        self.abort_recorded = true;
        told::aborted(self.id, why);
        self.log(Entry::new(Mark::Aborted(why))).await
    }

    fn is_past_pivot(&self) -> bool {
        let marks: Vec<Mark> = self.entries.iter().map(|entry| entry.mark).collect();
        saga::is_past_pivot(&self.steps, &marks)
    }

    fn is_confirmed(&self) -> bool {
        let marks: Vec<Mark> = self.entries.iter().map(|entry| entry.mark).collect();
        saga::is_confirmed(&self.steps, &marks)
    }

    async fn run_step(&mut self, step: Step) -> Result<(), Failure> {
        let attempt = self.begun(Mark::Started(step)) + 1;
        if attempt > deadline::MOST_ATTEMPTS && self.is_past_pivot() {
            return self.give_up(step).await;
        }
        self.enter(Phase::Running(step));
        let span = tracing::info_span!("step", name = %step, attempt);
        async {
            let workers = self.workers().await?;
            let undo = match self.undo_information_in_time(step, &workers).await {
                Ok(undo) => undo,
                Err(failure) => {
                    self.log(Entry::new(Mark::Started(step))).await?;
                    return self.step_failed(step, failure).await;
                }
            };
            let started = Entry::new(Mark::Started(step));
            self.log(undo.map_or(started.clone(), |undo| started.with(undo))).await?;
            match self.effect_in_time(step, workers).await {
                Ok(payload) => self.step_succeeded(step, payload).await,
                Err(failure) => self.step_failed(step, failure).await,
            }
        }
        .instrument(span)
        .await
    }

    async fn undo_information_in_time(
        &mut self,
        step: Step,
        workers: &Workers,
    ) -> Result<Option<Payload>, Failure> {
        let limit = deadline::OF_UNDO;
        // It only reads: what hangs there may be left behind.
        let read = timeout(limit, self.undo_information(step, workers)).await;
        read.unwrap_or_else(|_| Err(hung(step, limit)))
    }

    /// The step's effect; or, once its time is up, the failure that says so when it has returned.
    async fn effect_in_time(
        &mut self,
        step: Step,
        workers: Workers,
    ) -> Result<Option<Payload>, Failure> {
        let limit = deadline::of_step(step, self.parts.settings.dwell);
        let (id, interruption) = (self.id, self.interruption.clone());
        let last_resort = self.parts.last_resort.clone();
        let effect = self.effect(step, workers);
        tokio::pin!(effect);
        if let Ok(result) = timeout(limit, &mut effect).await {
            return result;
        }
        let hung = hung(step, limit);
        tracing::error!(transaction = %id, %step, "{hung}");
        interruption.expire();
        if timeout(deadline::GRACE, &mut effect).await.is_err() {
            last_resort.take(id, &hung.message);
            std::future::pending::<()>().await;
        }
        Err(hung)
    }

    /// How often something was begun, by this daemon and earlier ones, since the transaction began
    /// or was last taken up again.
    fn begun(&self, mark: Mark) -> usize {
        let entries = self.entries.iter().rev();
        entries.take_while(|e| e.mark != Mark::Reopened).filter(|e| e.mark == mark).count()
    }

    async fn step_succeeded(
        &mut self,
        step: Step,
        payload: Option<Payload>,
    ) -> Result<(), Failure> {
        let entry = Entry::new(Mark::Succeeded(step));
        self.log(payload.map_or(entry.clone(), |payload| entry.with(payload))).await?;
        if step == Step::Confirm {
            self.confirmation.close(true);
        }
        let is_empty = self.facts.plan.as_ref().is_some_and(apt_ostree_proto::plan::Plan::is_empty);
        if step == Step::Plan && is_empty && self.steps.len() > 1 {
            self.log(Entry::new(Mark::Satisfied)).await?;
        }
        Ok(())
    }

    async fn step_failed(&mut self, step: Step, failure: Failure) -> Result<(), Failure> {
        self.go_on_with_the_bus(&failure).await;
        let failure = match self.interruption.tripped() {
            Some(why) if failure.code == ErrorCode::Cancelled => {
                self.abort(why).await?;
                failure_of(why)
            }
            _ => failure,
        };
        told::step_failed(self.id, step, &failure);
        self.log(Entry::new(Mark::Failed(step)).with(Payload::Failure(failure.clone()))).await?;
        if self.facts.failure.as_ref() == Some(&failure) {
            self.parts.publish.publish(Event::Failed { id: self.id, failure });
        }
        Ok(())
    }

    /// A step behind the pivot keeps failing: the update is kept all the same, with a warning. What
    /// is left undone is taken up by the next transaction's clean-up.
    async fn give_up(&mut self, step: Step) -> Result<(), Failure> {
        let why = self.facts.failure.take().map(|failure| failure.message).unwrap_or_default();
        let warning = format!("{} did not complete: {why}", step.title());
        told::gave_up(self.id, step, &why);
        let entry = Entry::new(Mark::Succeeded(step)).with(Payload::Warnings(vec![warning]));
        self.log(entry).await
    }

    async fn undo_step(&mut self, step: Step) -> Result<(), Failure> {
        self.progress.freeze();
        if step.leaves_work_to_undo() {
            self.enter(Phase::Undoing(step));
        }
        let span = tracing::info_span!("undo", name = %step);
        async {
            let attempts = self.begun(Mark::UndoStarted(step));
            self.log(Entry::new(Mark::UndoStarted(step))).await?;
            let workers = self.workers().await?;
            let undone = if attempts < deadline::MOST_ATTEMPTS {
                match timeout(deadline::OF_UNDO, self.undo_effect(step, workers)).await {
                    Ok(undone) => undone,
                    Err(_) => self.end_process(&hung(step, deadline::OF_UNDO).message).await,
                }
            } else {
                let text = format!("the undo of {step} was begun {attempts} times and never ended");
                Err(Failure::new(ErrorCode::Internal, text))
            };
            match undone {
                Ok(warnings) if warnings.is_empty() => {
                    self.log(Entry::new(Mark::Undone(step))).await
                }
                Ok(warnings) => {
                    let payload = Payload::Warnings(warnings);
                    self.log(Entry::new(Mark::Undone(step)).with(payload)).await
                }
                Err(failure) => {
                    self.go_on_with_the_bus(&failure).await;
                    told::undo_failed(self.id, step, &failure);
                    let payload = Payload::Failure(failure);
                    self.log(Entry::new(Mark::UndoFailed(step)).with(payload)).await
                }
            }
        }
        .instrument(span)
        .await
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    async fn finish(&mut self, outcome: Outcome) -> Result<HistoryRecord, Failure> {
        let outcome = match outcome {
            Outcome::Committed if self.is_forced() => Outcome::Forced,
            other => other,
        };
        if outcome.is_success() {
            self.progress.complete();
        }
        self.run_last_hooks(outcome).await;
        let record = self.end_in_journal(outcome).await?;
        told::ended(&record);
        self.enter(Phase::Finished(outcome));
        Ok(record)
    }

    /// Whether it went past a named risk.
    fn is_forced(&self) -> bool {
        let committed = self.facts.committed.as_ref();
        committed.is_some_and(|committed| !committed.delta.live_data.is_empty())
    }

    fn record(&self, outcome: Outcome) -> HistoryRecord {
        let plan = self.facts.plan.clone();
        let committed = self.facts.committed.as_ref();
        let failure = self.facts.failure.clone().or_else(|| self.why_aborted());
        HistoryRecord {
            id: self.id,
            title: self.title.clone(),
            request: self.request.clone(),
            caller: self.caller.clone(),
            started_seconds: self.started_seconds,
            duration_milliseconds: u64::try_from(self.began.elapsed().as_millis())
                .unwrap_or(u64::MAX),
            outcome,
            failure: (!outcome.is_success()).then_some(failure).flatten().map(|f| kept(f, outcome)),
            base: plan.as_ref().map(|plan| plan.base.clone()),
            commit: committed.map(|committed| committed.tree.commit.clone()),
            changes: plan.map(|plan| plan.changes).unwrap_or_default(),
            units: committed.map(|c| c.services.effects.clone()).unwrap_or_default(),
            steps: durations(&self.entries),
            warnings: self.facts.warnings.clone(),
            followed_by: None,
        }
    }

    fn why_aborted(&self) -> Option<Failure> {
        self.entries.iter().find_map(|entry| match entry.mark {
            Mark::Aborted(why) => Some(failure_of(why)),
            _ => None,
        })
    }

    /// Writes an entry, durably where anything depends on it, then takes it in.
    async fn log(&mut self, entry: Entry) -> Result<(), Failure> {
        let (id, written) = (self.id, entry.clone());
        self.parts.journal.write(move |journal| journal.append(id, &written)).await?;
        self.facts.take(&entry);
        self.entries.push(entry);
        Ok(())
    }

    pub(super) async fn workers(&self) -> Result<Workers, Failure> {
        self.parts
            .supervisor
            .send(GetWorkers)
            .await
            .map_err(|error| Failure::caused(ErrorCode::Internal, "the supervisor is gone", &error))
    }
}

fn hung(step: Step, limit: Duration) -> Failure {
    let text = format!("{} did not end within {} minutes", step.title(), limit.as_secs() / 60);
    Failure::new(ErrorCode::TimedOut, text)
}

fn failure_of(why: Abort) -> Failure {
    match why {
        Abort::Cancelled => Failure::new(ErrorCode::Cancelled, "the transaction was cancelled"),
        Abort::Interrupted => Failure::new(
            ErrorCode::Interrupted,
            "the daemon or the host stopped in the middle of the transaction",
        ),
    }
}

/// Says what state the host is in after `failure`, unless the failure itself does.
fn kept(failure: Failure, outcome: Outcome) -> Failure {
    if failure.kept.is_some() {
        return failure;
    }
    match outcome {
        Outcome::Failed => failure.with_kept("nothing was changed"),
        Outcome::RolledBack | Outcome::Cancelled => {
            failure.with_kept("everything was put back: the host is as it was")
        }
        Outcome::Stuck => failure.with_kept(
            "an undo failed: the host is between the two states until apt-ostree repair has run",
        ),
        _ => failure,
    }
}
