//! Keep-alive, expiry of credentials, and the way down.

use std::time::Duration;

use roost_edge::{EdgeConfig, Phase};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::{PATIENCE, Seen, TestEdge, key, request, soon, upgrade_request};

#[tokio::test]
async fn silence_brings_a_ping_and_then_the_end() {
    let mut keepalive = 500;
    let mut device = loop {
        let mut config = EdgeConfig::default();
        config.timeouts.keepalive_min = Duration::from_millis(keepalive);
        let edge = TestEdge::alone(config).await;
        let mut device = edge.connect("d").await;
        let welcome = device.hello(json!({"keepalive_ms": 1})).await;
        assert_eq!(welcome["keepalive_ms"], keepalive);
        assert_eq!(device.seen().await, Seen::Ping);
        let pinged = Instant::now();
        device.frame(roost_wire::ws::Opcode::Pong, b"").await;
        let in_time = pinged.elapsed() < Duration::from_millis(keepalive / 8);
        let next = device.seen().await;
        if next == Seen::Ping {
            break (edge, device);
        }
        // On a busy machine the pong may have come too late; then it is done again with more time.
        assert!(!in_time && keepalive < 20_000, "any byte is a sign of life, but {next:?} came");
        keepalive *= 4;
    };
    device.1.expect_end("IDLE_TIMEOUT", 4408).await;
}

#[tokio::test]
async fn keepalive_is_the_devices_to_ask_for_within_bounds() {
    let edge = TestEdge::alone(EdgeConfig::default()).await;
    for (asked, given) in [
        (json!(null), 60_000),
        (json!(1), 10_000),
        (json!(90_000), 90_000),
        (json!(9_999_999), 1_200_000),
    ] {
        let mut device = edge.connect("d").await;
        let fields = if asked.is_null() { json!({}) } else { json!({"keepalive_ms": asked}) };
        assert_eq!(device.hello(fields).await["keepalive_ms"], given);
    }
}

#[tokio::test]
async fn a_drain_sends_everybody_away_and_releases_every_session() {
    let mut config = EdgeConfig::default();
    // All answer, however slow the machine is.
    config.timeouts.close = PATIENCE;
    let edge = TestEdge::alone(config).await;
    let mut phases = edge.handle.edge().watch_phase();
    assert_eq!(*phases.borrow_and_update(), Phase::Ready);
    let mut devices = Vec::new();
    for n in 0..20 {
        devices.push(edge.device(&format!("d{n}")).await);
    }
    edge.handle.stop_admitting();
    let (_, head, _) = request(edge.address(), &upgrade_request("/v1/connect?device=x", "")).await;
    assert!(head.starts_with("http/1.1 503"), "{head}");
    devices[0].expect_alive().await;

    let TestEdge { handle, store, telemetry, .. } = edge;
    let address = handle.address();
    let mut readers = tokio::task::JoinSet::new();
    for mut device in devices {
        readers.spawn(async move {
            let goaway = device.expect("goaway").await;
            assert!(goaway["retry_after_ms"].as_u64().is_some_and(|ms| ms >= 250));
            device.expect_close(1012).await;
            device.frame(roost_wire::ws::Opcode::Close, &1012u16.to_be_bytes()).await;
            assert_eq!(device.seen().await, Seen::End);
        });
    }
    let drained = soon(handle.drain(Duration::from_millis(200))).await;
    assert_eq!(drained.forced, 0);
    soon(readers.join_all()).await;
    assert_eq!(*phases.borrow_and_update(), Phase::Stopped);
    for n in 0..20 {
        let record = store.sessions.get(&key(&format!("d{n}"))).await.unwrap().unwrap();
        assert_eq!((record.session, record.last_close.unwrap().code), (None, 1012));
    }
    assert_eq!(telemetry.value("roost_ws_connections{protocol=\"json\"}"), Some(0.0));
    assert_eq!(telemetry.value("roost_drain_state"), Some(2.0));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn peers_that_do_not_answer_are_forced() {
    let mut config = EdgeConfig::default();
    config.timeouts.close = Duration::from_millis(250);
    let edge = TestEdge::alone(config).await;
    let mut device = edge.device("d").await;
    let TestEdge { handle, store, .. } = edge;
    soon(handle.shutdown()).await;
    device.expect("goaway").await;
    let record = store.sessions.get(&key("d")).await.unwrap().unwrap();
    assert_eq!(record.session, None);
}
