//! What a drain has left to do, kept together by the edge's connection guards and the node's drain
//! state, so that nobody has to report it. How a drain is done is in `roost-edge`.

use std::sync::atomic::{AtomicI64, Ordering};

use metrics::{Counter, Gauge};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::catalog as c;
use super::family::Registrar;

/// Where a node stands in its drain, as `roost_drain_state` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainState {
    /// 0: serving.
    Serving,
    /// 1: closing connections, paced.
    Draining,
    /// 2: no connections left.
    Drained,
}

/// The drain of one node.
#[derive(Debug)]
pub(crate) struct Drain {
    state: Gauge,
    remaining: Gauge,
    duration: Gauge,
    forced: Counter,
    /// Connections open now.
    open: AtomicI64,
    span: Mutex<Span>,
}

/// When the drain began and ended.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    began: Option<Instant>,
    ended: Option<Instant>,
}

// === impl Drain ===

impl Drain {
    pub(crate) fn new(r: &Registrar) -> Self {
        Self {
            state: r.single(&c::DRAIN_STATE),
            remaining: r.single(&c::DRAIN_REMAINING),
            duration: r.single(&c::DRAIN_DURATION),
            forced: r.single(&c::DRAIN_FORCED),
            open: AtomicI64::new(0),
            span: Mutex::default(),
        }
    }

    /// A connection was opened (+1) or closed (−1).
    pub(crate) fn count(&self, change: i64) {
        self.open.fetch_add(change, Ordering::Relaxed);
    }

    /// A connection was cut.
    pub(crate) fn forced(&self, count: u64) {
        self.forced.increment(count);
    }

    pub(crate) fn set(&self, state: DrainState) {
        self.state.set(match state {
            DrainState::Serving => 0,
            DrainState::Draining => 1,
            DrainState::Drained => 2,
        });
        let mut span = self.span.lock();
        let now = Instant::now();
        match state {
            DrainState::Serving => *span = Span::default(),
            DrainState::Draining => {
                span.began.get_or_insert(now);
            }
            DrainState::Drained => {
                span.began.get_or_insert(now);
                span.ended.get_or_insert(now);
            }
        }
    }

    /// Brings the gauges up to now: called when they are looked at.
    #[expect(clippy::cast_precision_loss, reason = "a node has far fewer than 2^52 connections")]
    pub(crate) fn refresh(&self) {
        let span = *self.span.lock();
        let Some(began) = span.began else {
            self.remaining.set(0.0);
            self.duration.set(0.0);
            return;
        };
        let until = span.ended.unwrap_or_else(Instant::now);
        self.duration.set(until.duration_since(began).as_secs_f64());
        self.remaining.set(self.open.load(Ordering::Relaxed) as f64);
    }
}
