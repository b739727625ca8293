//! What may happen between two steps of the subscriber, on a real cluster.

use std::sync::Arc;
use std::time::Duration;

use roost_cluster::{HubClock, NodeRef};
use roost_testredis::{ClusterOptions, RedisCluster};
use roost_types::{NodeId, TenantId, Topic};

use super::super::feed::Incoming;
use super::{BusNode, Place};
use crate::config::RedisConfig;
use crate::link::{Link, slot};

/// Far more than anything takes on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_withdrawn_during_a_repair_is_not_taken_for_subscribed() {
    let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
    let cluster = RedisCluster::start_with(options).await.unwrap();
    let config = RedisConfig {
        response_timeout: PATIENCE,
        connect_timeout: PATIENCE,
        confirm_timeout: PATIENCE,
        ..RedisConfig::new(cluster.url())
    };
    let link = Arc::new(Link::connect(config, Arc::new(HubClock::new())).await.unwrap());
    let node = NodeRef::start(NodeId::new("a").unwrap());
    let (_bus, mut task) = BusNode::open(Arc::clone(&link), node).await.unwrap();
    let channel = link.keys.topic_channel(&TenantId::default(), &Topic::new("a/b").unwrap());
    task.wanted.insert(channel.clone(), Place::Lost);
    task.repairing = true;
    let outcome = task.repair(Duration::ZERO).await;
    assert_eq!(outcome.trouble, None, "it is subscribed");
    // Its slot moves on before the repair is over with others.
    let slot = slot(channel.as_bytes());
    let from = cluster.owner(slot).await.unwrap();
    cluster.migrate(&[slot], (from + 1) % 3, 10).await.unwrap();
    loop {
        let came = tokio::time::timeout(PATIENCE, task.incoming.recv()).await.expect("in time");
        let (feed, incoming) = came.expect("the task holds a sender");
        let withdrawn = matches!(incoming, Incoming::Withdrawn { .. });
        drop(task.take(feed, incoming));
        if withdrawn {
            break;
        }
    }
    task.repairing = false;
    task.take_over(outcome, true);
    assert_eq!(task.wanted[&channel], Place::Lost, "it is nobody's here");
    assert!(task.unwell, "the next repair sees to it");
}
