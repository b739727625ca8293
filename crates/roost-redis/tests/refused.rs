//! What a node does when its Redis answers, but takes no writes; and when others took it for dead.
#![allow(clippy::unwrap_used, reason = "a failed step should fail the test")]

mod support;

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use roost_cluster::contract::short_lease;
use roost_cluster::{BusEvent, NodeInfo, NodeRef, Resubscribed, Roles, Store, StoreError};
use roost_types::{Message, Origin, Payload, Qos, TenantId, Text, Topic, TopicFilter};
use support::{PATIENCE, Server, fixture};
use tokio::time::Instant;

async fn beat(store: &Store, node: &NodeRef) -> Result<(), StoreError> {
    let info = NodeInfo {
        node: node.clone(),
        roles: Roles { edge: true, control: true },
        version: "0".into(),
        address: "127.0.0.1:1".into(),
        started: store.clock.now(),
        devices: 0,
        draining: false,
    };
    store.nodes.heartbeat(&info).await
}

async fn takes_writes(redis: &mut MultiplexedConnection, takes: bool) {
    let replicas = if takes { "0" } else { "1" };
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("min-replicas-to-write").arg(replicas);
    set.exec_async(redis).await.unwrap();
}

async fn holds_a_lease(redis: &mut MultiplexedConnection, node: &str) -> bool {
    let key = format!("roost:1:{{nodes}}:o:{node}");
    redis::cmd("EXISTS").arg(key).query_async(redis).await.unwrap()
}

/// A master without its replica refuses every write and answers every PING: nobody can renew, and the
/// first who can again must not end the sessions of all others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_dead_because_redis_refused_the_heartbeats() {
    let server = Server::start(&[]).await;
    let settings = short_lease();
    let fx = fixture(&server, settings.clone()).await;
    let mut redis = server.client().await;
    loop {
        takes_writes(&mut redis, true).await;
        beat(&fx.store_a, &fx.a).await.unwrap();
        beat(&fx.store_b, &fx.b).await.unwrap();
        takes_writes(&mut redis, false).await;
        let mut refused = Instant::now();
        while holds_a_lease(&mut redis, "b").await {
            refused = Instant::now();
            let found = beat(&fx.store_a, &fx.a).await;
            assert!(matches!(found, Err(StoreError::NotSent(_))), "{found:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        takes_writes(&mut redis, true).await;
        beat(&fx.store_a, &fx.a).await.unwrap();
        let dead = fx.store_a.nodes.dead().await.unwrap();
        // On a machine that slept for a lease this shows nothing.
        if refused.elapsed() < settings.lease {
            assert_eq!(dead, []);
            break;
        }
    }
    // Who says nothing for a whole lease of a Redis that takes writes is dead after all.
    let buried = async {
        while fx.store_a.nodes.dead().await.unwrap() != [fx.b.clone()] {
            beat(&fx.store_a, &fx.a).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, buried).await.unwrap();
}

/// A node that slept is taken for dead and its filters are struck off, though its subscriptions stand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_taken_for_dead_puts_its_filters_back_and_says_so() {
    let server = Server::start(&[]).await;
    let fx = fixture(&server, short_lease()).await;
    let tenant = TenantId::default();
    let mut events = fx.store_a.bus.take_events().unwrap();
    fx.store_a.bus.declare(&tenant, &TopicFilter::new("wild/+").unwrap()).await.unwrap();
    fx.store_b.nodes.forget(&fx.a).await.unwrap();
    let message = Message {
        topic: Topic::new("wild/1").unwrap(),
        payload: Payload::text(Text::from("hello")),
        headers: vec![],
        qos: Qos::BestEffort,
        time: fx.store_b.clock.now(),
        from: Origin::Service("test".into()),
        position: None,
    };
    let is_gap = |event: &BusEvent| matches!(event, BusEvent::Resubscribed(Resubscribed::Topics));
    let comes_back = async {
        // A message that comes before the gap was on its way already.
        while !is_gap(&events.recv().await.unwrap()) {}
        // The other node learns of the filters a little later.
        let mut arrived = false;
        while !arrived {
            fx.store_b.bus.publish(&tenant, message.clone().into()).await.unwrap();
            let next = tokio::time::timeout(Duration::from_millis(50), events.recv()).await;
            arrived = matches!(next, Ok(Some(BusEvent::Message { .. })));
        }
    };
    tokio::time::timeout(PATIENCE, comes_back).await.expect("a gap, and then messages again");
}
