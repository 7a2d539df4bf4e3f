//! What can be read of the coordinator, between transactions and during one.

use std::path::PathBuf;

use actix::{Handler, Message, MessageResult, ResponseFuture};
use apt_ostree_proto::package::{PackageChange, UpdateClass};
use apt_ostree_proto::plan::{Plan, Refusal};
use apt_ostree_proto::record::{HistoryEntry, HistoryRecord};
use apt_ostree_proto::request::Target;
use apt_ostree_proto::status::{AwaitsBoot, HostState, LostJournal, TransactionStatus};
use apt_ostree_proto::{ErrorCode, Failure, PlanId, TransactionId};
use tokio::sync::watch;

use super::facts::Facts;
use super::forward::ask;
use super::{Coordinator, recovery};
use crate::journal::Journal;
use crate::overlay::DescribeHost;
use crate::supervisor::GetWorkers;

/// Request: the running transaction, if any, as it stands now.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Option<watch::Receiver<TransactionStatus>>")]
pub struct WatchTransaction;

impl Handler<WatchTransaction> for Coordinator {
    type Result = MessageResult<WatchTransaction>;

    fn handle(&mut self, _: WatchTransaction, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.running.as_ref().map(|running| running.status.clone()))
    }
}

/// Request: a transaction that has begun and not ended, as it stands now.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Option<watch::Receiver<TransactionStatus>>")]
pub struct WatchBegun(pub TransactionId);

impl Handler<WatchBegun> for Coordinator {
    type Result = MessageResult<WatchBegun>;

    fn handle(&mut self, request: WatchBegun, _: &mut Self::Context) -> Self::Result {
        let found = self.begun().find(|running| running.id == request.0);
        MessageResult(found.map(|running| running.status.clone()))
    }
}

/// Request: the host's state.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<HostState, Failure>")]
pub struct DescribeState;

impl Handler<DescribeState> for Coordinator {
    type Result = ResponseFuture<Result<HostState, Failure>>;

    fn handle(&mut self, _: DescribeState, _: &mut Self::Context) -> Self::Result {
        self.take_changed_settings();
        let (parts, configuration) = (self.parts(), self.unusable.clone());
        let transaction = self.running.as_ref().map(|running| running.status.borrow().clone());
        Box::pin(async move {
            let workers = parts.supervisor.send(GetWorkers).await.map_err(|error| {
                Failure::caused(ErrorCode::Internal, "the supervisor is gone", &error)
            })?;
            let host = ask(&workers.overlay, DescribeHost).await?;
            let running = host.running.clone();
            let (last, stuck, lost, points, kept, lacked, waiting) = parts
                .journal
                .with(move |journal| {
                    let (stuck, lost) = (journal.stuck()?.is_some(), journal.loss()?);
                    let (points, kept) = (journal.points()?, journal.kept_updates()?);
                    let lacked = recovery::lacked_by(journal, &running)?;
                    let waiting = journal.awaiting_boot()?;
                    Ok((journal.history(1)?, stuck, lost, points, kept, lacked, waiting))
                })
                .await?;
            // What is being done right now is no choice of anybody's.
            let lacked = if transaction.is_some() { Vec::new() } else { lacked };
            let last = last.into_iter().next();
            let boots_next = |record: &HistoryRecord| record.commit.as_ref() == Some(&host.next);
            let awaits_boot = waiting.filter(boots_next).map(awaits_boot);
            let stuck = stuck || lost.as_ref().is_some_and(LostJournal::is_suspect);
            Ok(HostState {
                os_name: host.os_name,
                booted: host.booted,
                running: host.running,
                next: host.next,
                foreign_pending: host.foreign_pending,
                transaction,
                stuck,
                lost,
                configuration,
                last,
                points,
                kept,
                left_out: lacked.into_iter().map(|record| record.id).collect(),
                awaits_boot,
            })
        })
    }
}

fn awaits_boot(record: HistoryRecord) -> AwaitsBoot {
    let waits = record.changes.iter().filter(|change| change.class != UpdateClass::Live);
    let reason = |change: &PackageChange| Refusal {
        subject: change.name.to_string(),
        reason: change.next_boot_reason().to_owned(),
    };
    AwaitsBoot {
        id: record.id,
        reasons: waits.map(reason).collect(),
        packages: record.changes.len(),
        title: record.title,
    }
}

/// Request: the history, newest first.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Vec<HistoryEntry>, Failure>")]
pub struct ReadHistory {
    /// At most so many records.
    pub limit: u32,
}

impl Handler<ReadHistory> for Coordinator {
    type Result = ResponseFuture<Result<Vec<HistoryEntry>, Failure>>;

    fn handle(&mut self, request: ReadHistory, _: &mut Self::Context) -> Self::Result {
        let journal = self.journal.clone();
        Box::pin(async move {
            journal.with(move |journal| journal.annotate(journal.history(request.limit)?)).await
        })
    }
}

/// Request: the newest update that was kept and not rolled back since.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Option<TransactionId>, Failure>")]
pub struct NewestUpdate;

impl Handler<NewestUpdate> for Coordinator {
    type Result = ResponseFuture<Result<Option<TransactionId>, Failure>>;

    fn handle(&mut self, _: NewestUpdate, _: &mut Self::Context) -> Self::Result {
        let journal = self.journal.clone();
        Box::pin(async move {
            let newest = journal.with(Journal::newest_update).await?;
            Ok(newest.map(|record| record.id))
        })
    }
}

/// Request: one finished transaction's record, and the file with the lines that its tools printed.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(HistoryRecord, PathBuf), Failure>")]
pub struct ReadRecord(pub TransactionId);

impl Handler<ReadRecord> for Coordinator {
    type Result = ResponseFuture<Result<(HistoryRecord, PathBuf), Failure>>;

    fn handle(&mut self, request: ReadRecord, _: &mut Self::Context) -> Self::Result {
        let journal = self.journal.clone();
        let log = self.settings.log_of(request.0);
        Box::pin(async move {
            let id = request.0;
            let record = journal.with(move |journal| journal.record(id)).await?;
            let text = format!("there is no finished transaction {id}");
            Ok((record.ok_or_else(|| Failure::new(ErrorCode::NotFound, text))?, log))
        })
    }
}

/// Request: what has become of a transaction since its record was written.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<HistoryEntry, Failure>")]
pub struct Annotate(pub Box<HistoryRecord>);

impl Handler<Annotate> for Coordinator {
    type Result = ResponseFuture<Result<HistoryEntry, Failure>>;

    fn handle(&mut self, request: Annotate, _: &mut Self::Context) -> Self::Result {
        let journal = self.journal.clone();
        Box::pin(async move {
            let annotated = journal.with(move |journal| journal.annotate(vec![*request.0])).await?;
            let none = || Failure::new(ErrorCode::Internal, "a record was lost");
            annotated.into_iter().next().ok_or_else(none)
        })
    }
}

/// Request: the plan of a transaction, once it has one.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Option<Plan>, Failure>")]
pub struct ReadPlan(pub TransactionId);

impl Handler<ReadPlan> for Coordinator {
    type Result = ResponseFuture<Result<Option<Plan>, Failure>>;

    fn handle(&mut self, request: ReadPlan, _: &mut Self::Context) -> Self::Result {
        let journal = self.journal.clone();
        Box::pin(async move {
            let id = request.0;
            let recorded = journal.with(move |journal| journal.recorded(id)).await?;
            Ok(recorded.and_then(|recorded| Facts::of(&recorded.entries).plan))
        })
    }
}

/// Request: the plan whose id begins so, and what it was made for. `StalePlan` when this host never
/// made one.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(PlanId, Target), Failure>")]
pub struct FindPlan(pub String);

impl Handler<FindPlan> for Coordinator {
    type Result = ResponseFuture<Result<(PlanId, Target), Failure>>;

    fn handle(&mut self, request: FindPlan, _: &mut Self::Context) -> Self::Result {
        let journal = self.journal.clone();
        Box::pin(async move {
            let FindPlan(prefix) = request;
            let text = format!("no plan {prefix} is known on this host");
            let found = journal.with(move |journal| journal.plan_and_request(&prefix)).await?;
            let (plan, request) = found.ok_or_else(|| Failure::new(ErrorCode::StalePlan, text))?;
            Ok((plan.id, request.target))
        })
    }
}
