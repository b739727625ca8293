//! What a node counts moves when it happens, and does not grow with the fleet.

use std::time::Duration;

use roost_testkit::backend::{command, waiting, with_id, with_ttl};
use roost_testkit::device::TestDevice;
use roost_testkit::hub::TestHub;
use roost_testkit::{HANGS, eventually};
use roost_types::{Payload, Text};

/// What the first version has at least, each name as on the page.
const NAMES: [&str; 15] = [
    "roost_ws_connections",
    "roost_ws_connects_total",
    "roost_ws_disconnects_total",
    "roost_ws_handshake_duration_seconds_count",
    "roost_messages_total",
    "roost_messages_dropped_total",
    "roost_commands_total",
    "roost_command_round_trip_seconds_count",
    "roost_sessions",
    "roost_session_takeovers_total",
    "roost_redis_command_duration_seconds_count",
    "roost_redis_up",
    "roost_grpc_server_handled_total",
    "roost_build_info",
    "roost_process_resident_memory_bytes",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_moves_when_it_happens() {
    let hub = TestHub::on_redis().await;
    let target = hub.target();
    let backend = target.backend().await;
    // A good connection, a refused one, a takeover, a close.
    let first = target.on_a("d").await;
    let mut device = target.on_a("d").await;
    first.end().await;
    drop(TestDevice::open(target.a(), "no-token", &[]).await.unwrap_err());
    target.on_a("brief").await.connection.close().await;
    // A command answered, one expired, messages in and out.
    let run = backend.run(command("d", "hello"));
    let answering = async {
        let got = device.command().await;
        device.succeed(&got, None).await;
    };
    tokio::join!(run, answering);
    let short = with_ttl(Duration::from_secs(1), with_id("short", command("away", "hello")));
    backend.send(waiting(Duration::from_secs(60), short)).await;
    device.subscribe("t").await.unwrap();
    device.connection.queue(&publication());
    device.message().await;

    let moved: [(&str, &[&str], f64); 16] = [
        ("roost_ws_connections", &[], 1.0),
        ("roost_ws_connects_total", &["accepted"], 3.0),
        ("roost_ws_disconnects_total", &[], 2.0),
        ("roost_ws_disconnects_total", &["replaced"], 1.0),
        ("roost_ws_handshake_duration_seconds_count", &[], 3.0),
        ("roost_messages_total", &["direction=\"in\"", "publish"], 1.0),
        ("roost_messages_total", &["direction=\"out\"", "kind=\"message\""], 1.0),
        ("roost_messages_total", &["direction=\"out\"", "kind=\"command\""], 1.0),
        ("roost_commands_total", &["succeeded"], 1.0),
        ("roost_commands_total", &["expired"], 1.0),
        ("roost_command_round_trip_seconds_count", &[], 1.0),
        ("roost_sessions", &["live"], 1.0),
        ("roost_session_takeovers_total", &[], 1.0),
        ("roost_grpc_server_handled_total", &["SendCommand", "OK"], 2.0),
        ("roost_build_info", &[], 1.0),
        ("roost_commands_in_flight", &[], 0.0),
    ];
    let admin = hub.admin(0);
    for (name, labels, expected) in moved {
        let what = format!("{name}{labels:?} is {expected}");
        let there = async || (admin.metrics().await.sum(name, labels) == expected).then_some(());
        eventually(&what, HANGS, there).await;
    }
    let metrics = admin.metrics().await;
    let refused = metrics.sum("roost_ws_connects_total", &[]) - 3.0;
    assert_eq!(refused, 1.0, "the refused connection");
    assert!(metrics.sum("roost_redis_command_duration_seconds_count", &["ok"]) > 5.0);
    assert!(metrics.sum("roost_redis_up", &[]) >= 1.0);
    assert!(metrics.sum("roost_process_resident_memory_bytes", &[]) > 1e6);
    for name in NAMES {
        assert!(metrics.has(name), "{name} is not on the page");
    }
    hub.shutdown().await;
}

fn publication() -> roost_wire::device::FromDevice {
    roost_wire::device::FromDevice::Publish {
        id: None,
        topic: roost_types::Topic::new("t").unwrap(),
        payload: Payload::json(Text::from("1")),
        qos: roost_types::Qos::BestEffort,
        headers: vec![],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_devices_make_no_more_series() {
    let hub = TestHub::in_memory().await;
    let target = hub.target();
    let backend = target.backend().await;
    let admin = hub.admin(0);
    let mut fleets = vec![];
    let mut series = vec![];
    for (prefix, count) in [("few", 2), ("many", 100)] {
        let fleet = target.fleet(prefix, count).await;
        for (name, _) in fleet.devices() {
            backend.run(command(name, &format!("hello-{name}"))).await;
            backend.publish(&format!("topic/{name}"), "1").await;
        }
        fleets.push(fleet);
        series.push(admin.metrics().await.series());
    }
    assert_eq!(series[0], series[1]);
    hub.shutdown().await;
}
