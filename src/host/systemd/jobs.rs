//! Queues jobs and waits for them.
//!
//! A job may end before the answer to its own request arrives, so one task hears `JobRemoved` from
//! the beginning, and every caller listens to that task before it queues its job.

use std::time::Duration;

use apt_ostree_actors::port::{JobOutcome, PortResult};
use apt_ostree_proto::{ErrorCode, Failure, UnitName};
use futures_util::StreamExt;
use systemd_zbus::ManagerProxy;
use tokio::sync::broadcast;
use tokio::time::Instant;
use zbus::zvariant::OwnedObjectPath;

use super::{ANSWER_TIMEOUT, failure};

/// How many ended jobs a waiter may lag behind. A boot's worth: a waiter that lags further asks the
/// manager instead.
const JOBS_REMEMBERED: usize = 1024;

/// How often a waiter that has lagged asks whether its job is still there.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// How long a cancelled job may take to be removed.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
struct Ended {
    job: OwnedObjectPath,
    result: String,
}

/// The task that hears which jobs end.
#[derive(Debug)]
pub(super) struct JobWatch {
    /// Kept weakly, so that waiters see the end of the task.
    ended: broadcast::WeakSender<Ended>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for JobWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl JobWatch {
    /// Begins to listen. The task drains its stream at any rate, since a stream that nobody reads
    /// stops the whole connection.
    pub(super) async fn start(manager: &ManagerProxy<'static>) -> PortResult<Self> {
        let mut removed = manager
            .receive_job_removed()
            .await
            .map_err(|error| failure("jobs cannot be watched", &error))?;
        let (sender, _) = broadcast::channel(JOBS_REMEMBERED);
        let ended = sender.downgrade();
        let task = tokio::spawn(async move {
            while let Some(signal) = removed.next().await {
                match signal.args() {
                    // An error only says that nobody waits for a job at present.
                    Ok(args) => drop(sender.send(Ended {
                        job: args.job.clone().into(),
                        result: args.result.to_owned(),
                    })),
                    Err(error) => tracing::warn!(%error, "JobRemoved not understood"),
                }
            }
        });
        Ok(Self { ended, task })
    }

    /// Queues a job with `queue` and waits for its end, at most `timeout`; then it is cancelled.
    pub(super) async fn run(
        &self,
        manager: &ManagerProxy<'static>,
        unit: &UnitName,
        queue: impl Future<Output = zbus::Result<OwnedObjectPath>>,
        timeout: Duration,
    ) -> PortResult<JobOutcome> {
        let mut ended = self.ended.upgrade().ok_or_else(connection_lost)?.subscribe();
        let deadline = Instant::now() + timeout;
        let job = match tokio::time::timeout(ANSWER_TIMEOUT.min(timeout), queue).await {
            Ok(Ok(job)) => job,
            Ok(Err(error)) => {
                return refusal(&error)
                    .map(JobOutcome::Failed)
                    .ok_or_else(|| failure(&format!("no job for {unit}"), &error));
            }
            Err(_) => return Ok(JobOutcome::TimedOut),
        };
        if let Ok(outcome) =
            tokio::time::timeout_at(deadline, wait_for(manager, &mut ended, &job)).await
        {
            return outcome;
        }
        tracing::warn!(%unit, job = job.as_str(), "job cancelled after its time");
        cancel(manager, &mut ended, &job).await?;
        Ok(JobOutcome::TimedOut)
    }
}

async fn wait_for(
    manager: &ManagerProxy<'static>,
    ended: &mut broadcast::Receiver<Ended>,
    job: &OwnedObjectPath,
) -> PortResult<JobOutcome> {
    loop {
        match ended.recv().await {
            Ok(found) if found.job == *job => {
                return Ok(match found.result.as_str() {
                    "done" => JobOutcome::Done,
                    _ => JobOutcome::Failed(found.result),
                });
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => {
                return wait_by_asking(manager, job).await;
            }
            Err(broadcast::error::RecvError::Closed) => return Err(connection_lost()),
        }
    }
}

/// Waits until the manager does not know the job any more. How it ended is then told by the unit's
/// state alone, which every caller reads.
async fn wait_by_asking(
    manager: &ManagerProxy<'static>,
    job: &OwnedObjectPath,
) -> PortResult<JobOutcome> {
    let Some(id) = id_of(job) else { return Ok(JobOutcome::Done) };
    loop {
        match manager.get_job(id).await {
            Ok(_) => tokio::time::sleep(ASK_AGAIN).await,
            Err(error) if refusal(&error).is_some() => return Ok(JobOutcome::Done),
            Err(error) => return Err(failure("a job cannot be watched", &error)),
        }
    }
}

async fn cancel(
    manager: &ManagerProxy<'static>,
    ended: &mut broadcast::Receiver<Ended>,
    job: &OwnedObjectPath,
) -> PortResult<()> {
    let Some(id) = id_of(job) else { return Ok(()) };
    let work = async {
        match manager.cancel_job(id).await {
            Ok(()) => wait_for(manager, ended, job).await.map(drop),
            // It has just ended.
            Err(error) if refusal(&error).is_some() => Ok(()),
            Err(error) => Err(failure("a job cannot be cancelled", &error)),
        }
    };
    if let Ok(result) = tokio::time::timeout(CANCEL_TIMEOUT, work).await {
        result
    } else {
        tracing::warn!(job = job.as_str(), "cancelled job not removed in time");
        Ok(())
    }
}

/// The number at the end of `/org/freedesktop/systemd1/job/123`.
fn id_of(job: &OwnedObjectPath) -> Option<u32> {
    job.as_str().rsplit('/').next()?.parse().ok()
}

fn connection_lost() -> Failure {
    Failure::new(ErrorCode::BusLost, "the connection to the service manager was lost")
}

/// The manager's refusal in a word, when `error` is an answer of the manager and no failure to reach
/// it: `not-found`, `masked`, or the end of the error's name.
pub(super) fn refusal(error: &zbus::Error) -> Option<String> {
    let zbus::Error::MethodError(name, _, _) = error else { return None };
    let word = match name.as_str() {
        "org.freedesktop.systemd1.NoSuchUnit" | "org.freedesktop.systemd1.LoadFailed" => {
            "not-found"
        }
        "org.freedesktop.systemd1.UnitMasked" => "masked",
        "org.freedesktop.systemd1.OnlyByDependency" => "refused",
        name => name.strip_prefix("org.freedesktop.systemd1.")?,
    };
    Some(word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_number_is_the_end_of_its_path() {
        let path = |path: &str| OwnedObjectPath::try_from(path).unwrap();
        assert_eq!(id_of(&path("/org/freedesktop/systemd1/job/1234")), Some(1234));
        assert_eq!(id_of(&path("/org/freedesktop/systemd1/job")), None);
    }
}
