//! Publications between devices.

use std::sync::Arc;

use roost_cluster::NodeSink as _;
use serde_json::json;

use crate::support::{TestEdge, hub};

#[tokio::test]
async fn a_publication_reaches_exact_and_wildcard_subscribers_on_both_nodes_once() {
    let hub = hub();
    let (a, b) = (TestEdge::start(&hub, "a").await, TestEdge::start(&hub, "b").await);
    let mut exact = a.device("exact").await;
    exact.subscribe("fleet/42/temp").await;
    let mut both = b.device("both").await;
    both.subscribe("fleet/42/temp").await;
    both.subscribe("fleet/+/temp").await;
    let mut rest = b.device("rest").await;
    rest.subscribe("fleet/#").await;
    let mut other = b.device("other").await;
    other.subscribe("fleet/43/temp").await;

    let mut publisher = a.device("publisher").await;
    for n in 0..20 {
        publisher
            .send(
                json!({"type": "publish", "id": n, "topic": "fleet/42/temp", "payload": {"n": n}}),
            )
            .await;
        assert_eq!(publisher.expect("ack").await["id"], n);
    }
    for device in [&mut exact, &mut both, &mut rest] {
        for n in 0..20 {
            let message = device.expect("message").await;
            assert_eq!(message["payload"], json!({"n": n}));
            assert_eq!(message["from"], "device:publisher");
            assert_eq!(message["topic"], "fleet/42/temp");
        }
        device.expect_alive().await;
    }
    other.expect_alive().await;
}

#[tokio::test]
async fn more_subscribers_than_fit_one_slice_get_a_broadcast() {
    let edge = TestEdge::start(&hub(), "a").await;
    let mut devices = Vec::new();
    for n in 0..150 {
        let mut device = edge.connect(&format!("d{n}")).await;
        device.hello(json!({"subscriptions": [{"topic": "all"}]})).await;
        devices.push(device);
    }
    devices[0].send(json!({"type": "publish", "topic": "all", "text": "<x/>"})).await;
    for device in &mut devices {
        assert_eq!(device.expect("message").await["text"], "<x/>");
    }
    let sent = "roost_messages_total{direction=\"out\",kind=\"message\"}";
    edge.until_metric(sent, 150.0).await;
}

#[tokio::test]
async fn tenants_do_not_hear_each_other() {
    let edge = TestEdge::start(&hub(), "a").await;
    let mut foreign = edge.connect("d&tenant=other").await;
    foreign.hello(json!({"subscriptions": [{"topic": "#"}, {"topic": "t"}]})).await;
    let mut own = edge.device("d").await;
    own.subscribe("t").await;
    own.send(json!({"type": "publish", "topic": "t", "payload": 1})).await;
    own.expect("message").await;
    foreign.expect_alive().await;
}

#[tokio::test]
async fn what_the_hub_cannot_promise_is_said() {
    let edge = TestEdge::start(&hub(), "a").await;
    let mut device = edge.connect("d").await;
    device
        .hello(json!({"subscriptions": [
            {"topic": "a", "position": "k3:118"},
            {"topic": "b", "qos": 1},
        ]}))
        .await;
    let mut said = [device.json().await, device.json().await];
    said.sort_by_key(|message| message["type"].to_string());
    assert_eq!(said[0]["code"], "QOS_UNSUPPORTED");
    assert_eq!(said[0]["field"], "subscriptions[1]");
    assert_eq!(said[1]["type"], "gap");
    assert_eq!((&said[1]["topic"], &said[1]["from"]), (&json!("a"), &json!("k3:118")));

    for (message, code) in [
        (
            json!({"type": "publish", "id": 2, "topic": "t", "qos": 1, "payload": 1}),
            "QOS_UNSUPPORTED",
        ),
        (json!({"type": "subscribe", "id": 2, "topic": "t", "qos": 1}), "QOS_UNSUPPORTED"),
        (json!({"type": "publish", "id": 2, "topic": "$sys/x", "payload": 1}), "PERMISSION_DENIED"),
        (json!({"type": "publish", "id": 2, "topic": "a//b", "payload": 1}), "TOPIC_INVALID"),
        (json!({"type": "hello", "id": 2}), "HELLO_REPEATED"),
        (json!({"type": "frobnicate", "id": 2}), "UNKNOWN_TYPE"),
        (json!({"type": "subscribe", "id": 2}), "FIELD_MISSING"),
    ] {
        device.send(message.clone()).await;
        let error = device.expect("error").await;
        assert_eq!((&error["code"], &error["id"]), (&json!(code), &json!(2)), "{message}");
    }
    device.expect_alive().await;
}

#[tokio::test]
async fn unsubscribing_ends_the_messages_and_a_bus_gap_is_told() {
    let edge = TestEdge::start(&hub(), "a").await;
    let mut device = edge.device("d").await;
    device.subscribe("a").await;
    device.subscribe("b").await;
    device.subscribe("b").await;
    device.send(json!({"type": "unsubscribe", "id": 5, "topic": "a"})).await;
    device.expect("ack").await;
    device
        .send(json!([
            {"type": "publish", "topic": "a", "payload": 1},
            {"type": "publish", "topic": "b", "payload": 2},
        ]))
        .await;
    assert_eq!(device.expect("message").await["payload"], 2);
    Arc::clone(edge.handle.edge()).gap();
    assert_eq!(device.expect("gap").await["topic"], "b");
    device.expect_alive().await;
}

#[tokio::test]
async fn subscriptions_are_bounded() {
    let mut config = roost_edge::EdgeConfig::default();
    config.limits.subscriptions = 2;
    let edge = TestEdge::alone(config).await;
    let mut device = edge.device("d").await;
    device.subscribe("a").await;
    device.subscribe("b").await;
    device.send(json!({"type": "subscribe", "id": 2, "topic": "c"})).await;
    assert_eq!(device.expect("error").await["code"], "LIMIT_EXCEEDED");
    device.subscribe("b").await;
}
