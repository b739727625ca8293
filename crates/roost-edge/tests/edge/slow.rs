//! Devices that do not read: bounded, told, closed; their neighbours notice nothing.

use std::time::Duration;

use roost_edge::EdgeConfig;
use roost_types::CommandState;
use serde_json::json;

use crate::support::{Seen, TestEdge};

fn config() -> EdgeConfig {
    EdgeConfig { send_queue_bytes: 256 << 10, ..EdgeConfig::default() }
}

const DROPPED: &str = "roost_messages_dropped_total{reason=\"queue_full\"}";

const CLOSED: &str = "roost_ws_disconnects_total{initiator=\"hub\",reason=\"slow_consumer\"}";

/// Publishes until the device called `slow`, which does not read, loses something or is closed.
async fn flood(edge: &TestEdge) {
    let mut publisher = edge.device("publisher").await;
    let text = "x".repeat(60_000);
    let mut n = 0;
    let counted = |series| edge.telemetry.value(series).unwrap_or(0.0);
    while counted(DROPPED) < 3.0 && counted(CLOSED) < 1.0 {
        publisher.send(json!({"type": "publish", "id": n, "topic": "t", "text": text})).await;
        publisher.expect("ack").await;
        n += 1;
        assert!(n < 10_000, "a queue of 256 KiB fills up");
    }
}

#[tokio::test]
async fn a_slow_reader_loses_publications_and_is_told_so() {
    let mut config = config();
    // It is slow for as long as the machine makes it, and is not to be closed for that.
    config.timeouts.stall = Duration::from_secs(3600);
    let edge = TestEdge::alone(config).await;
    let mut slow = edge.device("slow").await;
    slow.subscribe("t/#").await;
    slow.subscribe("other").await;
    let mut neighbour = edge.device("neighbour").await;
    neighbour.subscribe("u").await;
    flood(&edge).await;
    neighbour.send(json!({"type": "publish", "topic": "u", "payload": 1})).await;
    neighbour.expect("message").await;

    // A command waits in the mailbox meanwhile and comes once the device reads again.
    edge.send_command("slow", "c1", Duration::from_secs(60)).await;
    let (mut gap, mut command) = (false, false);
    while !(gap && command) {
        let message = slow.json().await;
        if message["type"] == "gap" {
            assert_eq!(message["topic"], "t/#", "the subscription that missed something");
            gap = true;
        }
        command |= message["type"] == "command";
    }
    edge.until_state("slow", "c1", CommandState::Sent).await;
    slow.expect_alive().await;
    edge.until_metric("roost_send_queue_bytes", 0.0).await;
}

#[tokio::test]
async fn a_device_that_never_reads_is_closed_and_its_neighbours_go_on() {
    let mut config = config();
    config.timeouts.stall = Duration::from_millis(500);
    config.timeouts.close = Duration::from_millis(250);
    let edge = TestEdge::alone(config).await;
    let mut slow = edge.device("slow").await;
    slow.subscribe("t").await;
    let mut neighbour = edge.device("neighbour").await;
    flood(&edge).await;
    edge.until_metric(CLOSED, 1.0).await;
    edge.until_metric("roost_send_queue_bytes", 0.0).await;
    neighbour.expect_alive().await;
    // What had reached the device's own buffers is all that it ever gets.
    while slow.seen().await != Seen::End {}
}
