//! The metric catalogue: every metric of the hub, declared once, with its unit, labels and the
//! equation it satisfies. The handles that increment them are in `edge.rs`, `control.rs`,
//! `redis.rs` and `node.rs`; the label values are in `labels.rs`. To add a metric: a constant here,
//! an entry in [`ALL`], a handle, and something that increments it.

use metrics::Unit;

/// What Prometheus calls the type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations, counted in buckets with these upper bounds (ascending, in the metric's unit;
    /// `+Inf` is implied).
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Full name, `roost_` included.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its base unit.
    pub unit: Unit,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Help text: what one more of it means, and which equation holds.
    pub help: &'static str,
}

/// Latency seen by people and back ends: 0.5 ms to 10 s.
const LATENCY: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Latency of Redis: from 0.1 ms, since a healthy one answers below half a millisecond.
const REDIS_LATENCY: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// How long a connection lasts: from a second to a week.
const LIFETIME: &[f64] =
    &[1.0, 10.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0];

/// Sizes: by fours from 64 B, with the limits of a payload and of a frame among them.
const SIZES: &[f64] = &[64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 131_072.0, 1_048_576.0];

/// How late an event loop comes to its tick.
const LAG: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

macro_rules! catalog {
    ($($name:ident: $kind:expr, $unit:ident, $text:literal, [$($label:literal),*], $help:literal;)+) => {
        $(#[doc = concat!("`", $text, "`: see its help text.")] pub const $name: Spec = Spec {
            name: $text, kind: $kind, unit: Unit::$unit, labels: &[$($label),*], help: $help,
        };)+
        /// Every metric that goes through the recorder (`roost_process_*` is rendered by `process.rs`).
        pub const ALL: &[Spec] = &[$($name,)+];
    };
}

catalog! {
    WS_CONNECTIONS: Kind::Gauge, Count, "roost_ws_connections", ["protocol"],
        "Device connections open on this node = ws_connects_total{outcome=\"accepted\"} - ws_disconnects_total.";
    WS_CONNECTIONS_LIMIT: Kind::Gauge, Count, "roost_ws_connections_limit", [],
        "Connections that this node takes at the most (edge.max_connections); 0 without the edge role. Room left = this - ws_connections.";
    WS_CONNECTS: Kind::Counter, Count, "roost_ws_connects_total", ["outcome"],
        "Connection attempts that were answered or given up, by how they ended; each admission_total{decision=\"admitted\"} ends as exactly one of these.";
    WS_DISCONNECTS: Kind::Counter, Count, "roost_ws_disconnects_total", ["initiator", "reason"],
        "Accepted connections that ended = ws_connects_total{outcome=\"accepted\"} - ws_connections.";
    WS_CLOSE_FRAMES_SENT: Kind::Counter, Count, "roost_ws_close_frames_sent_total", ["code"],
        "Close frames handed to a socket or its queue, answers to a device's close included; at most one per connection.";
    WS_HANDSHAKE_DURATION: Kind::Histogram(LATENCY), Seconds, "roost_ws_handshake_duration_seconds", [],
        "Time from the accepted socket to the 101 answer, accepted connections only; its count = ws_connects_total{outcome=\"accepted\"}.";
    WS_CONNECTION_DURATION: Kind::Histogram(LIFETIME), Seconds, "roost_ws_connection_duration_seconds", [],
        "How long connections lasted that ended; its count = ws_disconnects_total summed.";
    WS_PING_RTT: Kind::Histogram(LATENCY), Seconds, "roost_ws_ping_rtt_seconds", [],
        "Time from a ping of the hub to the device's pong; at most one per silence of a keep-alive interval.";
    MESSAGES: Kind::Counter, Count, "roost_messages_total", ["direction", "kind"],
        "Device-protocol messages read from devices (in) and handed to their sockets or send queues (out).";
    MESSAGE_BYTES: Kind::Counter, Bytes, "roost_message_bytes_total", ["direction"],
        "Bytes of WebSocket frames read from devices' sockets (in) and taken by them (out); TLS and TCP not included.";
    MESSAGE_SIZE: Kind::Histogram(SIZES), Bytes, "roost_message_size_bytes", ["direction"],
        "Size of device-protocol messages: each text frame that came (in), each one encoded (out: a publication once per node).";
    DELIVERY_LATENCY: Kind::Histogram(LATENCY), Seconds, "roost_delivery_latency_seconds", ["path"],
        "By hub time (to a millisecond, and hub_time_error_seconds across nodes): from a publication's acceptance until a worker has handed it to all its subscribers, from a command's until a connected device's socket has it.";
    MESSAGES_DROPPED: Kind::Counter, Count, "roost_messages_dropped_total", ["reason"],
        "Deliveries of a message to a subscriber that did not happen; matched deliveries = messages_total{direction=\"out\",kind=\"message\"} + this.";
    GAPS: Kind::Counter, Count, "roost_gaps_total", ["cause"],
        "Gaps reported to subscribers, one per subscriber and topic = messages_total{direction=\"out\",kind=\"gap\"} + gaps reported on gRPC streams.";
    SEND_QUEUE_BYTES: Kind::Gauge, Bytes, "roost_send_queue_bytes", [],
        "Bytes waiting in the send queues of this node's connections = bytes queued - bytes written - bytes dropped.";
    SLOW_CONSUMERS: Kind::Counter, Count, "roost_slow_consumers_total", ["action"],
        "Times a device's send queue reached its bound, by what was done about it.";
    ADMISSION: Kind::Counter, Count, "roost_admission_total", ["decision"],
        "Sockets accepted from the listeners, by the decision taken before authentication; the sum over decisions = sockets accepted.";
    ADMISSION_TOKENS: Kind::Gauge, Count, "roost_admission_tokens", [],
        "Connections that would be admitted at this moment before edge.connect_rate limits them, looked at four times a second; edge.connect_burst at rest, absent without a limit.";
    COMMANDS: Kind::Counter, Count, "roost_commands_total", ["outcome"],
        "Commands whose final state this node wrote, plus commands that this node refused; summed over nodes each command counts once.";
    COMMANDS_IN_FLIGHT: Kind::Gauge, Count, "roost_commands_in_flight", [],
        "SendCommand calls being worked on or waited for at this node = calls started - calls answered or abandoned.";
    COMMAND_ROUND_TRIP: Kind::Histogram(LATENCY), Seconds, "roost_command_round_trip_seconds", [],
        "Time from a SendCommand request to the device's result, for calls that waited for it and got it.";
    COMMAND_REDELIVERIES: Kind::Counter, Count, "roost_command_redeliveries_total", [],
        "Commands handed to a device's socket with an attempt above 1.";
    MAILBOX_PENDING: Kind::Gauge, Count, "roost_mailbox_pending", [],
        "Unfinished commands in all mailboxes of the hub, whether they wait for their device or are with it. Counted twice a minute by one node for all, 0 on the others: the hub's value is the maximum over nodes.";
    MAILBOX_OLDEST_AGE: Kind::Gauge, Seconds, "roost_mailbox_oldest_age_seconds", [],
        "How long ago the oldest of mailbox_pending was accepted; the hub's value is the maximum over nodes. At least that: with thousands pending it may take some minutes until the oldest of all is found.";
    SESSIONS: Kind::Gauge, Count, "roost_sessions", ["state"],
        "Sessions owned by this node = claims won - releases - takeovers by others, split by whether the lease holds.";
    SESSION_TAKEOVERS: Kind::Counter, Count, "roost_session_takeovers_total", ["reason"],
        "Claims won by this node that replaced an existing session.";
    SESSION_CONTESTS: Kind::Counter, Count, "roost_session_contests_total", [],
        "Claims won by this node that made it obvious that two devices fight over one identity: each fifth takeover of a device within a minute; a part of session_takeovers_total.";
    SESSION_RESUMES: Kind::Counter, Count, "roost_session_resumes_total", ["outcome"],
        "Sessions of this node compared with the store after an interruption, by what became of them.";
    FENCED_WRITES: Kind::Counter, Count, "roost_fenced_writes_total", [],
        "Writes of this node refused because the session or the lease was no longer its own, or the write came too late.";
    TRACE_SPANS: Kind::Counter, Count, "roost_trace_spans_total", ["outcome"],
        "Spans of recorded traces that ended at this node, by what became of them; all zero where tracing is off.";
    REDIS_COMMAND_DURATION: Kind::Histogram(REDIS_LATENCY), Seconds, "roost_redis_command_duration_seconds", ["command", "outcome"],
        "Time from sending a command or script to Redis to its reply or failure, queueing in the client included.";
    REDIS_ERRORS: Kind::Counter, Count, "roost_redis_errors_total", ["kind"],
        "Commands and scripts that Redis answered with an error, or not at all; fenced writes are answers, not errors.";
    REDIS_RECONNECTS: Kind::Counter, Count, "roost_redis_reconnects_total", ["role"],
        "Connections to Redis made again after one was lost = connections made - first connections.";
    REDIS_FAILOVERS: Kind::Counter, Count, "roost_redis_failovers_total", [],
        "Reconnections that found another replication id than before: a failover, or a restart without its data.";
    REDIS_PUBSUB_DROPPED: Kind::Counter, Count, "roost_redis_pubsub_dropped_total", ["reason"],
        "Messages and events that came from Redis and were not taken in; subscribers are told of a gap, mailboxes are read again.";
    HUB_TIME_ERROR: Kind::Gauge, Seconds, "roost_hub_time_error_seconds", [],
        "How far hub time may be off the store's since it was last told = half the round trip of that telling + 1 ms; 0 on the embedded store.";
    REDIS_UP: Kind::Gauge, Count, "roost_redis_up", ["role"],
        "1 while the connection answers, 0 while it does not; absent on the embedded store.";
    GRPC_HANDLED: Kind::Counter, Count, "roost_grpc_server_handled_total", ["method", "code"],
        "RPCs completed, by status; a stream counts when it ends, a call whose caller went away counts as CANCELLED.";
    GRPC_HANDLING: Kind::Histogram(LATENCY), Seconds, "roost_grpc_server_handling_seconds", ["method"],
        "Time from the request to the end of the answer; its count = grpc_server_handled_total summed over codes. Long waits and streams are included.";
    DRAIN_STATE: Kind::Gauge, Count, "roost_drain_state", [],
        "0 serving, 1 draining, 2 drained.";
    DRAIN_REMAINING: Kind::Gauge, Count, "roost_drain_remaining_connections", [],
        "Connections that a drain has still to close = ws_connections while draining, else 0.";
    DRAIN_DURATION: Kind::Gauge, Seconds, "roost_drain_duration_seconds", [],
        "How long the drain has gone on, or took; 0 without one.";
    DRAIN_FORCED: Kind::Counter, Count, "roost_drain_forced_closes_total", [],
        "Connections that a drain cut because their device did not answer the close frame.";
    TLS_CERT_EXPIRY: Kind::Gauge, Seconds, "roost_tls_cert_expiry_timestamp_seconds", ["port"],
        "When the certificate in use on a port expires, in seconds since 1970; absent where a port has no TLS. Time left = this - time().";
    TLS_CERT_RELOADS: Kind::Counter, Count, "roost_tls_cert_reloads_total", ["port", "outcome"],
        "Times that a port's certificate or key file was found changed: taken into use (reloaded), or not good and the one in use kept (failed; once for each content).";
    EVENT_LOOP_LAG: Kind::Histogram(LAG), Seconds, "roost_event_loop_lag_seconds", ["worker"],
        "How late each of an edge's workers came to its tick (four a second): the longest wait of everything else on it is about as long.";
    BUILD_INFO: Kind::Gauge, Count, "roost_build_info", ["version"],
        "Always 1; the running version is in the label.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for spec in ALL {
            assert!(spec.name.starts_with("roost_"), "{}", spec.name);
            assert_eq!(spec.name.ends_with("_total"), spec.kind == Kind::Counter, "{}", spec.name);
            if spec.unit == Unit::Bytes {
                assert!(spec.name.contains("_bytes"), "{}", spec.name);
            }
            if spec.unit == Unit::Seconds {
                assert!(spec.name.ends_with("_seconds"), "{}", spec.name);
            }
            assert!(spec.help.ends_with('.'), "{}", spec.name);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = ALL.iter().map(|s| s.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn buckets_ascend() {
        for spec in ALL {
            if let Kind::Histogram(buckets) = spec.kind {
                assert!(buckets.is_sorted_by(|a, b| a < b), "{}", spec.name);
            }
        }
    }
}
