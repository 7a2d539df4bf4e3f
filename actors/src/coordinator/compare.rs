//! What differs between two states of the host.

use std::time::Duration;

use actix::{Handler, Message, ResponseFuture};
use apt_ostree_proto::difference::{Difference, Side, TreeDifference};
use apt_ostree_proto::point::Reference;
use apt_ostree_proto::{CommitId, ErrorCode, Failure, TransactionId};
use tokio_util::sync::CancellationToken;

use super::forward::ask;
use super::points::{commit_after, find};
use super::{Coordinator, Parts};
use crate::context::{Reporter, StepContext};
use crate::journal::Journal;
use crate::overlay::{CompareTrees, DescribeHost};
use crate::package::ComparePackages;
use crate::port::HostTree;
use crate::supervisor::GetWorkers;

/// Two whole releases are compared in seconds.
const LONGEST_COMPARISON: Duration = Duration::from_secs(5 * 60);

/// Request: what differs between two states. `NotFound` when one of them is not there.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Difference, Failure>")]
pub struct CompareStates {
    /// The one.
    pub old: Reference,
    /// The other.
    pub new: Reference,
}

impl Handler<CompareStates> for Coordinator {
    type Result = ResponseFuture<Result<Difference, Failure>>;

    fn handle(&mut self, request: CompareStates, _: &mut Self::Context) -> Self::Result {
        let parts = self.parts();
        Box::pin(async move {
            let compared = tokio::time::timeout(LONGEST_COMPARISON, compare(&parts, request));
            compared.await.unwrap_or_else(|_| {
                let minutes = LONGEST_COMPARISON.as_secs() / 60;
                let text = format!("the comparison did not end within {minutes} minutes");
                Err(Failure::new(ErrorCode::TimedOut, text))
            })
        })
    }
}

async fn compare(parts: &Parts, request: CompareStates) -> Result<Difference, Failure> {
    let gone = |error: actix::MailboxError| {
        Failure::caused(ErrorCode::Internal, "the supervisor is gone", &error)
    };
    let workers = parts.supervisor.send(GetWorkers).await.map_err(gone)?;
    let host = ask(&workers.overlay, DescribeHost).await?;
    let (old, new) = parts
        .journal
        .with(move |journal| {
            Ok((resolve(journal, &host, &request.old)?, resolve(journal, &host, &request.new)?))
        })
        .await?;
    if old.commit == new.commit {
        let (packages, tree) = (Vec::new(), TreeDifference::default());
        return Ok(Difference { old, new, packages, tree });
    }
    // The worker processes are killed when nobody waits for them any more.
    let context = StepContext {
        transaction: TransactionId(0),
        cancel: CancellationToken::new(),
        report: Reporter::silent(),
    };
    let _killed_at_the_end = context.cancel.clone().drop_guard();
    let (old_commit, new_commit) = (old.commit.clone(), new.commit.clone());
    let request = CompareTrees { old: old_commit, new: new_commit, context: context.clone() };
    let tree = ask(&workers.overlay, request).await?;
    let (old_commit, new_commit) = (old.commit.clone(), new.commit.clone());
    let request = ComparePackages { old: old_commit, new: new_commit, context };
    let packages = ask(&workers.package, request).await?;
    Ok(Difference { old, new, packages, tree })
}

/// The state that a caller means.
fn resolve(journal: &Journal, host: &HostTree, reference: &Reference) -> Result<Side, Failure> {
    let commit = match reference {
        Reference::Running => host.running.clone(),
        Reference::Booted => host.booted.clone(),
        Reference::Next => host.next.clone(),
        Reference::Update(id) => commit_after(journal, *id)?,
        Reference::Point(name) => find(journal, name)?.commit,
        Reference::Commit(text) => match CommitId::parse(text.as_str()) {
            Ok(commit) => commit,
            Err(_) => beginning(journal, host, text)?,
        },
    };
    Ok(Side { name: reference.to_string(), commit })
}

/// The one commit known here that begins so.
fn beginning(journal: &Journal, host: &HostTree, prefix: &str) -> Result<CommitId, Failure> {
    let mut found = journal.commits_beginning(prefix)?;
    let points = journal.points()?.into_iter().map(|point| point.commit);
    let on_host = [&host.running, &host.booted, &host.next].into_iter().cloned();
    found.extend(points.chain(on_host).filter(|commit| commit.as_str().starts_with(prefix)));
    let several = found.len() > 1;
    match found.pop_first() {
        Some(commit) if !several => Ok(commit),
        found => {
            let how =
                if found.is_some() { "several commits begin" } else { "no known commit begins" };
            let text = format!("{how} with {prefix}");
            let hint = "Give all 64 digits of the commit.";
            Err(Failure::new(ErrorCode::NotFound, text).with_hint(hint))
        }
    }
}
