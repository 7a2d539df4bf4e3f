//! Probes: whether a unit is ready.
//!
//! A probe is asked again and again from the moment on when the units are up. It has passed when its
//! last [`Probe::successes`] attempts all succeeded and the dwell time is over: one that fails begins the
//! count anew. So a service may take its time to get ready, and one that answers now and then never is.
//! A probe that has not passed [`Probe::settle`] after the dwell time has failed.

use std::time::Duration;

use apt_ostree_proto::service::UnitState;
use apt_ostree_proto::{ErrorCode, Failure, TransactionId, UnitName};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout};

use super::CheckHealth;
use super::baseline::UnitProbe;
use crate::port::{CheckAnswer, CheckLevel, Checks, PortResult, Probe};

/// The longest that one attempt can be configured to take.
pub const LONGEST_PROBE: Duration = Duration::from_secs(60);

/// The longest that probes can be given to settle: the rescue guard takes an update off that is not
/// done in its time.
pub const LONGEST_SETTLE: Duration = Duration::from_secs(5 * 60);

/// How many are asked at once before the update: they cost a service a connection each.
pub(super) const PROBES_AT_ONCE: usize = 16;

/// How often a probe is asked before the update: one lost answer does not mean that it failed.
const ATTEMPTS_BEFORE: usize = 2;

/// How much longer than its own time-out an attempt is waited for.
const GRACE: Duration = Duration::from_secs(20);

/// Why the probe fails now, if it does.
pub(super) async fn fails_before(
    checks: &dyn Checks,
    transaction: TransactionId,
    probe: &Probe,
) -> PortResult<Option<String>> {
    for attempt in 1.. {
        let Some(why) = ask(checks, transaction, probe).await? else { break };
        if attempt == ATTEMPTS_BEFORE {
            return Ok(Some(why));
        }
        tokio::time::sleep(probe.interval).await;
    }
    Ok(None)
}

/// Asks until each probe has passed or failed. Answers warnings; `Unhealthy` for a required one.
pub(super) async fn settle(checks: &dyn Checks, request: &CheckHealth) -> PortResult<Vec<String>> {
    let mut warnings = Vec::new();
    let baseline = &request.baseline;
    let is_judged = |probe: &&UnitProbe| {
        let was_up = baseline.states.get(&probe.unit).is_some_and(UnitState::is_up);
        was_up || request.touched.contains(&probe.unit)
    };
    let mut running = FuturesUnordered::new();
    for probe in baseline.probes.iter().filter(is_judged) {
        let UnitProbe { unit, probe, failed_before } = probe;
        if let Some(why) = failed_before {
            warnings.push(format!("{} had failed before the update: {why}", named(unit, probe)));
            continue;
        }
        let (transaction, dwell) = (request.context.transaction, request.dwell);
        running.push(async move {
            (unit, probe, until_settled(checks, transaction, probe, dwell).await)
        });
    }
    while let Some((unit, probe, settled)) = running.next().await {
        let Some(why) = settled? else { continue };
        let text = format!("{} failed: {why}", named(unit, probe));
        match probe.level {
            CheckLevel::Wanted => warnings.push(text),
            CheckLevel::Required => {
                return Err(Failure::new(ErrorCode::Unhealthy, text)
                    .with_hint(format!("See the unit's log: journalctl -u {unit}.")));
            }
        }
    }
    Ok(warnings)
}

fn named(unit: &UnitName, probe: &Probe) -> String {
    let probe: String = probe.to_string().chars().filter(|c| !c.is_control()).take(200).collect();
    format!("the probe \"{probe}\" of {unit}")
}

/// Answers why the probe has failed; none once it has passed.
async fn until_settled(
    checks: &dyn Checks,
    transaction: TransactionId,
    probe: &Probe,
    dwell: Duration,
) -> PortResult<Option<String>> {
    let begun = Instant::now();
    let mut streak = Streak::default();
    loop {
        let attempt = Instant::now();
        let answer = ask(checks, transaction, probe).await?;
        match streak.take(answer, begun.elapsed(), probe, dwell) {
            Verdict::Passed => return Ok(None),
            Verdict::Failed(why) => return Ok(Some(why)),
            Verdict::Open => {}
        }
        // At the end of the dwell time once more, so that nobody waits for longer than that.
        let (next, end) = (attempt + probe.interval, begun + dwell);
        sleep_until(if Instant::now() < end { next.min(end) } else { next }).await;
    }
}

/// One attempt. Answers why it failed, if it did. Without the bus nothing can be told.
async fn ask(
    checks: &dyn Checks,
    transaction: TransactionId,
    probe: &Probe,
) -> PortResult<Option<String>> {
    let answer = match timeout(probe.timeout + GRACE, checks.probe(transaction, probe)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(failure)) if failure.code == ErrorCode::BusLost => return Err(failure),
        Ok(Err(failure)) => CheckAnswer::failed(failure.message),
        Err(_) => CheckAnswer::failed("it did not end in time"),
    };
    let CheckAnswer { failure, output } = answer;
    Ok(failure.map(|why| super::hooks::with_last_line(why, &output)))
}

/// What the attempts have come to so far.
#[derive(Debug, Default)]
struct Streak {
    attempts: u32,
    successes: u32,
    failures: u32,
    last_failure: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    Passed,
    Failed(String),
}

impl Streak {
    /// Adds an attempt that ended `elapsed` after the units were up.
    fn take(
        &mut self,
        failure: Option<String>,
        elapsed: Duration,
        probe: &Probe,
        dwell: Duration,
    ) -> Verdict {
        self.attempts = self.attempts.saturating_add(1);
        match failure {
            None => self.successes = self.successes.saturating_add(1),
            Some(why) => {
                self.successes = 0;
                self.failures = self.failures.saturating_add(1);
                self.last_failure = why;
            }
        }
        if elapsed < dwell {
            return Verdict::Open;
        }
        if self.successes >= probe.successes {
            return Verdict::Passed;
        }
        if elapsed < dwell + probe.settle {
            return Verdict::Open;
        }
        let Self { attempts, failures, last_failure, .. } = self;
        Verdict::Failed(match failures {
            0 => format!("only {attempts} attempts came to an end in its time"),
            _ if *failures == *attempts => last_failure.clone(),
            _ => format!("{failures} of {attempts} attempts failed, the last with: {last_failure}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Question;

    const DWELL: Duration = Duration::from_secs(5);

    fn probe() -> Probe {
        Probe {
            question: Question::Tcp { address: "127.0.0.1".to_owned(), port: 80 },
            level: CheckLevel::Required,
            timeout: Duration::from_secs(5),
            interval: Duration::from_secs(1),
            successes: 3,
            settle: Duration::from_secs(10),
        }
    }

    /// One attempt a second, `.` for one that succeeds; the rest repeats the last. Answers when and how
    /// it ends.
    fn ends(attempts: &str) -> (u64, bool) {
        let mut streak = Streak::default();
        for second in 0.. {
            let index = usize::try_from(second).unwrap().min(attempts.len() - 1);
            let failure = (&attempts[index..=index] != ".").then(|| "refused".to_owned());
            match streak.take(failure, Duration::from_secs(second), &probe(), DWELL) {
                Verdict::Open => {}
                verdict => return (second, verdict == Verdict::Passed),
            }
        }
        unreachable!("a probe ends")
    }

    #[test]
    fn a_probe_passes_with_its_last_attempts_and_not_before_the_end_of_the_dwell_time() {
        for (attempts, expected) in [
            (".", (5, true)),
            // It gets ready in time, and stays so.
            ("xxxx.", (6, true)),
            ("xxxxxxxxxxx.", (13, true)),
            // It was ready, and is not any more.
            ("....x", (15, false)),
            (".....x.", (8, true)),
            ("....x.", (7, true)),
            // It flaps.
            (".x.x.x.x.x.x.x.x.x.x.x.x", (15, false)),
            ("..x..x..x..x..x..x..x..x", (15, false)),
            ("x", (15, false)),
            ("xxxxxxxxxxxxx.", (15, true)),
            ("xxxxxxxxxxxxxx.", (15, false)),
        ] {
            assert_eq!(ends(attempts), expected, "{attempts}");
        }
    }

    #[test]
    fn a_probe_that_flaps_is_told_from_one_that_never_succeeds() {
        let late = DWELL + probe().settle;
        let refused = || Some("refused".to_owned());
        let mut streak = Streak::default();
        assert_eq!(streak.take(None, Duration::ZERO, &probe(), DWELL), Verdict::Open);
        let text = "1 of 2 attempts failed, the last with: refused".to_owned();
        assert_eq!(streak.take(refused(), late, &probe(), DWELL), Verdict::Failed(text));
        let never = Streak::default().take(refused(), late, &probe(), DWELL);
        assert_eq!(never, Verdict::Failed("refused".to_owned()));
    }
}
