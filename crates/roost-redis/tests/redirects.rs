//! What a node does when servers of a cluster contradict each other.
#![allow(clippy::unwrap_used, reason = "a failed step should fail the test")]

mod topology;

use roost_cluster::StoreError;
use roost_cluster::contract::settings;
use roost_testredis::{ClusterOptions, RedisCluster, slot_of};
use roost_types::{CommandId, DeviceId, DeviceKey, Partition, TenantId};
use topology::{connect, node, watchful};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_masters_that_send_a_request_to_each_other_are_not_stormed() {
    let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
    let mut cluster = RedisCluster::start_with(options).await.unwrap();
    let (store, _run) = connect(&watchful(&cluster.url()), &settings(), &node("a")).await;
    let key = DeviceKey::new(TenantId::default(), DeviceId::new("d").unwrap());
    let id = CommandId::new("c").unwrap();
    assert_eq!(store.mailboxes.get(&key, &id, None).await, Ok(None));
    let slot = slot_of(&format!("{{{}}}", Partition::of(&key)));
    let from = cluster.owner(slot).await.unwrap();
    let to = (from + 1) % 3;
    let other = cluster.node(to).call(&["CLUSTER", "MYID"]).await.unwrap();
    // The one gives the slot away, the other does not know that it has it.
    let slot = slot.to_string();
    cluster.node(from).ok(&["CLUSTER", "SETSLOT", &slot, "NODE", &other]).await.unwrap();
    let found = store.mailboxes.get(&key, &id, None).await;
    assert!(matches!(found, Err(StoreError::NotSent(_))), "{found:?}");
    let mut redirections = 0;
    for server in [from, to] {
        let count = cluster.node(server).info("errorstats", "errorstat_MOVED").await.unwrap();
        redirections += count.strip_prefix("count=").unwrap().parse::<u64>().unwrap();
    }
    assert!(redirections >= 2, "it was sent to and fro");
    assert!(redirections < 300, "{redirections} redirections for one request");
}
