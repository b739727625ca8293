//! When a device connects again, and when it does not: the table of close codes in one place, and
//! full-jitter back-off.

use std::time::Duration;

use tokio::time::Instant;

use super::{Closed, ClosedBy, OpenError};

/// After how long a connection counts as stable, so that back-off starts over.
const STABLE: Duration = Duration::from_secs(60);

/// What the end of a connection, or a failed attempt, asks of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Connect again after back-off, not before this long.
    After(Duration),
    /// Connect again after back-off, with a new credential; with the same one not at all.
    WithNewCredential,
    /// Connect again after back-off, but say nothing again that was said: the hub found it broken.
    WithoutRepeating,
    /// Do not connect again by oneself.
    Never,
}

/// Full-jitter back-off: the n-th attempt waits anything up to `base × 2ⁿ`, at most `cap`.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
    since: Option<Instant>,
}

// === impl Retry ===

impl Retry {
    /// What a connection's end asks for. `retry_after` is what the hub's `goaway` said.
    pub fn of_close(closed: &Closed, retry_after: Option<Duration>) -> Self {
        if closed.by == ClosedBy::Network {
            return Self::After(Duration::ZERO);
        }
        match closed.code {
            1002 | 1003 | 1007 | 1009 | 4400 => Self::WithoutRepeating,
            4401 => Self::WithNewCredential,
            4403 | 4409 | 4410 => Self::Never,
            _ => Self::After(retry_after.unwrap_or_default()),
        }
    }

    /// What a failed attempt to connect asks for.
    pub fn of_open(error: &OpenError) -> Self {
        match error {
            OpenError::Url(_) | OpenError::NotRoost(_) => Self::Never,
            // Certificates are renewed, and clocks are set right.
            OpenError::Connect(_) | OpenError::Tls(_) | OpenError::Timeout => {
                Self::After(Duration::ZERO)
            }
            OpenError::Closed(closed) => Self::of_close(closed, None),
            OpenError::Refused(refusal) => match refusal.status {
                401 => Self::WithNewCredential,
                408 | 429 | 500..=599 => Self::After(refusal.retry_after.unwrap_or_default()),
                _ => Self::Never,
            },
        }
    }
}

// === impl Backoff ===

impl Default for Backoff {
    /// From 1 s to 60 s.
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(60))
    }
}

impl Backoff {
    /// The first wait is up to `base`, none is longer than `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, attempt: 0, since: None }
    }

    /// A connection stands from now on.
    pub fn connected(&mut self) {
        self.since = Some(Instant::now());
    }

    /// How long to wait before the next attempt, `floor` at least. The jitter comes on top of the
    /// floor, else everybody told to wait as long would come at once.
    pub fn next(&mut self, floor: Duration) -> Duration {
        if self.since.take().is_some_and(|at| at.elapsed() >= STABLE) {
            self.attempt = 0;
        }
        let most = self.base.saturating_mul(1 << self.attempt.min(16)).min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        floor + jitter(most)
    }
}

/// Anything from nothing to `most`.
fn jitter(most: Duration) -> Duration {
    let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX - 1);
    let random = getrandom::u64().expect("the operating system provides randomness");
    Duration::from_micros(random % (most + 1))
}
