//! Whether this node may still act for its sessions. Renewed by the keeper, asked before every
//! delivery and every acknowledgement.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// This node's sign of life as it sees it itself.
///
/// Not valid means *fenced*: sockets stay open, but nothing is delivered and nothing acknowledged
/// until the lease is renewed and the sessions are confirmed.
#[derive(Debug)]
pub struct Lease {
    base: Instant,
    /// Milliseconds after `base`; 0 before the first renewal.
    valid_until: AtomicU64,
    /// Set from the renewal after a lapse until the sessions are confirmed.
    suspended: AtomicBool,
}

impl Default for Lease {
    fn default() -> Self {
        Self::new()
    }
}

impl Lease {
    /// A lease that is not valid yet.
    pub fn new() -> Self {
        Self {
            base: Instant::now(),
            valid_until: AtomicU64::new(0),
            suspended: AtomicBool::new(false),
        }
    }

    /// A lease without an end, for a node that shares its store with nobody.
    pub fn perpetual() -> Self {
        let lease = Self::new();
        lease.valid_until.store(u64::MAX, Ordering::Release);
        lease
    }

    /// Whether this node may deliver and acknowledge right now.
    pub fn is_valid(&self) -> bool {
        !self.suspended.load(Ordering::Acquire) && !self.has_lapsed()
    }

    /// Whether the time of the last renewal is over.
    fn has_lapsed(&self) -> bool {
        let now = u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX);
        now >= self.valid_until.load(Ordering::Acquire)
    }

    /// Notes a heartbeat that was *sent* at `sent`: validity counts from before it, since the store
    /// may have counted from then. Returns whether the sessions must be confirmed before
    /// [`Lease::resume`], because the lease had lapsed in between.
    #[must_use]
    pub fn renew(&self, sent: Instant, length: Duration) -> bool {
        if self.has_lapsed() {
            self.suspended.store(true, Ordering::Release);
        }
        let until = (sent + length).duration_since(self.base).as_millis();
        let until = u64::try_from(until).unwrap_or(u64::MAX);
        self.valid_until.fetch_max(until, Ordering::AcqRel);
        self.suspended.load(Ordering::Acquire)
    }

    /// Fences this node until [`Lease::resume`], whatever the time: the store lost its memory, say.
    pub fn suspend(&self) {
        self.suspended.store(true, Ordering::Release);
    }

    /// The sessions are confirmed: act again.
    pub fn resume(&self) {
        self.suspended.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_lapse_suspends_until_the_sessions_are_confirmed() {
        let lease = Lease::new();
        assert!(!lease.is_valid());
        assert!(lease.renew(Instant::now(), 3 * SECOND), "the first renewal follows a lapse");
        lease.resume();
        assert!(lease.is_valid());
        tokio::time::advance(2 * SECOND).await;
        let sent = Instant::now();
        tokio::time::advance(SECOND / 2).await;
        assert!(!lease.renew(sent, 3 * SECOND));
        tokio::time::advance(5 * SECOND / 2).await;
        assert!(!lease.is_valid(), "validity counts from before the heartbeat was sent");
        assert!(lease.renew(Instant::now(), 3 * SECOND));
        assert!(!lease.is_valid());
        lease.resume();
        assert!(lease.is_valid());
    }
}
