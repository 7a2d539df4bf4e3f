//! Named rollback points: states that an admin wants to be able to go back to.
//!
//! A point is a row in the journal and a hold on its commit in the repository. The hold comes first and
//! goes last; one that nobody has a name for is dropped by the next clean-up.

use std::time::Duration;

use actix::{
    ActorFutureExt as _, Handler, Message, ResponseActFuture, ResponseFuture, WrapFuture as _,
};
use apt_ostree_proto::point::Point;
use apt_ostree_proto::request::{Caller, Target};
use apt_ostree_proto::status::Outcome;
use apt_ostree_proto::{CommitId, ErrorCode, Failure, PointName, TransactionId};

use super::forward::ask;
use super::{Coordinator, Parts};
use crate::journal::{Journal, LONGEST_WAY_BACK, seconds_now};
use crate::overlay::{DescribeHost, HoldPoint, ReleasePoint};
use crate::supervisor::{GetWorkers, Workers};

/// How many points can have a name: each may keep a whole tree, and everybody has to find their way
/// through the list.
pub const MOST_POINTS: usize = 20;

/// Naming a state is a look at the host and one small file; what takes longer does not come back.
const LONGEST_NAMING: Duration = Duration::from_secs(60);

/// Request: give a state a name; from then on it is kept. Idempotent. `Busy` while a transaction runs,
/// `NotFound` when the state is not there any more, `InvalidArgument` when another state has the name,
/// `LimitReached` when there are [`MOST_POINTS`].
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Point, Failure>")]
pub struct NamePoint {
    /// The name.
    pub name: PointName,
    /// The update that led to the state; what runs now for none.
    pub after: Option<TransactionId>,
    /// Who asks.
    pub caller: Caller,
}

impl Handler<NamePoint> for Coordinator {
    type Result = ResponseActFuture<Self, Result<Point, Failure>>;

    fn handle(&mut self, request: NamePoint, _: &mut Self::Context) -> Self::Result {
        let refused = self.refuse_if_busy(false).and_then(|()| self.refuse_if_stuck());
        if let Err(failure) = refused {
            return Box::pin(actix::fut::err(failure));
        }
        // A clean-up that does not know the name yet must not begin before it is written down.
        self.naming = true;
        let named = in_time(name_point(self.parts(), request)).into_actor(self);
        Box::pin(named.map(|result, this, _| {
            this.naming = false;
            result
        }))
    }
}

async fn name_point(parts: Parts, request: NamePoint) -> Result<Point, Failure> {
    let NamePoint { name, after, caller } = request;
    let workers = workers(&parts).await?;
    let (after, commit) = if let Some(id) = after {
        (id, parts.journal.with(move |journal| state_after(journal, id)).await?)
    } else {
        let host = ask(&workers.overlay, DescribeHost).await?;
        let newest = parts.journal.with(|journal| journal.newest_in_effect(1)).await?;
        (newest.first().map_or(TransactionId(0), |record| record.id), host.running)
    };
    let named_seconds = seconds_now();
    let point = Point { name, after, commit, named_seconds, uid: caller.uid };
    let points = parts.journal.with(Journal::points).await?;
    if let Some(known) = points.iter().find(|known| known.name == point.name) {
        return if (known.after, &known.commit) == (point.after, &point.commit) {
            Ok(known.clone())
        } else {
            Err(taken(&point.name))
        };
    }
    if points.len() >= MOST_POINTS {
        let text = format!("there are {MOST_POINTS} named rollback points already");
        return Err(Failure::new(ErrorCode::LimitReached, text));
    }
    let request = HoldPoint { name: point.name.clone(), commit: point.commit.clone() };
    ask(&workers.overlay, request).await?;
    let written = point.clone();
    parts.journal.write(move |journal| journal.add_point(&written)).await?;
    let Point { name, after, uid, .. } = &point;
    tracing::info!(uid, "the state after transaction {after} is named {name}");
    Ok(point)
}

async fn in_time<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(LONGEST_NAMING, work).await.unwrap_or_else(|_| {
        let text = format!("the repository did not answer within {} s", LONGEST_NAMING.as_secs());
        Err(Failure::new(ErrorCode::TimedOut, text))
    })
}

fn taken(name: &PointName) -> Failure {
    let text = format!("another state is named \"{name}\" already");
    let hint =
        format!("Choose another name, or remove that one: apt-ostree point --remove {name}.");
    Failure::new(ErrorCode::InvalidArgument, text).with_hint(hint)
}

async fn workers(parts: &Parts) -> Result<Workers, Failure> {
    let gone = |error: actix::MailboxError| {
        Failure::caused(ErrorCode::Internal, "the supervisor is gone", &error)
    };
    parts.supervisor.send(GetWorkers).await.map_err(gone)
}

/// The same of an update that has taken effect: nobody was ever in the state that another leads to.
fn state_after(journal: &Journal, id: TransactionId) -> Result<CommitId, Failure> {
    let commit = commit_after(journal, id)?;
    let record = journal.record(id)?.into_iter().collect();
    if journal.in_effect(record)?.is_empty() {
        let text = format!("transaction {id} has not taken effect: it was to come with a boot");
        return Err(Failure::new(ErrorCode::NotFound, text));
    }
    Ok(commit)
}

/// The commit that an update led to.
pub(super) fn commit_after(journal: &Journal, id: TransactionId) -> Result<CommitId, Failure> {
    let record = journal.record(id)?;
    let kept = |outcome| matches!(outcome, Outcome::Committed | Outcome::Forced);
    record.filter(|record| kept(record.outcome)).and_then(|record| record.commit).ok_or_else(|| {
        let text = format!("transaction {id} is no update that was kept");
        Failure::new(ErrorCode::NotFound, text)
    })
}

/// Request: take a point's name away. What it kept is freed by the next clean-up. `NotFound` when
/// there is no such name.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), Failure>")]
pub struct RemovePoint(pub PointName);

impl Handler<RemovePoint> for Coordinator {
    type Result = ResponseFuture<Result<(), Failure>>;

    fn handle(&mut self, request: RemovePoint, _: &mut Self::Context) -> Self::Result {
        let (parts, refused) = (self.parts(), self.refuse_if_busy(false));
        Box::pin(async move {
            refused?;
            let RemovePoint(name) = request;
            let removed = name.clone();
            if !parts.journal.with(move |journal| journal.remove_point(&removed)).await? {
                return Err(unknown(&name));
            }
            let released = in_time(async {
                let workers = workers(&parts).await?;
                ask(&workers.overlay, ReleasePoint(name.clone())).await
            });
            if let Err(failure) = released.await {
                tracing::warn!(%failure, "{name} is held until the next clean-up");
            }
            Ok(())
        })
    }
}

fn unknown(name: &PointName) -> Failure {
    let text = format!("there is no rollback point \"{name}\"");
    Failure::new(ErrorCode::NotFound, text).with_hint("See apt-ostree point.")
}

/// The point of this name.
pub(super) fn find(journal: &Journal, name: &PointName) -> Result<Point, Failure> {
    journal.point(name)?.ok_or_else(|| unknown(name))
}

/// Request: what a rollback to this point asks for: to undo all that came after it; or, when nothing
/// did, its commit.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Target, Failure>")]
pub struct TargetOfPoint(pub PointName);

impl Handler<TargetOfPoint> for Coordinator {
    type Result = ResponseFuture<Result<Target, Failure>>;

    fn handle(&mut self, request: TargetOfPoint, _: &mut Self::Context) -> Self::Result {
        let journal = self.journal.clone();
        Box::pin(async move { journal.with(move |journal| target_of(journal, &request.0)).await })
    }
}

fn target_of(journal: &Journal, name: &PointName) -> Result<Target, Failure> {
    let point = find(journal, name)?;
    let standing = journal.standing()?;
    let later = standing.later_than(&point).count();
    if later > LONGEST_WAY_BACK as usize {
        let text = format!(
            "{later} transactions came after \"{name}\", and only {LONGEST_WAY_BACK} can be undone"
        );
        let hint = format!(
            "Go to its tree without undoing changes of /var: apt-ostree apply-live --target={}.",
            point.commit
        );
        return Err(Failure::new(ErrorCode::NotFound, text).with_hint(hint));
    }
    Ok(match standing.first_after(&point) {
        Some(id) => Target::Before(id),
        None => Target::Commit(point.commit),
    })
}

#[cfg(test)]
mod tests {
    use apt_ostree_proto::record::HistoryRecord;
    use apt_ostree_proto::request::UpdateRequest;
    use apt_ostree_proto::step::Step;

    use super::*;
    use crate::journal::Entry;
    use crate::journal::tests::finished;
    use crate::saga::Mark;
    use crate::sim::sim_commit;

    fn update(journal: &Journal) {
        let request = UpdateRequest::new(Target::Pending);
        let id = journal.begin("x", &request, &Caller::default(), &[Step::Plan], None).unwrap();
        let outcome = Outcome::Committed;
        let record = HistoryRecord { request, ..finished(id, outcome) };
        journal.finish(&record, &Entry::new(Mark::Finished(outcome))).unwrap();
    }

    #[test]
    fn a_point_that_is_too_far_back_is_refused_with_another_way_to_its_tree() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        let name = PointName::parse("p").unwrap();
        let (after, commit) = (TransactionId(0), sim_commit(1));
        let point =
            Point { name: name.clone(), after, commit: commit.clone(), named_seconds: 0, uid: 0 };
        journal.add_point(&point).unwrap();
        assert_eq!(target_of(&journal, &name).unwrap(), Target::Commit(commit.clone()));
        for _ in 0..LONGEST_WAY_BACK {
            update(&journal);
        }
        assert_eq!(target_of(&journal, &name).unwrap(), Target::Before(TransactionId(1)));
        update(&journal);
        let refused = target_of(&journal, &name).unwrap_err();
        assert_eq!(refused.code, ErrorCode::NotFound);
        assert!(refused.hint.contains(commit.as_str()), "{refused:?}");
    }
}
