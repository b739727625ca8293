//! What every node counts whatever its roles: sessions, its drain, its version.

use std::sync::Arc;

use metrics::{Counter, Gauge};

use super::catalog as c;
use super::family::{Family, Registrar};
use super::labels::{SessionState, TakeoverReason};

/// The metrics of a node; one set per hub.
#[derive(Debug)]
pub struct NodeMetrics {
    sessions: Family<Gauge, SessionState>,
    /// `roost_session_takeovers_total`.
    pub session_takeovers: Family<Counter, TakeoverReason>,
    /// `roost_fenced_writes_total`.
    pub fenced_writes: Counter,
    drain_state: Gauge,
}

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

/// One session owned by this node: counted in its state while this lives.
#[derive(Debug)]
pub struct SessionGuard {
    metrics: Arc<NodeMetrics>,
    state: SessionState,
}

// === impl NodeMetrics ===

impl NodeMetrics {
    pub(crate) fn new(r: &Registrar) -> Self {
        Self {
            sessions: Family::eager(r, &c::SESSIONS),
            session_takeovers: Family::eager(r, &c::SESSION_TAKEOVERS),
            fenced_writes: r.single(&c::FENCED_WRITES),
            drain_state: r.single(&c::DRAIN_STATE),
        }
    }

    /// A session was claimed for this node.
    pub fn session_claimed(self: &Arc<Self>) -> SessionGuard {
        self.sessions.with(SessionState::Live).increment(1);
        SessionGuard {
            metrics: Arc::clone(self),
            state: SessionState::Live,
        }
    }

    /// The drain moved on.
    pub fn set_drain_state(&self, state: DrainState) {
        self.drain_state.set(match state {
            DrainState::Serving => 0,
            DrainState::Draining => 1,
            DrainState::Drained => 2,
        });
    }
}

// === impl SessionGuard ===

impl SessionGuard {
    /// The lease was lost or won back.
    pub fn set_state(&mut self, state: SessionState) {
        if state != self.state {
            self.metrics.sessions.with(self.state).decrement(1);
            self.metrics.sessions.with(state).increment(1);
            self.state = state;
        }
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.metrics.sessions.with(self.state).decrement(1);
    }
}
