//! How a transaction begins.

use actix::{Context, Handler, Message};
use apt_ostree_proto::request::{Caller, Selection, Target, UpdateRequest, When};
use apt_ostree_proto::step::Step;
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};

use super::drive::Drive;
use super::{Coordinator, confirmation, told};
use crate::journal::{Entry, Journal};
use crate::saga::Mark;

/// Request: begin a transaction. Answers its number at once; what comes of it is published.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<TransactionId, Failure>")]
pub struct BeginTransaction {
    /// What was asked for, in one line, for people.
    pub title: String,
    /// What was asked for.
    pub request: UpdateRequest,
    /// Only make the plan.
    pub dry_run: bool,
    /// Who asks.
    pub caller: Caller,
}

impl Handler<BeginTransaction> for Coordinator {
    type Result = Result<TransactionId, Failure>;

    fn handle(
        &mut self,
        mut request: BeginTransaction,
        context: &mut Context<Self>,
    ) -> Self::Result {
        self.refuse_if_busy(request.dry_run)?;
        self.refuse_if_stuck()?;
        self.take_changed_settings();
        let timeout = confirmation::timeout_of(&request, &self.settings);
        request.request.confirm_timeout_seconds = timeout;
        self.join_with_what_waits(&mut request.request)?;
        let steps = steps_for(&request.request, request.dry_run);
        let id = self.journal.now(|journal| {
            let boot = self.boot.as_ref();
            journal.begin(&request.title, &request.request, &request.caller, &steps, boot)
        })?;
        told::begun(id, &request);
        let mut drive = Drive::begin(self.parts(), id, request, &steps);
        drive
            .facts
            .warnings
            .extend(self.unusable.as_ref().map(|why| format!("{why}; the last good one was used")));
        self.start_drive(drive, context);
        Ok(id)
    }
}

/// Request: take up the transaction that ended stuck, and try again to put it back. Answers its
/// number at once. `NotFound` when none is stuck.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<TransactionId, Failure>")]
pub struct RepairHost;

impl Handler<RepairHost> for Coordinator {
    type Result = Result<TransactionId, Failure>;

    fn handle(&mut self, _: RepairHost, context: &mut Context<Self>) -> Self::Result {
        self.refuse_if_busy(false)?;
        let none = || {
            Failure::new(ErrorCode::NotFound, "nothing is stuck")
                .with_hint("Nothing needs to be done.")
        };
        let id = self.journal.now(Journal::stuck)?.ok_or_else(none)?.id;
        let recorded = self.journal.now(|journal| {
            journal.reopen(id, &Entry::new(Mark::Reopened))?;
            journal.recorded(id)
        })?;
        let recorded = recorded.ok_or_else(none)?;
        tracing::info!(transaction = %id, "taken up again");
        self.start_drive(Drive::resume(self.parts(), recorded), context);
        Ok(id)
    }
}

impl Coordinator {
    /// One update waits for the next boot at the most: another one for it has both; and what only waits
    /// is undone without touching what runs.
    fn join_with_what_waits(&self, request: &mut UpdateRequest) -> Result<(), Failure> {
        let Some(waiting) = self.journal.now(Journal::awaiting_boot)? else { return Ok(()) };
        match &mut request.target {
            Target::Packages(selection)
                if request.when == When::NextBoot && !selection.is_whole_upgrade() =>
            {
                selection.add(&Selection::of_changes(&waiting.changes));
            }
            Target::Before(id) if *id == waiting.id => request.when = When::NextBoot,
            _ => {}
        }
        Ok(())
    }
}

/// The steps of a request.
pub(super) fn steps_for(request: &UpdateRequest, dry_run: bool) -> Vec<Step> {
    let at_boot = request.when == When::NextBoot;
    let steps = match &request.target {
        _ if dry_run => &[Step::Plan],
        Target::Packages(_) if at_boot => Step::FROM_PACKAGES_AT_BOOT,
        Target::Packages(_) => Step::FROM_PACKAGES,
        Target::Commit(_) | Target::Pending | Target::Before(_) if at_boot => {
            Step::FROM_COMMIT_AT_BOOT
        }
        Target::Commit(_) | Target::Pending | Target::Before(_) => Step::FROM_COMMIT,
    };
    match request.confirm_timeout_seconds {
        Some(_) => Step::with_confirmation(steps),
        None => steps.to_vec(),
    }
}
