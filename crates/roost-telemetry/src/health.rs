//! Who is alive and who is ready. Components hold a [`CheckHandle`] and say how they are; event
//! loops hold a [`Heartbeat`] and beat. The admin server asks [`Health`] and answers `/livez` and
//! `/readyz`. Which fault makes a role degraded or unready is decided by the components.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

/// How a component, or the whole node, is. Ordered: the node is as well as its worst check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All is well.
    Ready,
    /// Impaired, but better kept in the load balancer than not: `/readyz` stays 200.
    Degraded,
    /// Send nothing here: `/readyz` is 503.
    Unready,
}

/// One line of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked: `redis`, `lifecycle`, `edge`.
    pub name: String,
    /// How it is.
    pub status: Status,
    /// Why, for people: `no answer from Redis since 12 s`.
    pub detail: String,
}

/// What the admin server asks.
pub trait Health: Send + Sync + 'static {
    /// `Err` with the reason where the process should be restarted.
    fn live(&self) -> Result<(), String>;
    /// Every check, in a stable order.
    fn checks(&self) -> Vec<Check>;
}

/// Checks and heartbeats that components register. Cheap to clone; clones are the same registry.
#[derive(Debug, Clone)]
pub struct HealthRegistry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Heartbeats count milliseconds from here.
    epoch: Instant,
    checks: Mutex<Vec<Arc<Mutex<Check>>>>,
    hearts: Mutex<Vec<Arc<Heart>>>,
}

#[derive(Debug)]
struct Heart {
    name: String,
    max_silence: Duration,
    /// Milliseconds after `Shared::epoch`.
    last_beat: AtomicU64,
}

/// A component's own check. It starts as unready ("starting"); a component that is dropped counts
/// as failed, whether or not it was ever ready.
#[derive(Debug)]
pub struct CheckHandle {
    check: Arc<Mutex<Check>>,
}

/// The sign of life of one event loop; dropping it ends the watch, as a loop that ended in order
/// is not a stuck one.
#[derive(Debug)]
pub struct Heartbeat {
    heart: Arc<Heart>,
    shared: Arc<Shared>,
}

// === impl HealthRegistry ===

impl HealthRegistry {
    /// A registry without checks, which is ready and alive.
    pub fn new() -> Self {
        let shared =
            Shared { epoch: Instant::now(), checks: Mutex::default(), hearts: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Adds a check.
    pub fn check(&self, name: impl Into<String>) -> CheckHandle {
        let check =
            Check { name: name.into(), status: Status::Unready, detail: "starting".to_owned() };
        let check = Arc::new(Mutex::new(check));
        self.shared.checks.lock().push(Arc::clone(&check));
        CheckHandle { check }
    }

    /// Watches an event loop: `/livez` fails while it has been silent for longer than `max_silence`.
    pub fn heartbeat(&self, name: impl Into<String>, max_silence: Duration) -> Heartbeat {
        let heart = Arc::new(Heart {
            name: name.into(),
            max_silence,
            last_beat: AtomicU64::new(self.shared.now_ms()),
        });
        self.shared.hearts.lock().push(Arc::clone(&heart));
        Heartbeat { heart, shared: Arc::clone(&self.shared) }
    }
}

impl Default for HealthRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl Health for HealthRegistry {
    fn live(&self) -> Result<(), String> {
        let now = self.shared.now_ms();
        let hearts = self.shared.hearts.lock();
        let silent = hearts.iter().find_map(|heart| {
            let silence = now.saturating_sub(heart.last_beat.load(Ordering::Relaxed));
            (Duration::from_millis(silence) > heart.max_silence).then_some((heart, silence))
        });
        match silent {
            None => Ok(()),
            Some((heart, silence)) => Err(format!(
                "event loop {:?} has been silent for {silence} ms; at most {} ms are allowed",
                heart.name,
                heart.max_silence.as_millis()
            )),
        }
    }

    fn checks(&self) -> Vec<Check> {
        self.shared.checks.lock().iter().map(|check| check.lock().clone()).collect()
    }
}

// === impl Shared ===

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

// === impl CheckHandle ===

impl CheckHandle {
    /// Says how the component is, and why.
    pub fn set(&self, status: Status, detail: impl Into<String>) {
        let mut check = self.check.lock();
        check.status = status;
        check.detail = detail.into();
    }

    /// The component is well.
    pub fn ready(&self) {
        self.set(Status::Ready, "ok");
    }
}

impl Drop for CheckHandle {
    fn drop(&mut self) {
        let mut check = self.check.lock();
        check.detail = if check.status == Status::Unready {
            format!("stopped while unready: {}", check.detail)
        } else {
            "stopped".to_owned()
        };
        check.status = Status::Unready;
    }
}

// === impl Heartbeat ===

impl Heartbeat {
    /// The loop runs. Costs a clock read and a store.
    pub fn beat(&self) {
        self.heart.last_beat.store(self.shared.now_ms(), Ordering::Relaxed);
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.shared.hearts.lock().retain(|heart| !Arc::ptr_eq(heart, &self.heart));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_starts_unready_and_a_dropped_one_has_failed() {
        let registry = HealthRegistry::new();
        let edge = registry.check("edge");
        assert_eq!(registry.checks()[0].status, Status::Unready);
        assert_eq!(registry.checks()[0].detail, "starting");
        edge.ready();
        assert_eq!(registry.checks()[0].status, Status::Ready);
        edge.set(Status::Degraded, "no answer from Redis");
        assert_eq!(registry.checks()[0].detail, "no answer from Redis");
        drop(edge);
        assert_eq!(registry.checks()[0].status, Status::Unready);
        assert_eq!(registry.checks()[0].detail, "stopped");
    }

    #[test]
    fn a_component_that_never_became_ready_says_so() {
        let registry = HealthRegistry::new();
        drop(registry.check("grpc"));
        assert_eq!(registry.checks()[0].detail, "stopped while unready: starting");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_loop_is_named_until_it_beats_or_ends() {
        let registry = HealthRegistry::new();
        let heartbeat = registry.heartbeat("edge-worker-1", Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(registry.live(), Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        let error = registry.live().unwrap_err();
        assert!(error.contains("edge-worker-1") && error.contains("11000 ms"), "{error}");
        heartbeat.beat();
        assert_eq!(registry.live(), Ok(()));
        tokio::time::advance(Duration::from_mins(1)).await;
        drop(heartbeat);
        assert_eq!(registry.live(), Ok(()));
    }
}
