//! What an edge counts: connections, messages, queues, admission. Increment connections only
//! through [`ConnectionGuard`], which keeps the three connection metrics consistent.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::catalog as c;
use super::family::{Family, Registrar};
use super::labels::{
    AdmissionDecision, ConnectOutcome, Direction, DisconnectReason, DropReason, GapCause,
    Initiator, MessageKind, Protocol, SlowAction,
};

/// The metrics of the edge role; one set per hub, shared by its workers.
#[derive(Debug)]
pub struct EdgeMetrics {
    connections: Family<Gauge, Protocol>,
    connects: Family<Counter, ConnectOutcome>,
    disconnects: Family<Counter, (Initiator, DisconnectReason)>,
    handshake: Histogram,
    /// `roost_messages_total`.
    pub messages: Family<Counter, (Direction, MessageKind)>,
    /// `roost_messages_dropped_total`: one per subscriber that missed the message.
    pub messages_dropped: Family<Counter, DropReason>,
    /// `roost_gaps_total`.
    pub gaps: Family<Counter, GapCause>,
    /// `roost_send_queue_bytes`: increment by what is queued, decrement by what leaves the queue.
    pub send_queue_bytes: Gauge,
    /// `roost_slow_consumers_total`.
    pub slow_consumers: Family<Counter, SlowAction>,
    /// `roost_admission_total`: one per accepted socket.
    pub admission: Family<Counter, AdmissionDecision>,
}

/// One accepted connection: counted as open while this lives, and as one disconnect when it drops.
#[derive(Debug)]
pub struct ConnectionGuard {
    metrics: Arc<EdgeMetrics>,
    protocol: Protocol,
    /// The first cause given; a connection dropped without one was lost.
    cause: Option<(Initiator, DisconnectReason)>,
}

// === impl EdgeMetrics ===

impl EdgeMetrics {
    pub(crate) fn new(r: &Registrar) -> Self {
        Self {
            connections: Family::eager(r, &c::WS_CONNECTIONS),
            connects: Family::eager(r, &c::WS_CONNECTS),
            disconnects: Family::lazy(r, &c::WS_DISCONNECTS),
            handshake: r.single(&c::WS_HANDSHAKE_DURATION),
            messages: Family::lazy(r, &c::MESSAGES),
            messages_dropped: Family::eager(r, &c::MESSAGES_DROPPED),
            gaps: Family::eager(r, &c::GAPS),
            send_queue_bytes: r.single(&c::SEND_QUEUE_BYTES),
            slow_consumers: Family::eager(r, &c::SLOW_CONSUMERS),
            admission: Family::eager(r, &c::ADMISSION),
        }
    }

    /// Counts a connection that was answered with 101, `handshake` after its socket was accepted.
    pub fn connected(self: &Arc<Self>, protocol: Protocol, handshake: Duration) -> ConnectionGuard {
        self.connects.inc(ConnectOutcome::Accepted);
        self.handshake.record(handshake);
        self.connections.with(protocol).increment(1);
        ConnectionGuard {
            metrics: Arc::clone(self),
            protocol,
            cause: None,
        }
    }

    /// Counts an attempt that did not become a connection. An accepted one is counted by
    /// [`EdgeMetrics::connected`] alone.
    pub fn refused(&self, outcome: ConnectOutcome) {
        debug_assert_ne!(
            outcome,
            ConnectOutcome::Accepted,
            "accepted connections have a guard"
        );
        self.connects.inc(outcome);
    }
}

// === impl ConnectionGuard ===

impl ConnectionGuard {
    /// Says why the connection ends. The first call counts: what follows a close is its consequence.
    pub fn closing(&mut self, initiator: Initiator, reason: DisconnectReason) {
        self.cause.get_or_insert((initiator, reason));
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.metrics.connections.with(self.protocol).decrement(1);
        let cause = self
            .cause
            .unwrap_or((Initiator::Network, DisconnectReason::Lost));
        self.metrics.disconnects.inc(cause);
    }
}
