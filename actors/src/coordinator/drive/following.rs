//! What takes effect with the next boot only, and the transaction that sees to it.

use apt_ostree_proto::package::PackageChange;
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::request::{Selection, Target, UpdateRequest, When};
use apt_ostree_proto::status::Outcome;
use apt_ostree_proto::{Failure, PackageName};

use super::super::begin::steps_for;
use super::Drive;
use crate::journal::{Entry, FollowUp, Journal};
use crate::port::RebootAdvice;
use crate::saga::Mark;

impl Drive {
    /// Writes down that the transaction has ended so; and, in the same commit, that another one begins
    /// with what is left.
    pub(super) async fn end_in_journal(&self, outcome: Outcome) -> Result<HistoryRecord, Failure> {
        let (mut record, entry) = (self.record(outcome), Entry::new(Mark::Finished(outcome)));
        let is_done = outcome.is_success() && outcome != Outcome::Planned;
        let plan = self.facts.plan.clone().filter(|_| is_done);
        let rest = plan.map(|plan| plan.next_boot).unwrap_or_default();
        let takes_the_place = matches!(outcome, Outcome::Committed | Outcome::Forced);
        let (this, boot) = (self.request.clone(), self.parts.boot.clone());
        let caller = self.caller.clone();
        self.parts
            .journal
            .write(move |journal| {
                let waited = waited_until_now(journal, &this, takes_the_place)?;
                let Some(request) = request_for(&this, &rest, waited.as_ref()) else {
                    let dropped = waited.filter(|waited| !has_all_of(&record, waited));
                    record.warnings.extend(dropped.map(|dropped| {
                        let id = dropped.id;
                        format!("transaction {id} does not wait for the next boot any more")
                    }));
                    journal.finish(&record, &entry)?;
                    return Ok(record);
                };
                let next = FollowUp {
                    title: format!("the rest of {}, with the next boot", record.id),
                    steps: steps_for(&request, false),
                    request,
                    caller: caller.clone(),
                };
                journal.finish_and_begin(&record, &entry, &next, boot.as_ref())
            })
            .await
    }

    /// What people are told to boot for, where this transaction changes that.
    pub(in super::super) async fn reboot_advice(&self) -> Result<Option<RebootAdvice>, Failure> {
        let names = |changes: &[PackageChange]| -> Vec<PackageName> {
            changes.iter().map(|change| change.name.clone()).collect()
        };
        let waited = self.parts.journal.with(Journal::awaiting_boot).await?;
        let withdrawn = waited.map(|record| names(&record.changes)).unwrap_or_default();
        let waiting = if self.is_live() { Vec::new() } else { names(&self.planned()?.changes) };
        let advice = RebootAdvice { waiting, withdrawn };
        Ok((advice != RebootAdvice::default()).then_some(advice))
    }
}

/// Whether a transaction changes all packages that another one does.
fn has_all_of(record: &HistoryRecord, other: &HistoryRecord) -> bool {
    let has = |change: &PackageChange| {
        record
            .changes
            .iter()
            .any(|own| (&own.name, &own.architecture) == (&change.name, &change.architecture))
    };
    other.changes.iter().all(has)
}

/// The update that has waited for the next boot so far, and does not any more: this one was deployed in
/// its place.
fn waited_until_now(
    journal: &Journal,
    this: &UpdateRequest,
    takes_the_place: bool,
) -> Result<Option<HistoryRecord>, Failure> {
    if !takes_the_place || undoes_what_waits(journal, this)? {
        return Ok(None);
    }
    journal.awaiting_boot()
}

/// Nobody wonders that it does not wait any more.
fn undoes_what_waits(journal: &Journal, this: &UpdateRequest) -> Result<bool, Failure> {
    let Target::Before(first) = this.target else { return Ok(false) };
    Ok(journal.awaiting_boot()?.is_some_and(|waiting| waiting.id >= first))
}

/// What has the rest of this transaction take effect with the next boot, and what had waited for it.
fn request_for(
    this: &UpdateRequest,
    rest: &[PackageChange],
    waited: Option<&HistoryRecord>,
) -> Option<UpdateRequest> {
    let at_boot = |target| UpdateRequest {
        target,
        when: When::NextBoot,
        refresh: false,
        plan: None,
        confirm_timeout_seconds: None,
        ..this.clone()
    };
    match (&this.target, this.when) {
        // It went by a plan that had what waited in it.
        (_, When::NextBoot) => None,
        (Target::Packages(_), _) => {
            let waited = waited.map(|record| record.changes.as_slice()).unwrap_or_default();
            let selection = Selection::of_changes(rest.iter().chain(waited));
            (!selection.is_whole_upgrade()).then(|| at_boot(Target::Packages(selection)))
        }
        (target, _) => (!rest.is_empty()).then(|| at_boot(target.clone())),
    }
}
