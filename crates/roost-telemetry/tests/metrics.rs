//! The catalogue as `/metrics` shows it: each metric is there, moves when its event happens, and
//! keeps its equation.

use std::time::Duration;

use roost_telemetry::Telemetry;
use roost_telemetry::metrics::catalog::{ALL, Kind};
use roost_telemetry::metrics::labels::{
    AdmissionDecision, CloseCode, CommandOutcome, ConnectOutcome, DeliveryPath, Direction,
    DisconnectReason, DropReason, GapCause, GrpcCode, GrpcMethod, Initiator, Label as _,
    MessageKind, Protocol, PubsubDrop, RedisCommand, RedisErrorKind, RedisOutcome, RedisRole,
    ResumeOutcome, SessionState, SlowAction, SpanOutcome, TakeoverReason, TlsPort,
};
use roost_telemetry::metrics::{DrainState, WorkerIndex};

/// Makes every metric happen once.
fn everything_once(t: &Telemetry) {
    let mut connection = t.edge.connected(Protocol::Json, Duration::from_millis(2));
    connection.closing(Initiator::Device, DisconnectReason::Normal);
    t.edge.refused(ConnectOutcome::Unauthenticated);
    t.edge.messages.inc((Direction::In, MessageKind::Publish));
    t.edge.messages_dropped.inc(DropReason::QueueFull);
    t.edge.gaps.inc(GapCause::Bus);
    t.edge.send_queue_bytes.increment(128);
    t.edge.slow_consumers.inc(SlowAction::Closed);
    t.edge.admission.inc(AdmissionDecision::Admitted);
    t.edge.set_connections_limit(1_000);
    t.edge.set_admission_tokens(10);
    t.edge.close_frames_sent.inc(CloseCode::from_number(1012));
    t.edge.message_bytes.add(Direction::Out, 64);
    t.edge.message_sized(Direction::In, 64);
    t.edge.delivered(DeliveryPath::Command, Duration::from_millis(3));
    t.edge.event_loop_lagged(WorkerIndex::new(1), Duration::from_millis(1));
    t.edge.pong(&t.edge.ping_payload());
    t.edge.command_redeliveries.increment(1);
    t.control.commands.inc(CommandOutcome::Succeeded);
    t.control.command_started().answered();
    t.control.rpc_started(GrpcMethod::SendCommand).finish(GrpcCode::Ok);
    t.redis.observe(RedisCommand::Claim, RedisOutcome::Ok, Duration::from_micros(300));
    t.redis.reconnects.inc(RedisRole::Primary);
    t.redis.set_up(RedisRole::Primary, true);
    t.redis.errors.inc(RedisErrorKind::Timeout);
    t.redis.failovers.increment(1);
    t.redis.pubsub_dropped.inc(PubsubDrop::QueueFull);
    t.redis.set_hub_time_error(Duration::from_millis(2));
    t.node.session_resumes.inc(ResumeOutcome::Kept);
    t.node.drain_forced(1);
    let mut session = t.node.session_claimed();
    session.set_state(SessionState::Suspended);
    t.node.session_takeovers.inc(TakeoverReason::OtherNode);
    t.node.fenced_writes.increment(1);
    t.node.trace_spans.inc(SpanOutcome::Exported);
    t.node.set_tls_cert_expiry(TlsPort::Edge, 1_900_000_000);
    t.node.set_drain_state(DrainState::Draining);
    t.node.set_mailboxes(3, Duration::from_secs(40));
}

#[test]
fn every_metric_of_the_catalogue_is_exposed_with_help_and_type() {
    let telemetry = Telemetry::new("1.2.3");
    everything_once(&telemetry);
    let text = telemetry.render();
    for spec in ALL {
        let kind = match spec.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        assert!(text.contains(&format!("# TYPE {} {kind}\n", spec.name)), "{}", spec.name);
        assert!(text.contains(&format!("# HELP {} ", spec.name)), "{}", spec.name);
    }
    assert_eq!(telemetry.value("roost_build_info{version=\"1.2.3\"}"), Some(1.0));
    let bucket = "roost_redis_command_duration_seconds_bucket{command=\"claim\",outcome=\"ok\",le=\"0.0005\"}";
    assert_eq!(telemetry.value(bucket), Some(1.0));
    assert_eq!(telemetry.value("roost_drain_state"), Some(1.0));
}

#[test]
fn connections_equal_connects_minus_disconnects() {
    let t = Telemetry::new("0");
    let connections: Vec<_> =
        (0..5).map(|_| t.edge.connected(Protocol::Json, Duration::ZERO)).collect();
    let mut connections = connections.into_iter();
    let open = || t.value("roost_ws_connections{protocol=\"json\"}");
    assert_eq!(open(), Some(5.0));

    let mut first = connections.next().unwrap();
    first.closing(Initiator::Hub, DisconnectReason::SlowConsumer);
    first.closing(Initiator::Network, DisconnectReason::Lost);
    drop(first);
    drop(connections.next());
    assert_eq!(open(), Some(3.0));
    assert_eq!(t.value("roost_ws_connects_total{outcome=\"accepted\"}"), Some(5.0));
    let ended = |i: &str, r: &str| {
        t.value(&format!("roost_ws_disconnects_total{{initiator=\"{i}\",reason=\"{r}\"}}"))
    };
    assert_eq!(ended("hub", "slow_consumer"), Some(1.0), "the first cause counts");
    assert_eq!(ended("network", "lost"), Some(1.0), "no cause is a lost connection");
    assert_eq!(t.value("roost_ws_handshake_duration_seconds_count"), Some(5.0));
}

#[test]
fn series_do_not_grow_with_devices() {
    let series = |t: &Telemetry| {
        let text = t.render();
        text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count()
    };
    let telemetry = Telemetry::new("0");
    everything_once(&telemetry);
    let before = series(&telemetry);
    for _ in 0..1000 {
        everything_once(&telemetry);
    }
    assert_eq!(series(&telemetry), before);
}

#[test]
fn abandoned_calls_are_counted() {
    let t = Telemetry::new("0");
    drop(t.control.rpc_started(GrpcMethod::WatchDevices));
    let cancelled = "roost_grpc_server_handled_total{method=\"WatchDevices\",code=\"CANCELLED\"}";
    assert_eq!(t.value(cancelled), Some(1.0));
    let command = t.control.command_started();
    assert_eq!(t.value("roost_commands_in_flight"), Some(1.0));
    drop(command);
    assert_eq!(t.value("roost_commands_in_flight"), Some(0.0));
    assert_eq!(t.value("roost_command_round_trip_seconds_count"), Some(0.0));
}

#[test]
fn sessions_move_between_states_and_leave() {
    let t = Telemetry::new("0");
    let sessions = |state: &str| t.value(&format!("roost_sessions{{state=\"{state}\"}}"));
    let mut session = t.node.session_claimed();
    session.set_state(SessionState::Suspended);
    session.set_state(SessionState::Suspended);
    assert_eq!((sessions("live"), sessions("suspended")), (Some(0.0), Some(1.0)));
    session.set_state(SessionState::Live);
    assert_eq!((sessions("live"), sessions("suspended")), (Some(1.0), Some(0.0)));
    drop(session);
    assert_eq!((sessions("live"), sessions("suspended")), (Some(0.0), Some(0.0)));
}

#[test]
fn two_hubs_count_apart_and_noop_counts_nothing() {
    let (a, b) = (Telemetry::new("0"), Telemetry::new("0"));
    a.edge.refused(ConnectOutcome::Capacity);
    let series = "roost_ws_connects_total{outcome=\"capacity\"}";
    assert_eq!((a.value(series), b.value(series)), (Some(1.0), Some(0.0)));

    let noop = Telemetry::noop();
    everything_once(&noop);
    assert_eq!(noop.value(series), None);
}

#[tokio::test(start_paused = true)]
async fn a_drain_shows_what_it_has_left_and_how_long_it_takes() {
    let t = Telemetry::new("0");
    let connect = || t.edge.connected(Protocol::Json, Duration::ZERO);
    let (first, second) = (connect(), connect());
    let now = || {
        let show = |name: &str| t.value(&format!("roost_drain_{name}")).unwrap();
        (show("state"), show("remaining_connections"), show("duration_seconds"))
    };
    assert_eq!(now(), (0.0, 0.0, 0.0));
    t.node.set_drain_state(DrainState::Draining);
    assert_eq!(now(), (1.0, 2.0, 0.0));
    tokio::time::advance(Duration::from_secs(3)).await;
    // Said again: the drain began before.
    t.node.set_drain_state(DrainState::Draining);
    drop(first);
    assert_eq!(now(), (1.0, 1.0, 3.0));
    drop(second);
    t.node.set_drain_state(DrainState::Drained);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(now(), (2.0, 0.0, 3.0), "its end is its end");
}

#[tokio::test(start_paused = true)]
async fn what_waits_hub_wide_is_shown_by_the_node_that_counts_it() {
    let t = Telemetry::new("0");
    let shown = || {
        let show = |name: &str| t.value(&format!("roost_mailbox_{name}")).unwrap();
        (show("pending"), show("oldest_age_seconds"))
    };
    assert_eq!(shown(), (0.0, 0.0));
    t.node.set_mailboxes(7, Duration::from_millis(1_500));
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(shown(), (7.0, 1.5));
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(shown(), (0.0, 0.0), "another node counts now");
}

#[tokio::test(start_paused = true)]
async fn durations_and_round_trips_are_measured() {
    let t = Telemetry::new("0");
    let connection = t.edge.connected(Protocol::Json, Duration::ZERO);
    let ping = t.edge.ping_payload();
    tokio::time::advance(Duration::from_millis(40)).await;
    t.edge.pong(&ping);
    t.edge.pong(b"no ping of ours");
    t.edge.pong(&u64::MAX.to_be_bytes());
    assert_eq!(t.value("roost_ws_ping_rtt_seconds_count"), Some(1.0));
    assert_eq!(t.value("roost_ws_ping_rtt_seconds_sum"), Some(0.04));
    tokio::time::advance(Duration::from_secs(59)).await;
    drop(connection);
    assert_eq!(t.value("roost_ws_connection_duration_seconds_bucket{le=\"60\"}"), Some(1.0));
    assert_eq!(t.value("roost_ws_connection_duration_seconds_bucket{le=\"10\"}"), Some(0.0));
}

#[test]
fn two_thousand_connections_add_no_series() {
    let series = |t: &Telemetry| t.render().lines().filter(|line| !line.starts_with('#')).count();
    let t = Telemetry::new("0");
    everything_once(&t);
    for code in CloseCode::ALL {
        t.edge.close_frames_sent.inc(*code);
    }
    let before = series(&t);
    let devices: Vec<_> = (0..2_000u16)
        .map(|device| {
            t.edge.message_sized(Direction::In, usize::from(device));
            t.edge.event_loop_lagged(WorkerIndex::new(1), Duration::from_millis(device.into()));
            t.edge.close_frames_sent.inc(CloseCode::from_number(4_096 + device));
            (t.edge.connected(Protocol::Json, Duration::ZERO), t.node.session_claimed())
        })
        .collect();
    assert_eq!(series(&t), before);
    drop(devices);
}
