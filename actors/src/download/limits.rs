//! Bounds of a download.

use std::time::Duration;

/// Bounds of a download. The defaults suit a mirror on the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Transfers at once in all. Enough to hide 30 ms of latency, and a mirror's limit of a few MB/s
    /// a connection; more only splits the same link further.
    pub connections: usize,
    /// Transfers at once from one host. As many as in all: nearly every host names one mirror (mostly
    /// a CDN, to which sixteen connections are nothing), so a smaller number here would be the bound
    /// in all. Mirrors that count connections by address answer 503 or 429: then the number for that
    /// host is halved, down to one.
    pub connections_per_host: usize,
    /// How long a server may take until it begins to answer, the connection included.
    pub response_timeout: Duration,
    /// How long no byte may come. Short enough that people do not give up before we do.
    pub stall_timeout: Duration,
    /// A transfer that is slower than this over `slow_window` is tried elsewhere, or again. Low: a
    /// modem's 5 kB/s may be split into sixteen.
    pub slow_bytes_per_second: u64,
    /// Over which time a transfer's speed is measured.
    pub slow_window: Duration,
    /// How often all mirrors are asked in vain before a package is given up. A round that brought
    /// bytes does not count, because they are kept and resumed.
    pub fruitless_rounds: u32,
    /// The pause after the first round in vain; doubled with each, and varied by half, so that many
    /// hosts that lost a mirror together do not come back together.
    pub backoff: Duration,
    /// The longest pause between two rounds, `Retry-After` included.
    pub longest_backoff: Duration,
    /// How long one file may take, whatever happens, plus what `slow_bytes_per_second` makes of its
    /// size.
    pub file_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16,
            connections_per_host: 16,
            response_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(20),
            slow_bytes_per_second: 256,
            slow_window: Duration::from_secs(30),
            fruitless_rounds: 5,
            backoff: Duration::from_millis(500),
            longest_backoff: Duration::from_secs(30),
            file_timeout: Duration::from_secs(900),
        }
    }
}

impl Limits {
    /// The pause after `round` rounds in vain (the first is 1), with half of it left to chance.
    pub(super) fn pause(&self, round: u32, retry_after: Option<Duration>) -> Duration {
        let doubled = self.backoff.saturating_mul(1 << round.saturating_sub(1).min(16));
        let varied = doubled.min(self.longest_backoff).mul_f64(0.5 + fastrand::f64() / 2.0);
        retry_after.map_or(varied, |asked| asked.min(self.longest_backoff).max(varied))
    }

    /// How long a file of `size_bytes` may take in all.
    pub(super) fn bound(&self, size_bytes: u64) -> Duration {
        let slowest = Duration::from_secs(size_bytes / self.slow_bytes_per_second.max(1));
        self.file_timeout.saturating_add(slowest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_stay_bounded_and_honour_the_servers_wish() {
        let limits = Limits::default();
        for (round, retry_after, shortest, longest) in [
            (1, None, 250, 500),
            (3, None, 1_000, 2_000),
            (40, None, 15_000, 30_000),
            (1, Some(7), 7_000, 7_000),
            (1, Some(86_400), 30_000, 30_000),
        ] {
            let pause = limits.pause(round, retry_after.map(Duration::from_secs)).as_millis();
            assert!((shortest..=longest).contains(&pause), "{round} {retry_after:?}: {pause} ms");
        }
    }
}
