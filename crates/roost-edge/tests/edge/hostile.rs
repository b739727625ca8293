//! Bad input after the upgrade: each with its documented error and close code, while neighbours go
//! on as if nothing happened.

use std::time::Duration;

use roost_edge::EdgeConfig;
use roost_wire::ws::{FrameHead, Opcode, encode_message};
use serde_json::json;

use crate::support::{Device, Seen, TestEdge};

/// Does something to a fresh, welcomed device's connection, sees it end, and that others did not.
async fn ends(edge: &TestEdge, neighbour: &mut Device, bytes: &[u8], code: &str, close: u16) {
    let mut device = edge.device("bad").await;
    device.raw(bytes).await;
    device.expect_end(code, close).await;
    neighbour.expect_alive().await;
}

fn masked(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    roost_wire::ws::encode_masked(opcode, payload, [1, 2, 3, 4]).to_vec()
}

fn fragment(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    FrameHead { fin, rsv1: false, opcode, mask: Some([9, 9, 9, 9]) }.frame(payload).to_vec()
}

#[tokio::test]
async fn what_breaks_the_frame_rules_ends_with_the_code_for_it() {
    let edge = TestEdge::alone(EdgeConfig::default()).await;
    let mut neighbour = edge.device("neighbour").await;
    let n = &mut neighbour;
    let unmasked = encode_message(Opcode::Text, b"{}");
    ends(&edge, n, &unmasked, "PROTOCOL_ERROR", 1002).await;
    let mut reserved = masked(Opcode::Text, b"{}");
    reserved[0] |= 0x40;
    ends(&edge, n, &reserved, "PROTOCOL_ERROR", 1002).await;
    ends(&edge, n, &[0x83, 0x80, 0, 0, 0, 0], "PROTOCOL_ERROR", 1002).await;
    ends(&edge, n, &[0x89, 0xfe, 0, 126, 0, 0, 0, 0], "PROTOCOL_ERROR", 1002).await;
    ends(&edge, n, &masked(Opcode::Text, b"\xff"), "INVALID_UTF8", 1007).await;
    let mut split = fragment(false, Opcode::Text, b"\"\xc3");
    split.extend(fragment(true, Opcode::Continuation, b"\x28\""));
    ends(&edge, n, &split, "INVALID_UTF8", 1007).await;
    ends(&edge, n, &masked(Opcode::Text, &vec![b' '; 131_073]), "MESSAGE_TOO_BIG", 1009).await;
    ends(&edge, n, &masked(Opcode::Binary, b"x"), "UNSUPPORTED_DATA", 1003).await;
}

#[tokio::test]
async fn what_is_no_message_ends_and_what_is_a_bad_one_does_not() {
    let edge = TestEdge::alone(EdgeConfig::default()).await;
    let mut neighbour = edge.device("neighbour").await;
    let deep = "[".repeat(10_000);
    for text in ["", "{", "nul", "\"hello\"", deep.as_str()] {
        let frame = masked(Opcode::Text, text.as_bytes());
        ends(&edge, &mut neighbour, &frame, "BAD_MESSAGE", 4400).await;
    }
    let mut device = edge.device("d").await;
    let fits = "x".repeat(65_536);
    device.subscribe("t").await;
    device.send(json!({"type": "publish", "topic": "t", "text": fits})).await;
    assert_eq!(device.expect("message").await["text"], fits);
    device.send(json!({"type": "publish", "id": 3, "topic": "t", "text": fits + "y"})).await;
    assert_eq!(device.expect("error").await["code"], "PAYLOAD_TOO_LARGE");
    let nested = format!(
        r#"{{"type":"publish","topic":"t","payload":{}1{}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    device.text(&nested).await;
    let answer = device.seen().await;
    assert!(matches!(&answer, Seen::Json(error) if error["type"] == "error"), "{answer:?}");
    neighbour.expect_alive().await;
}

#[tokio::test]
async fn the_first_message_is_a_hello_and_comes_in_time() {
    let mut config = EdgeConfig::default();
    config.timeouts.hello = Duration::from_millis(1);
    let edge = TestEdge::alone(config).await;
    let mut silent = edge.connect("d").await;
    silent.expect_end("IDLE_TIMEOUT", 4408).await;

    let edge = TestEdge::alone(EdgeConfig::default()).await;
    let mut hasty = edge.connect("d").await;
    hasty.send(json!({"type": "ping"})).await;
    hasty.expect_end("HELLO_EXPECTED", 4400).await;
    let mut odd = edge.connect("d").await;
    odd.send(json!({"type": "greetings"})).await;
    odd.expect_end("HELLO_EXPECTED", 4400).await;
    // A hello with a mistake in it may be said again.
    let mut clumsy = edge.connect("d").await;
    clumsy.send(json!({"type": "hello", "subscriptions": [{"topic": "a//b"}]})).await;
    assert_eq!(clumsy.expect("error").await["code"], "TOPIC_INVALID");
    clumsy.hello(json!({})).await;
}

#[tokio::test]
async fn fragments_without_end_are_cut_off_at_the_limit() {
    let edge = TestEdge::alone(EdgeConfig::default()).await;
    let mut device = edge.device("d").await;
    let piece = vec![b'x'; 10_000];
    device.raw(&fragment(false, Opcode::Text, &piece)).await;
    for _ in 0..13 {
        device.raw(&fragment(false, Opcode::Continuation, &piece)).await;
    }
    device.expect_end("MESSAGE_TOO_BIG", 1009).await;
}

#[tokio::test]
async fn a_device_that_sends_on_after_the_close_is_gone_soon() {
    let mut config = EdgeConfig::default();
    config.timeouts.close = Duration::from_millis(250);
    let edge = TestEdge::alone(config).await;
    let mut device = edge.device("d").await;
    device.raw(&masked(Opcode::Binary, b"x")).await;
    device.expect_end("UNSUPPORTED_DATA", 1003).await;
    // No close frame comes back.
    assert_eq!(device.seen().await, Seen::End);
    edge.until_metric("roost_ws_connections{protocol=\"json\"}", 0.0).await;
    let closed = "roost_ws_disconnects_total{initiator=\"hub\",reason=\"protocol\"}";
    assert_eq!(edge.telemetry.value(closed), Some(1.0));
}

#[tokio::test]
async fn the_devices_close_is_answered_and_recorded() {
    let edge = TestEdge::alone(EdgeConfig::default()).await;
    let mut device = edge.device("d").await;
    let mut close = 3001u16.to_be_bytes().to_vec();
    close.extend_from_slice(b"battery low");
    device.frame(Opcode::Close, &close).await;
    device.expect_close(3001).await;
    assert_eq!(device.seen().await, Seen::End);
    edge.until_metric("roost_sessions{state=\"live\"}", 0.0).await;
    let close = edge.until_offline("d").await;
    assert_eq!((close.code, &*close.reason), (3001, "battery low"));
    assert_eq!(close.initiator, roost_cluster::Initiator::Device);
}

#[tokio::test]
async fn who_breaks_the_frame_rules_is_not_left_waiting_for_the_end() {
    let mut config = EdgeConfig::default();
    config.timeouts.close = Duration::from_secs(3600);
    let edge = TestEdge::alone(config).await;
    let mut device = edge.device("d").await;
    device.raw(&encode_message(Opcode::Text, b"{}")).await;
    device.expect_end("PROTOCOL_ERROR", 1002).await;
    assert_eq!(device.seen().await, Seen::End);
    drop(device);
    edge.until_metric("roost_ws_connections{protocol=\"json\"}", 0.0).await;
}

#[tokio::test]
async fn a_peer_that_breaks_off_under_a_full_queue_leaves_nothing_behind() {
    let edge = TestEdge::alone(EdgeConfig { enable_echo: true, ..EdgeConfig::default() }).await;
    let mut device = Device::open(edge.address(), "/v1/echo").await;
    device.raw(&masked(Opcode::Binary, &vec![7; 12 << 20])).await;
    let queued = async {
        while edge.telemetry.value("roost_send_queue_bytes").unwrap_or(0.0) < 1.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    crate::support::soon(queued).await;
    drop(device);
    edge.until_metric("roost_ws_connections{protocol=\"echo\"}", 0.0).await;
    edge.until_metric("roost_send_queue_bytes", 0.0).await;
}

#[tokio::test]
async fn a_flood_of_small_messages_is_answered_in_order() {
    let edge = TestEdge::alone(EdgeConfig::default()).await;
    let mut device = edge.device("d").await;
    let ids = 0..3_000;
    let mut flood = Vec::new();
    for id in ids.clone() {
        flood.extend(masked(Opcode::Text, format!(r#"{{"type":"ping","id":{id}}}"#).as_bytes()));
    }
    device.raw(&flood).await;
    for id in ids {
        assert_eq!(device.expect("pong").await["id"], id);
    }
}
