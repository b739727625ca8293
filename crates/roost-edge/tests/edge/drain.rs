//! Devices sent away in order: by an operator's drain, to rebalance, for the age of their connection.

use std::time::Duration;

use roost_cluster::{NodeEvent, SessionHolder as _};
use roost_edge::{DrainPlan, EdgeConfig, Phase};
use roost_wire::ws::Opcode;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::{Device, PATIENCE, Seen, TestEdge, hub, key, request, soon, upgrade_request};

/// Reads a device's way out, and checks that its session was released before the close frame came.
async fn sent_away(edge: &TestEdge, id: &str, mut device: Device, why: &str) -> u64 {
    let goaway = device.expect("goaway").await;
    assert_eq!(goaway["reason"], why);
    let Seen::Close(Some(1012), reason) = device.seen().await else {
        panic!("a close frame with 1012 was to come");
    };
    assert_eq!(reason, why);
    let record = edge.store.sessions.get(&key(id)).await.unwrap().unwrap();
    assert_eq!(record.session, None, "released before the close frame");
    let close = record.last_close.unwrap();
    assert_eq!((close.code, &*close.reason), (1012, why));
    device.frame(Opcode::Close, &1012u16.to_be_bytes()).await;
    assert_eq!(device.seen().await, Seen::End);
    goaway["retry_after_ms"].as_u64().unwrap()
}

/// An edge that leaves its devices more time to answer a close frame than a busy machine takes.
fn patient() -> EdgeConfig {
    let mut config = EdgeConfig::default();
    config.timeouts.close = PATIENCE;
    config
}

async fn upgrade(edge: &TestEdge) -> String {
    request(edge.address(), &upgrade_request("/v1/connect?device=late", "")).await.1
}

#[tokio::test]
async fn an_operator_drains_a_node_which_stays_and_can_be_taken_back() {
    let edge = TestEdge::alone(patient()).await;
    let mut devices = vec![];
    for n in 0..10 {
        devices.push((format!("d{n}"), edge.device(&format!("d{n}")).await));
    }
    let mut drained = edge.handle.edge().watch_drained_by_operator();
    let order = NodeEvent::DrainNode { over: Duration::from_millis(200) };
    edge.store.bus.send(&edge.node, &order).await.unwrap();
    soon(drained.wait_for(|drained| *drained)).await.unwrap();
    assert!(edge.handle.edge().draining(), "as its heartbeats say");
    for (id, device) in devices {
        let retry = sent_away(&edge, &id, device, "draining").await;
        assert!((250..=2_250).contains(&retry), "{retry} ms");
    }
    edge.until_metric("roost_drain_state", 2.0).await;
    let head = upgrade(&edge).await;
    assert!(head.starts_with("http/1.1 503") && head.contains("retry-after: "), "{head}");
    assert_eq!(edge.handle.edge().phase(), Phase::Ready, "the process stays");

    edge.store.bus.send(&edge.node, &NodeEvent::UndrainNode).await.unwrap();
    soon(drained.wait_for(|drained| !*drained)).await.unwrap();
    edge.until_metric("roost_drain_state", 0.0).await;
    edge.device("d0").await.expect_alive().await;
}

#[tokio::test]
async fn a_drain_taken_back_half_way_keeps_who_is_left() {
    let edge = TestEdge::alone(EdgeConfig::default()).await;
    let mut devices = vec![];
    for n in 0..30 {
        devices.push(edge.device(&format!("d{n}")).await);
    }
    let order = |over| NodeEvent::DrainNode { over: Duration::from_secs(over) };
    edge.store.bus.send(&edge.node, &order(600)).await.unwrap();
    // Ten a second at the least: some have gone, others not.
    let gone = async {
        while edge.handle.edge().connections() > 25 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Nobody answers the close frames: the hub cuts them after its patience.
    soon(gone).await;
    edge.store.bus.send(&edge.node, &NodeEvent::UndrainNode).await.unwrap();
    edge.until_metric("roost_drain_state", 0.0).await;
    edge.device("new").await.expect_alive().await;
    assert!(edge.telemetry.value("roost_drain_forced_closes_total").unwrap() >= 1.0);
}

#[tokio::test]
async fn a_node_gives_away_as_many_as_it_is_asked_to() {
    let edge = TestEdge::alone(patient()).await;
    let mut devices = vec![];
    for n in 0..20 {
        devices.push((format!("d{n}"), edge.device(&format!("d{n}")).await));
    }
    let order = NodeEvent::Rebalance { surplus: 7, over: Duration::ZERO };
    edge.store.bus.send(&edge.node, &order).await.unwrap();
    edge.until_metric("roost_messages_total{direction=\"out\",kind=\"goaway\"}", 7.0).await;
    let mut stayed = 0;
    for (id, mut device) in devices {
        device.send(json!({"type": "ping", "id": 1})).await;
        match device.json().await {
            said if said["type"] == "goaway" => {
                assert_eq!(said["reason"], "rebalancing");
                edge.until_offline(&id).await;
            }
            _ => stayed += 1,
        }
    }
    assert_eq!(stayed, 13);
    assert!(upgrade(&edge).await.starts_with("http/1.1 101"), "others are let in");
}

#[tokio::test]
async fn an_old_connection_is_asked_to_connect_again() {
    let config = EdgeConfig {
        // Longer than a busy machine takes for a welcome.
        max_connection_age: Some(Duration::from_secs(4)),
        max_connection_age_jitter: Some(Duration::from_millis(250)),
        ..patient()
    };
    let edge = TestEdge::alone(config).await;
    let device = edge.device("d").await;
    sent_away(&edge, "d", device, "connection_age").await;
    edge.device("d").await.expect_alive().await;
}

#[tokio::test]
async fn drains_of_two_nodes_share_one_pace() {
    let hub = hub();
    let config = || EdgeConfig { shed_rate: 20, ..EdgeConfig::default() };
    let authenticator = || std::sync::Arc::new(roost_auth::InsecureAuthenticator);
    let a = TestEdge::start_with(&hub, "a", config(), authenticator()).await;
    let b = TestEdge::start_with(&hub, "b", config(), authenticator()).await;
    let mut devices = vec![];
    for n in 0..20 {
        devices.push(a.device(&format!("a{n}")).await);
        devices.push(b.device(&format!("b{n}")).await);
    }
    let began = Instant::now();
    for edge in [&a, &b] {
        let order = NodeEvent::DrainNode { over: Duration::from_millis(100) };
        edge.store.bus.send(&edge.node, &order).await.unwrap();
    }
    let mut readers = tokio::task::JoinSet::new();
    for mut device in devices {
        readers.spawn(async move { device.expect("goaway").await });
    }
    soon(readers.join_all()).await;
    // Each would take a tenth of a second by itself; a slow machine only takes longer.
    assert!(began.elapsed() > Duration::from_millis(1_500), "40 devices in {:?}", began.elapsed());
}

#[tokio::test]
async fn a_hurried_drain_still_has_a_word_for_everybody() {
    let edge = TestEdge::alone(patient()).await;
    let mut devices = vec![];
    for n in 0..40 {
        devices.push(edge.device(&format!("d{n}")).await);
    }
    let hurry = CancellationToken::new();
    let over = Duration::from_secs(600);
    let plan = DrainPlan { over, hurry: hurry.clone(), ..DrainPlan::default() };
    let mut readers = tokio::task::JoinSet::new();
    for mut device in devices {
        readers.spawn(async move {
            device.expect("goaway").await;
            device.expect_close(1012).await;
            device.frame(Opcode::Close, &1012u16.to_be_bytes()).await;
        });
    }
    let TestEdge { handle, .. } = edge;
    let draining = handle.drain_as(plan);
    let hurrying = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        hurry.cancel();
    };
    let (drained, ()) = soon(async { tokio::join!(draining, hurrying) }).await;
    assert_eq!(drained.forced, 0);
    soon(readers.join_all()).await;
}
