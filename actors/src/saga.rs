//! What comes next, decided from the journal alone.
//!
//! One rule serves failure, crash recovery and cancel: *undo every step with a started record,
//! newest first*. [`next`] is pure: the same log gives the same command, so that a daemon that was
//! killed continues exactly where it was.
//!
//! Deploy is the pivot. Once it has succeeded nothing is undone any more; what follows is run again
//! until it succeeds. What waits for a confirmation outlives its daemon: see [`legacy`].

use apt_ostree_proto::status::Outcome;
use apt_ostree_proto::step::Step;
use serde::{Deserialize, Serialize};

/// One entry of a transaction's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// The step may have had an effect from here on.
    Started(Step),
    /// The step is done.
    Succeeded(Step),
    /// The step failed; its effect may or may not have happened.
    Failed(Step),
    /// There is nothing to do: the remaining steps are skipped.
    Satisfied,
    /// Somebody cancelled, the daemon is about to stop, or it was found dead in the middle.
    Aborted(Abort),
    /// The undo of the step may have had an effect from here on.
    UndoStarted(Step),
    /// The step's effect is gone.
    Undone(Step),
    /// The undo failed.
    UndoFailed(Step),
    /// The transaction has ended.
    Finished(Outcome),
    /// A transaction that ended stuck is taken up again: what could not be undone is tried anew.
    Reopened,
}

impl Mark {
    /// Whether the entry has to be on the disk before the transaction goes on. The others get there
    /// with the next one that has to, in their order: a power cut that loses them finds a step that
    /// has no effect or was started only, and an undo that runs once more.
    pub fn must_be_durable(self) -> bool {
        let has_effect = |step| !matches!(step, Step::Plan | Step::Verify | Step::CheckHealth);
        match self {
            Self::Started(step) | Self::Undone(step) => has_effect(step),
            // Who confirmed is answered once that cannot be forgotten.
            Self::Succeeded(step) => step >= Step::Confirm,
            Self::UndoStarted(_) => false,
            Self::Failed(_)
            | Self::Satisfied
            | Self::Aborted(_)
            | Self::UndoFailed(_)
            | Self::Finished(_)
            | Self::Reopened => true,
        }
    }
}

/// Why a transaction unwinds although no step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Abort {
    /// A caller cancelled it.
    Cancelled,
    /// The daemon was stopped or died in the middle of it.
    Interrupted,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run this step.
    Run(Step),
    /// Undo this step.
    Undo(Step),
    /// Write down that the transaction has ended so.
    Finish(Outcome),
    /// The transaction has ended; there is nothing to do.
    Rest,
}

/// A log that no run of this saga can have written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IllegalLog {
    /// A step that the transaction does not have.
    #[error("the log names the step {0}, which the transaction does not have")]
    ForeignStep(Step),
    /// A step ended that never started.
    #[error("the log ends the step {0}, which never started")]
    NeverStarted(Step),
    /// A step started out of order.
    #[error("the log starts the step {0} before an earlier one was done")]
    OutOfOrder(Step),
    /// Entries after the end.
    #[error("the log goes on after its end")]
    AfterTheEnd,
}

/// How one step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Untouched,
    Started,
    Succeeded,
    Failed,
    UndoFailed,
    Undone,
}

/// Decides what comes next for a transaction of `steps` with this `log`.
pub fn next(steps: &[Step], log: &[Mark]) -> Result<Command, IllegalLog> {
    let fold = Fold::over(steps, log)?;
    if fold.finished {
        return Ok(Command::Rest);
    }
    if fold.pivoted() {
        return Ok(fold
            .next_unfinished()
            .map_or(Command::Finish(Outcome::Committed), Command::Run));
    }
    if fold.unwinding() {
        return Ok(fold.unwind());
    }
    if fold.satisfied {
        return Ok(Command::Finish(Outcome::NothingToDo));
    }
    Ok(fold.next_unfinished().map_or(Command::Finish(fold.outcome_without_pivot()), Command::Run))
}

/// Whether `log` shows that the pivot is behind.
pub fn is_past_pivot(steps: &[Step], log: &[Mark]) -> bool {
    Fold::over(steps, log).is_ok_and(|fold| fold.pivoted())
}

/// Whether `log` shows that somebody confirmed the update, and that nothing has failed since: no
/// request to stop counts any more.
pub fn is_confirmed(steps: &[Step], log: &[Mark]) -> bool {
    Fold::over(steps, log).is_ok_and(|fold| {
        !fold.unwinding() && fold.stands(Step::Confirm) == Some(Standing::Succeeded)
    })
}

/// How often the pivot of a confirmed update is begun, by one daemon after the other: one that keeps
/// dying in it had better put the host back.
const MOST_PIVOTS: usize = 3;

/// What becomes of a transaction whose daemon died before the pivot, in the boot that it began in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Legacy {
    /// It is undone: nobody knows how far the step got.
    Unwinds,
    /// It waits on for its confirmation, until the same moment: nothing happens while it waits, so
    /// nothing was interrupted.
    Waits,
    /// It goes on: somebody confirmed it, and was told that it is kept.
    GoesOn,
}

/// Decides what becomes of a transaction that a dead daemon left with this `log`.
pub fn legacy(steps: &[Step], log: &[Mark]) -> Legacy {
    let Ok(fold) = Fold::over(steps, log) else { return Legacy::Unwinds };
    if fold.finished || fold.unwinding() {
        return Legacy::Unwinds;
    }
    let pivots = log.iter().filter(|mark| **mark == Mark::Started(Step::Deploy)).count();
    match fold.stands(Step::Confirm) {
        Some(Standing::Started) => Legacy::Waits,
        Some(Standing::Succeeded) if pivots < MOST_PIVOTS => Legacy::GoesOn,
        _ => Legacy::Unwinds,
    }
}

struct Fold<'a> {
    steps: &'a [Step],
    standing: Vec<Standing>,
    aborted: Option<Abort>,
    satisfied: bool,
    finished: bool,
}

impl<'a> Fold<'a> {
    fn over(steps: &'a [Step], log: &[Mark]) -> Result<Self, IllegalLog> {
        let mut fold = Self {
            steps,
            standing: vec![Standing::Untouched; steps.len()],
            aborted: None,
            satisfied: false,
            finished: false,
        };
        for mark in log {
            fold.take(*mark)?;
        }
        Ok(fold)
    }

    fn take(&mut self, mark: Mark) -> Result<(), IllegalLog> {
        if self.finished && mark != Mark::Reopened {
            return Err(IllegalLog::AfterTheEnd);
        }
        match mark {
            Mark::Started(step) => {
                let index = self.index(step)?;
                if self.standing[..index].iter().any(|s| *s != Standing::Succeeded) {
                    return Err(IllegalLog::OutOfOrder(step));
                }
                self.standing[index] = Standing::Started;
            }
            Mark::Succeeded(step) => self.set_started(step, Standing::Succeeded)?,
            // An undo that was begun is begun again: every undo is idempotent.
            Mark::Failed(step) | Mark::UndoStarted(step) => {
                self.set_started(step, Standing::Failed)?;
            }
            Mark::Undone(step) => self.set_started(step, Standing::Undone)?,
            Mark::UndoFailed(step) => self.set_started(step, Standing::UndoFailed)?,
            Mark::Aborted(abort) => self.aborted = self.aborted.or(Some(abort)),
            Mark::Satisfied => self.satisfied = true,
            Mark::Finished(_) => self.finished = true,
            Mark::Reopened => self.reopen(),
        }
        Ok(())
    }

    fn reopen(&mut self) {
        self.finished = false;
        for standing in &mut self.standing {
            if *standing == Standing::UndoFailed {
                *standing = Standing::Failed;
            }
        }
    }

    fn index(&self, step: Step) -> Result<usize, IllegalLog> {
        self.steps.iter().position(|s| *s == step).ok_or(IllegalLog::ForeignStep(step))
    }

    fn set_started(&mut self, step: Step, standing: Standing) -> Result<(), IllegalLog> {
        let index = self.index(step)?;
        if self.standing[index] == Standing::Untouched {
            return Err(IllegalLog::NeverStarted(step));
        }
        self.standing[index] = standing;
        Ok(())
    }

    fn pivoted(&self) -> bool {
        self.steps
            .iter()
            .zip(&self.standing)
            .any(|(step, standing)| *step == Step::Deploy && *standing == Standing::Succeeded)
    }

    fn stands(&self, step: Step) -> Option<Standing> {
        self.index(step).ok().map(|index| self.standing[index])
    }

    fn unwinding(&self) -> bool {
        self.aborted.is_some()
            || self.standing.iter().any(|standing| {
                matches!(standing, Standing::Failed | Standing::UndoFailed | Standing::Undone)
            })
    }

    fn unwind(&self) -> Command {
        if self.standing.contains(&Standing::UndoFailed) {
            return Command::Finish(Outcome::Stuck);
        }
        let newest = self.steps.iter().zip(&self.standing).rev().find(|(_, standing)| {
            matches!(standing, Standing::Started | Standing::Succeeded | Standing::Failed)
        });
        match newest {
            Some((step, _)) => Command::Undo(*step),
            None => Command::Finish(self.outcome_of_unwind()),
        }
    }

    fn outcome_of_unwind(&self) -> Outcome {
        let left_work =
            self.steps.iter().zip(&self.standing).any(|(step, standing)| {
                step.leaves_work_to_undo() && *standing != Standing::Untouched
            });
        match (self.aborted, left_work) {
            (Some(Abort::Cancelled), _) => Outcome::Cancelled,
            (_, true) => Outcome::RolledBack,
            (_, false) => Outcome::Failed,
        }
    }

    /// A transaction whose steps have no pivot only looks: it makes a plan.
    fn outcome_without_pivot(&self) -> Outcome {
        if self.steps.contains(&Step::Deploy) { Outcome::Committed } else { Outcome::Planned }
    }

    fn next_unfinished(&self) -> Option<Step> {
        self.steps
            .iter()
            .zip(&self.standing)
            .find(|(_, standing)| **standing != Standing::Succeeded)
            .map(|(step, _)| *step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Mark::{Aborted, Failed, Finished, Started, Succeeded, UndoFailed, UndoStarted, Undone};

    const STEPS: &[Step] = Step::FROM_PACKAGES;

    #[test]
    fn a_log_without_its_last_entries_that_need_not_be_durable_has_nothing_started_less() {
        let effects = [Step::Download, Step::Stage, Step::Install, Step::Commit, Step::StopUnits];
        for step in effects.into_iter().chain([Step::Switch, Step::StartUnits, Step::Deploy]) {
            assert!(Started(step).must_be_durable(), "{step}");
        }
        let pivoted = run(STEPS, |command| match command {
            Command::Run(step) => vec![Started(step), Succeeded(step)],
            other => panic!("{other:?}"),
        });
        // A power cut at any point: what is found afterwards leads to the same side of the pivot.
        for end in 1..pivoted.len() {
            let durable =
                (0..end).rev().find(|at| pivoted[*at].must_be_durable()).map_or(0, |at| at + 1);
            let (whole, found) = (&pivoted[..end], &pivoted[..durable]);
            assert_eq!(is_past_pivot(STEPS, whole), is_past_pivot(STEPS, found), "{whole:?}");
            let effects = |log: &[Mark]| {
                let effect = |mark: &&Mark| matches!(mark, Started(step) if Started(*step).must_be_durable());
                log.iter().filter(effect).copied().collect::<Vec<_>>()
            };
            assert_eq!(effects(whole), effects(found), "{whole:?}");
        }
    }

    fn run(steps: &[Step], mut answer: impl FnMut(Command) -> Vec<Mark>) -> Vec<Mark> {
        let mut log = Vec::new();
        for _ in 0..100 {
            let command = next(steps, &log).unwrap();
            match command {
                Command::Rest => return log,
                Command::Finish(outcome) => log.push(Finished(outcome)),
                command => log.extend(answer(command)),
            }
        }
        panic!("the saga does not end: {log:?}");
    }

    fn succeed(command: Command) -> Vec<Mark> {
        match command {
            Command::Run(step) => vec![Started(step), Succeeded(step)],
            Command::Undo(step) => vec![UndoStarted(step), Undone(step)],
            Command::Finish(_) | Command::Rest => unreachable!(),
        }
    }

    #[test]
    fn every_step_runs_once_in_order_when_none_fails() {
        let log = run(STEPS, succeed);
        let ran: Vec<Step> =
            log.iter().filter_map(|m| if let Started(s) = m { Some(*s) } else { None }).collect();
        assert_eq!(ran, STEPS);
        assert_eq!(log.last(), Some(&Finished(Outcome::Committed)));
    }

    #[test]
    fn a_failure_at_any_step_undoes_all_that_started_newest_first() {
        for (index, failing) in STEPS.iter().enumerate().take(STEPS.len() - 1) {
            let log = run(STEPS, |command| match command {
                Command::Run(step) if step == *failing => vec![Started(step), Failed(step)],
                other => succeed(other),
            });
            let undone: Vec<Step> = log
                .iter()
                .filter_map(|m| if let Undone(s) = m { Some(*s) } else { None })
                .collect();
            let mut expected = STEPS[..=index].to_vec();
            expected.reverse();
            assert_eq!(undone, expected, "failing at {failing}");
            let outcome =
                if failing.leaves_work_to_undo() { Outcome::RolledBack } else { Outcome::Failed };
            assert_eq!(log.last(), Some(&Finished(outcome)), "failing at {failing}");
        }
    }

    #[test]
    fn a_crash_after_any_entry_resumes_to_an_end() {
        let golden = run(STEPS, succeed);
        for cut in 0..golden.len() {
            let mut log = golden[..cut].to_vec();
            if !is_past_pivot(STEPS, &log) {
                log.push(Aborted(Abort::Interrupted));
            }
            for _ in 0..100 {
                match next(STEPS, &log).unwrap() {
                    Command::Rest => break,
                    Command::Finish(outcome) => log.push(Finished(outcome)),
                    command => log.extend(succeed(command)),
                }
            }
            let started: Vec<_> =
                log.iter().filter(|m| matches!(m, Started(s) if s.leaves_work_to_undo())).collect();
            match log.last() {
                Some(Finished(Outcome::Committed)) => {
                    assert!(is_past_pivot(STEPS, &log[..log.len() - 1]));
                }
                Some(Finished(Outcome::RolledBack)) => assert!(!started.is_empty()),
                Some(Finished(Outcome::Failed)) => assert!(started.is_empty()),
                other => panic!("cut at {cut}: {other:?}"),
            }
        }
    }

    #[test]
    fn only_what_waits_or_was_confirmed_survives_its_daemon() {
        let steps = &Step::with_confirmation(STEPS);
        let golden = run(steps, succeed);
        for cut in 0..golden.len() {
            let log = &golden[..cut];
            let expected = match log.last() {
                Some(Started(Step::Confirm)) => Legacy::Waits,
                Some(Succeeded(Step::Confirm) | Started(Step::Deploy)) => Legacy::GoesOn,
                _ => continue,
            };
            assert_eq!(legacy(steps, log), expected, "{log:?}");
            let is_confirmed = expected == Legacy::GoesOn;
            assert_eq!(super::is_confirmed(steps, log), is_confirmed, "{log:?}");
            let command = next(steps, log).unwrap();
            let step = if is_confirmed { Step::Deploy } else { Step::Confirm };
            assert_eq!(command, Command::Run(step), "{log:?}");
            for end in [Aborted(Abort::Cancelled), Failed(Step::Confirm), Failed(Step::StopUnits)] {
                let ended = [log, &[end]].concat();
                assert_eq!(legacy(steps, &ended), Legacy::Unwinds, "{ended:?}");
                assert!(!super::is_confirmed(steps, &ended), "{ended:?}");
            }
        }
        let before = golden.iter().position(|mark| *mark == Started(Step::Confirm)).unwrap();
        for cut in 0..before {
            assert_eq!(legacy(steps, &golden[..cut]), Legacy::Unwinds, "{:?}", &golden[..cut]);
        }
        // Without a confirmation nothing does.
        let golden = run(STEPS, succeed);
        for cut in 0..golden.len() - 4 {
            assert_eq!(legacy(STEPS, &golden[..cut]), Legacy::Unwinds, "{:?}", &golden[..cut]);
        }
    }

    #[test]
    fn a_daemon_that_keeps_dying_in_the_pivot_does_not_try_for_ever() {
        let steps = &Step::with_confirmation(STEPS);
        let mut log: Vec<Mark> =
            steps[..11].iter().flat_map(|step| [Started(*step), Succeeded(*step)]).collect();
        for expected in [Legacy::GoesOn, Legacy::GoesOn, Legacy::Unwinds] {
            log.push(Started(Step::Deploy));
            assert_eq!(legacy(steps, &log), expected);
        }
    }

    #[test]
    fn an_update_that_is_not_confirmed_is_put_back_whole() {
        let steps = &Step::with_confirmation(STEPS);
        let log = run(steps, |command| match command {
            Command::Run(Step::Confirm) => {
                vec![Started(Step::Confirm), Started(Step::Confirm), Failed(Step::Confirm)]
            }
            other => succeed(other),
        });
        let undone = log.iter().filter(|mark| matches!(mark, Undone(_))).count();
        assert_eq!(undone, steps.len() - 2);
        assert_eq!(log.last(), Some(&Finished(Outcome::RolledBack)));
    }

    #[test]
    fn an_undo_that_was_begun_is_begun_again_after_a_crash() {
        let log = [Started(Step::Plan), Failed(Step::Plan), UndoStarted(Step::Plan)];
        assert_eq!(next(STEPS, &log), Ok(Command::Undo(Step::Plan)));
    }

    #[test]
    fn a_failed_undo_ends_stuck_and_a_repair_takes_it_up_again() {
        let mut log = vec![
            Started(Step::Plan),
            Succeeded(Step::Plan),
            Started(Step::Download),
            Failed(Step::Download),
            UndoStarted(Step::Download),
            UndoFailed(Step::Download),
        ];
        assert_eq!(next(STEPS, &log), Ok(Command::Finish(Outcome::Stuck)));
        log.extend([Finished(Outcome::Stuck), Mark::Reopened]);
        assert_eq!(next(STEPS, &log), Ok(Command::Undo(Step::Download)));
        log.extend([UndoStarted(Step::Download), Undone(Step::Download)]);
        assert_eq!(next(STEPS, &log), Ok(Command::Undo(Step::Plan)));
    }

    #[test]
    fn after_the_pivot_a_failure_is_tried_again_and_nothing_is_undone() {
        let mut log: Vec<Mark> =
            STEPS[..11].iter().flat_map(|s| [Started(*s), Succeeded(*s)]).collect();
        assert_eq!(next(STEPS, &log), Ok(Command::Run(Step::Finalize)));
        log.extend([Started(Step::Finalize), Failed(Step::Finalize), Aborted(Abort::Cancelled)]);
        assert_eq!(next(STEPS, &log), Ok(Command::Run(Step::Finalize)));
    }

    #[test]
    fn a_cancel_is_an_outcome_of_its_own() {
        let log = [
            Started(Step::Plan),
            Succeeded(Step::Plan),
            Aborted(Abort::Cancelled),
            UndoStarted(Step::Plan),
            Undone(Step::Plan),
        ];
        assert_eq!(next(STEPS, &log), Ok(Command::Finish(Outcome::Cancelled)));
    }

    #[test]
    fn a_dry_run_ends_with_its_plan() {
        let log = [Started(Step::Plan), Succeeded(Step::Plan)];
        assert_eq!(next(&[Step::Plan], &log), Ok(Command::Finish(Outcome::Planned)));
    }

    #[test]
    fn nothing_to_do_ends_at_once() {
        let log = [Started(Step::Plan), Succeeded(Step::Plan), Mark::Satisfied];
        assert_eq!(next(STEPS, &log), Ok(Command::Finish(Outcome::NothingToDo)));
    }

    #[test]
    fn impossible_logs_are_refused() {
        use IllegalLog::{AfterTheEnd, ForeignStep, NeverStarted, OutOfOrder};
        let table: [(&[Step], Vec<Mark>, IllegalLog); 4] = [
            (&[Step::Plan], vec![Started(Step::Deploy)], ForeignStep(Step::Deploy)),
            (STEPS, vec![Succeeded(Step::Plan)], NeverStarted(Step::Plan)),
            (STEPS, vec![Started(Step::Download)], OutOfOrder(Step::Download)),
            (STEPS, vec![Finished(Outcome::Failed), Started(Step::Plan)], AfterTheEnd),
        ];
        for (steps, log, error) in table {
            assert_eq!(next(steps, &log), Err(error));
        }
    }
}
