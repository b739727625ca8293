//! What every node counts whatever its roles: sessions, its drain, its version.

use std::sync::Arc;

use metrics::{Counter, Gauge};

use super::catalog as c;
use super::drain::{Drain, DrainState};
use super::family::{Family, Registrar};
use super::labels::{ResumeOutcome, SessionState, TakeoverReason};

/// The metrics of a node; one set per hub.
#[derive(Debug)]
pub struct NodeMetrics {
    sessions: Family<Gauge, SessionState>,
    /// `roost_session_takeovers_total`.
    pub session_takeovers: Family<Counter, TakeoverReason>,
    /// `roost_fenced_writes_total`.
    pub fenced_writes: Counter,
    /// `roost_session_resumes_total`.
    pub session_resumes: Family<Counter, ResumeOutcome>,
    drain: Arc<Drain>,
}

/// One session owned by this node: counted in its state while this lives.
#[derive(Debug)]
pub struct SessionGuard {
    metrics: Arc<NodeMetrics>,
    state: SessionState,
}

// === impl NodeMetrics ===

impl NodeMetrics {
    pub(crate) fn new(r: &Registrar, drain: Arc<Drain>) -> Self {
        Self {
            sessions: Family::eager(r, &c::SESSIONS),
            session_takeovers: Family::eager(r, &c::SESSION_TAKEOVERS),
            fenced_writes: r.single(&c::FENCED_WRITES),
            session_resumes: Family::eager(r, &c::SESSION_RESUMES),
            drain,
        }
    }

    /// A session was claimed for this node.
    pub fn session_claimed(self: &Arc<Self>) -> SessionGuard {
        self.sessions.with(SessionState::Live).increment(1);
        SessionGuard { metrics: Arc::clone(self), state: SessionState::Live }
    }

    /// The drain moved on. Its duration and what it has left follow by themselves.
    pub fn set_drain_state(&self, state: DrainState) {
        self.drain.set(state);
    }

    /// A drain cut `count` connections whose devices did not answer.
    pub fn drain_forced(&self, count: u64) {
        self.drain.forced(count);
    }

    pub(crate) fn refresh(&self) {
        self.drain.refresh();
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
