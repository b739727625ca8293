//! Commands to devices: delivery, order, reports, takeover, a lease that is not valid.

use std::time::Duration;

use roost_cluster::{Initiator, NodeEvent, SessionHolder as _};
use roost_types::CommandState;
use serde_json::json;

use crate::support::{TestEdge, hub, key, offer};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_command_goes_to_the_device_and_its_result_comes_back() {
    let edge = TestEdge::start(&hub(), "a").await;
    let mut device = edge.device("thermo-1").await;
    edge.send_command("thermo-1", "c1", MINUTE).await;

    let command = device.expect("command").await;
    assert_eq!(command["command_id"], "c1");
    assert_eq!(command["name"], "reboot");
    assert_eq!(command["payload"], json!({"delay_s": 5}));
    let left = command["expires_in_ms"].as_u64().unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
    edge.until_state("thermo-1", "c1", CommandState::Sent).await;

    device.send(json!({"type": "received", "id": 7, "command_id": "c1"})).await;
    assert_eq!(device.expect("ack").await["id"], 7);
    device.send(json!({"type": "progress", "command_id": "c1", "percent": 40})).await;
    device
        .send(json!({"type": "result", "id": 8, "command_id": "c1", "status": "succeeded", "payload": {"uptime_s": 3}}))
        .await;
    let ack = device.expect("ack").await;
    assert_eq!((&ack["id"], &ack["command_id"]), (&json!(8), &json!("c1")));
    let command = edge.command("thermo-1", "c1").await;
    assert_eq!(command.state, CommandState::Succeeded);
    assert_eq!(command.progress.unwrap().percent, Some(40));
    assert_eq!(command.result.unwrap().payload.unwrap().as_str(), Some("{\"uptime_s\":3}"));

    // A device repeats its result until it hears the ack: the repeat is acknowledged too.
    device.send(json!({"type": "result", "command_id": "c1", "status": "failed"})).await;
    assert_eq!(device.expect("ack").await["command_id"], "c1");
    assert_eq!(edge.command("thermo-1", "c1").await.state, CommandState::Succeeded);
    assert_eq!(edge.telemetry.value("roost_commands_total{outcome=\"succeeded\"}"), Some(1.0));
}

#[tokio::test]
async fn what_waits_comes_in_order_on_connect_and_what_expired_does_not() {
    let edge = TestEdge::start(&hub(), "a").await;
    edge.send_command("d", "gone", Duration::ZERO).await;
    for n in 0..150 {
        edge.send_command("d", &format!("c{n}"), MINUTE).await;
    }
    let mut device = edge.device("d").await;
    // More than the window of 64: the rest follows as results free it, among the acks.
    for n in 0..150 {
        let command = loop {
            let message = device.json().await;
            if message["type"] == "command" {
                break message;
            }
            assert_eq!(message["type"], "ack", "{message}");
        };
        let id = format!("c{n}");
        assert_eq!(command["command_id"], id);
        device.send(json!({"type": "result", "command_id": id, "status": "succeeded"})).await;
    }
}

#[tokio::test]
async fn an_unknown_command_is_not_found_and_the_connection_stays() {
    let edge = TestEdge::start(&hub(), "a").await;
    let mut device = edge.device("d").await;
    device.send(json!({"type": "result", "id": 1, "command_id": "zzz", "status": "failed"})).await;
    let error = device.expect("error").await;
    assert_eq!((&error["code"], &error["retryable"]), (&json!("NOT_FOUND"), &json!(false)));
    assert_eq!(error["command_id"], "zzz");
    device.expect_alive().await;
}

#[tokio::test]
async fn a_push_that_was_missed_is_made_good_from_the_mailbox() {
    let edge = TestEdge::start(&hub(), "a").await;
    let mut device = edge.device("d").await;
    let session =
        edge.store.sessions.get(&key("d")).await.unwrap().unwrap().session.unwrap().session;
    // Enqueued and never pushed.
    edge.store.mailboxes.enqueue(&key("d"), offer(&spec(&edge, "lost"))).await.unwrap();
    edge.send_command("d", "next", MINUTE).await;
    assert_eq!(device.expect("command").await["command_id"], "lost");
    assert_eq!(device.expect("command").await["command_id"], "next");

    // A push that comes twice is delivered once.
    let command = Box::new(edge.command("d", "next").await);
    let event = NodeEvent::Deliver { session, command, prev: 0 };
    edge.store.bus.send(&edge.node, &event).await.unwrap();
    device.expect_alive().await;
}

fn spec(edge: &TestEdge, id: &str) -> roost_types::CommandSpec {
    let expires = edge.store.clock.now().plus(MINUTE);
    roost_types::CommandSpec::new(roost_types::CommandId::new(id).unwrap(), "x", expires)
}

#[tokio::test]
async fn a_newer_session_on_the_same_node_closes_the_older_one() {
    let edge = TestEdge::start(&hub(), "a").await;
    let mut old = edge.device("d").await;
    let mut new = edge.device("d").await;
    old.expect_end("REPLACED", 4409).await;
    edge.send_command("d", "c1", MINUTE).await;
    assert_eq!(new.expect("command").await["command_id"], "c1");
    edge.until_metric("roost_ws_connections{protocol=\"json\"}", 1.0).await;
    assert_eq!(
        edge.telemetry.value("roost_session_takeovers_total{reason=\"same_node\"}"),
        Some(1.0)
    );
    let record = edge.store.sessions.get(&key("d")).await.unwrap().unwrap();
    assert!(record.session.is_some(), "the older connection's end did not end the newer session");
}

#[tokio::test]
async fn a_newer_session_on_another_node_closes_the_older_one() {
    let hub = hub();
    let (a, b) = (TestEdge::start(&hub, "a").await, TestEdge::start(&hub, "b").await);
    let mut old = a.device("d").await;
    let mut new = b.device("d").await;
    old.expect_end("REPLACED", 4409).await;
    a.send_command("d", "c1", MINUTE).await;
    assert_eq!(new.expect("command").await["command_id"], "c1");
    let session = a.store.sessions.get(&key("d")).await.unwrap().unwrap().session.unwrap();
    assert_eq!(session.node, b.node);
    a.until_metric("roost_sessions{state=\"live\"}", 0.0).await;
}

#[tokio::test]
async fn without_a_valid_lease_nothing_is_delivered_or_acknowledged_and_sockets_stay() {
    let edge = TestEdge::start(&hub(), "a").await;
    let mut device = edge.device("d").await;
    edge.lease.suspend();
    edge.send_command("d", "c1", MINUTE).await;
    device.send(json!({"type": "publish", "id": 1, "topic": "t", "payload": 1})).await;
    let error = device.expect("error").await;
    assert_eq!((&error["code"], &error["retryable"]), (&json!("UNAVAILABLE"), &json!(true)));
    device.expect_alive().await;

    edge.handle.edge().revalidate().await.unwrap();
    edge.lease.resume();
    assert_eq!(device.expect("command").await["command_id"], "c1");
    edge.until_state("d", "c1", CommandState::Sent).await;
}

#[tokio::test]
async fn a_session_that_was_lost_meanwhile_is_closed_on_revalidation() {
    let hub = hub();
    let (a, b) = (TestEdge::start(&hub, "a").await, TestEdge::start(&hub, "b").await);
    let mut old = a.device("d").await;
    // Taken over while a hears of nothing.
    let mut claim = roost_cluster::SessionClaim {
        device: key("d"),
        session: roost_types::SessionId::random(),
        node: b.node.clone(),
        protocol: "roost.v1.json".into(),
        address: "".into(),
        claimed_at: b.store.clock.now(),
    };
    claim.claimed_at = claim.claimed_at.plus(MINUTE);
    b.store.sessions.claim(&claim).await.unwrap();
    a.handle.edge().revalidate().await.unwrap();
    old.expect_end("REPLACED", 4409).await;
}

#[tokio::test]
async fn cancel_and_disconnect_reach_the_device() {
    let edge = TestEdge::start(&hub(), "a").await;
    let mut device = edge.device("d").await;
    let session =
        edge.store.sessions.get(&key("d")).await.unwrap().unwrap().session.unwrap().session;
    let cancel = NodeEvent::Cancel {
        device: key("d"),
        session,
        command: roost_types::CommandId::new("c9").unwrap(),
    };
    edge.store.bus.send(&edge.node, &cancel).await.unwrap();
    assert_eq!(device.expect("cancel").await["command_id"], "c9");

    let disconnect =
        NodeEvent::Disconnect { device: key("d"), session, reason: "maintenance".into() };
    edge.store.bus.send(&edge.node, &disconnect).await.unwrap();
    device.expect("goaway").await;
    device.expect_end("DISCONNECTED", 1012).await;
    drop(device);
    let close = edge.until_offline("d").await;
    assert_eq!((close.code, close.initiator), (1012, Initiator::Operator));
    assert!(close.reason.contains("maintenance"), "{}", close.reason);
}
