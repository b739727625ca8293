//! Hub time as a seam: where "now" comes from. Timers use `tokio::time`, never this.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use roost_types::UnixMillis;
use tokio::time::Instant;

/// Tells the time by which commands expire and sessions are ordered.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Now, by hub time.
    fn now(&self) -> UnixMillis;
}

/// Hub time as told by a store, carried on between tellings by the monotonic clock.
///
/// Until the first telling it starts from this machine's wall clock.
#[derive(Debug)]
pub struct HubClock {
    anchor: Mutex<(Instant, UnixMillis)>,
    error_ms: AtomicU64,
}

impl Default for HubClock {
    fn default() -> Self {
        Self::new()
    }
}

impl HubClock {
    /// Starts from this machine's wall clock.
    pub fn new() -> Self {
        Self { anchor: Mutex::new((Instant::now(), wall())), error_ms: AtomicU64::new(0) }
    }

    /// The store said `told` at some moment between `asked` and now: the middle is assumed, and half
    /// the round trip is the error bound.
    pub fn set(&self, asked: Instant, told: UnixMillis) {
        let now = Instant::now();
        let half = now.duration_since(asked) / 2;
        *self.anchor.lock() = (now, told.plus(half));
        let bound = u64::try_from(half.as_millis()).unwrap_or(u64::MAX) + 1;
        self.error_ms.store(bound, Ordering::Relaxed);
    }

    /// How far `now` may be off the store's time since the last telling.
    pub fn error_bound(&self) -> Duration {
        Duration::from_millis(self.error_ms.load(Ordering::Relaxed))
    }
}

impl Clock for HubClock {
    fn now(&self) -> UnixMillis {
        let (at, time) = *self.anchor.lock();
        time.plus(at.elapsed())
    }
}

/// A clock that tests set by hand.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Starts at this time.
    pub fn at(time: UnixMillis) -> Self {
        Self(AtomicU64::new(time.0))
    }

    /// Moves forward.
    pub fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).expect("a test's step fits");
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}

fn wall() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
