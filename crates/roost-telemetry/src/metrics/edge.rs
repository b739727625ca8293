//! What an edge counts: connections, messages, queues, admission. Increment connections only
//! through [`ConnectionGuard`], which keeps the three connection metrics consistent.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use tokio::time::Instant;

use super::catalog as c;
use super::drain::Drain;
use super::family::{Family, Registrar};
use super::labels::{
    AdmissionDecision, CloseCode, ConnectOutcome, DeliveryPath, Direction, DisconnectReason,
    DropReason, GapCause, Initiator, MessageKind, Protocol, SlowAction,
};
use super::worker::WorkerIndex;

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
    /// `roost_ws_close_frames_sent_total`.
    pub close_frames_sent: Family<Counter, CloseCode>,
    /// `roost_message_bytes_total`.
    pub message_bytes: Family<Counter, Direction>,
    /// `roost_command_redeliveries_total`.
    pub command_redeliveries: Counter,
    connections_limit: Gauge,
    /// Made on first use: absent without a limit.
    admission_tokens: OnceLock<Gauge>,
    registrar: Registrar,
    connection_duration: Histogram,
    ping_rtt: Histogram,
    message_size: Family<Histogram, Direction>,
    delivery_latency: Family<Histogram, DeliveryPath>,
    event_loop_lag: Family<Histogram, WorkerIndex>,
    drain: Arc<Drain>,
    /// What times in guards and pings count from, so that they are small.
    born: Instant,
}

/// One accepted connection: counted as open while this lives, and as one disconnect when it drops.
#[derive(Debug)]
pub struct ConnectionGuard {
    metrics: Arc<EdgeMetrics>,
    protocol: Protocol,
    /// When it was opened, in tenths of a second since the metrics were made: four bytes, since there
    /// is one for every idle connection.
    opened: u32,
    /// The first cause given; a connection dropped without one was lost.
    cause: Option<(Initiator, DisconnectReason)>,
}

// === impl EdgeMetrics ===

impl EdgeMetrics {
    pub(crate) fn new(r: &Registrar, drain: Arc<Drain>) -> Self {
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
            close_frames_sent: Family::lazy(r, &c::WS_CLOSE_FRAMES_SENT),
            message_bytes: Family::eager(r, &c::MESSAGE_BYTES),
            command_redeliveries: r.single(&c::COMMAND_REDELIVERIES),
            connections_limit: r.single(&c::WS_CONNECTIONS_LIMIT),
            admission_tokens: OnceLock::new(),
            registrar: r.clone(),
            connection_duration: r.single(&c::WS_CONNECTION_DURATION),
            ping_rtt: r.single(&c::WS_PING_RTT),
            message_size: Family::eager(r, &c::MESSAGE_SIZE),
            delivery_latency: Family::eager(r, &c::DELIVERY_LATENCY),
            event_loop_lag: Family::lazy(r, &c::EVENT_LOOP_LAG),
            drain,
            born: Instant::now(),
        }
    }

    /// How many connections this node takes at the most.
    #[expect(clippy::cast_precision_loss, reason = "a node has far fewer than 2^52 connections")]
    pub fn set_connections_limit(&self, limit: u64) {
        self.connections_limit.set(limit as f64);
    }

    /// How many connections would be admitted now.
    #[expect(clippy::cast_precision_loss, reason = "a burst has far fewer than 2^52 connections")]
    pub fn set_admission_tokens(&self, tokens: u64) {
        let gauge =
            self.admission_tokens.get_or_init(|| self.registrar.single(&c::ADMISSION_TOKENS));
        gauge.set(tokens as f64);
    }

    /// A device-protocol message of `bytes` bytes came, or was encoded.
    #[expect(clippy::cast_precision_loss, reason = "frames have far fewer than 2^52 bytes")]
    pub fn message_sized(&self, direction: Direction, bytes: usize) {
        self.message_size.with(direction).record(bytes as f64);
    }

    /// Something was accepted by the hub `latency` before it was with its device or devices.
    pub fn delivered(&self, path: DeliveryPath, latency: Duration) {
        self.delivery_latency.with(path).record(latency);
    }

    /// A worker came to its tick `lag` late.
    pub fn event_loop_lagged(&self, worker: WorkerIndex, lag: Duration) {
        self.event_loop_lag.with(worker).record(lag);
    }

    /// What a ping carries so that its pong tells the round trip.
    pub fn ping_payload(&self) -> [u8; 8] {
        self.micros().to_be_bytes()
    }

    /// The pong to a ping came. Payloads that no ping of this node carried are ignored. To be called
    /// once per ping, or a device could count what it likes.
    pub fn pong(&self, payload: &[u8]) {
        let sent = payload.try_into().ok().map(u64::from_be_bytes);
        if let Some(rtt) = sent.and_then(|sent| self.micros().checked_sub(sent)) {
            self.ping_rtt.record(Duration::from_micros(rtt));
        }
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn tenths(&self) -> u32 {
        u32::try_from(self.born.elapsed().as_millis() / 100).unwrap_or(u32::MAX)
    }

    /// Counts a connection that was answered with 101, `handshake` after its socket was accepted.
    pub fn connected(self: &Arc<Self>, protocol: Protocol, handshake: Duration) -> ConnectionGuard {
        self.connects.inc(ConnectOutcome::Accepted);
        self.handshake.record(handshake);
        self.connections.with(protocol).increment(1);
        self.drain.count(1);
        ConnectionGuard { metrics: Arc::clone(self), protocol, opened: self.tenths(), cause: None }
    }

    /// Counts an attempt that did not become a connection. An accepted one is counted by
    /// [`EdgeMetrics::connected`] alone.
    pub fn refused(&self, outcome: ConnectOutcome) {
        debug_assert_ne!(outcome, ConnectOutcome::Accepted, "accepted connections have a guard");
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
        let metrics = &self.metrics;
        metrics.connections.with(self.protocol).decrement(1);
        metrics.drain.count(-1);
        let lasted = f64::from(metrics.tenths().saturating_sub(self.opened)) / 10.0;
        metrics.connection_duration.record(lasted);
        let cause = self.cause.unwrap_or((Initiator::Network, DisconnectReason::Lost));
        metrics.disconnects.inc(cause);
    }
}
