//! What every node counts whatever its roles: sessions, its drain, its version.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::catalog as c;
use super::drain::{Drain, DrainState};
use super::family::{Family, Registrar};
use super::labels::{
    ReloadOutcome, ResumeOutcome, SessionState, SpanOutcome, TakeoverReason, TlsPort,
};

/// The metrics of a node; one set per hub.
#[derive(Debug)]
pub struct NodeMetrics {
    sessions: Family<Gauge, SessionState>,
    /// `roost_session_takeovers_total`.
    pub session_takeovers: Family<Counter, TakeoverReason>,
    /// `roost_session_contests_total`.
    pub session_contests: Counter,
    /// `roost_fenced_writes_total`.
    pub fenced_writes: Counter,
    /// `roost_session_resumes_total`.
    pub session_resumes: Family<Counter, ResumeOutcome>,
    /// `roost_trace_spans_total`.
    pub trace_spans: Family<Counter, SpanOutcome>,
    /// `roost_tls_cert_reloads_total`.
    pub tls_cert_reloads: Family<Counter, (TlsPort, ReloadOutcome)>,
    tls_cert_expiry: Family<Gauge, TlsPort>,
    mailboxes: Mailboxes,
    drain: Arc<Drain>,
}

/// What waits hub-wide, as long as this node is the one that counts it.
#[derive(Debug)]
struct Mailboxes {
    pending: Gauge,
    oldest_age: Gauge,
    counted: Mutex<Option<Instant>>,
}

/// For how long a count is shown: longer than until the next, shorter than one that another node has
/// replaced should be.
const COUNT_LASTS: Duration = Duration::from_secs(45);

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
            session_contests: r.single(&c::SESSION_CONTESTS),
            fenced_writes: r.single(&c::FENCED_WRITES),
            session_resumes: Family::eager(r, &c::SESSION_RESUMES),
            trace_spans: Family::eager(r, &c::TRACE_SPANS),
            tls_cert_reloads: Family::eager(r, &c::TLS_CERT_RELOADS),
            tls_cert_expiry: Family::lazy(r, &c::TLS_CERT_EXPIRY),
            mailboxes: Mailboxes {
                pending: r.single(&c::MAILBOX_PENDING),
                oldest_age: r.single(&c::MAILBOX_OLDEST_AGE),
                counted: Mutex::default(),
            },
            drain,
        }
    }

    /// The certificate that is in use on a port from now on expires then, in seconds since 1970.
    #[expect(clippy::cast_precision_loss, reason = "no certificate lives for 2^52 seconds")]
    pub fn set_tls_cert_expiry(&self, port: TlsPort, at: i64) {
        self.tls_cert_expiry.with(port).set(at as f64);
    }

    /// This node counted the unfinished commands of the hub, the oldest of which was accepted that long
    /// ago. Shown until a count is due again; if none comes, another node counts.
    pub fn set_mailboxes(&self, pending: u64, oldest_age: Duration) {
        self.mailboxes.show(pending, oldest_age);
        *self.mailboxes.counted.lock() = Some(Instant::now());
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
        self.mailboxes.forget_what_is_old();
    }
}

// === impl Mailboxes ===

impl Mailboxes {
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 commands waiting")]
    fn show(&self, pending: u64, oldest_age: Duration) {
        self.pending.set(pending as f64);
        self.oldest_age.set(oldest_age.as_secs_f64());
    }

    fn forget_what_is_old(&self) {
        let mut counted = self.counted.lock();
        if counted.is_some_and(|counted| counted.elapsed() > COUNT_LASTS) {
            *counted = None;
            self.show(0, Duration::ZERO);
        }
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
