//! The contract suite on a Redis Cluster of three masters, as a user with the rights of a hub.
#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]

mod topology;

use roost_cluster::StoreSettings;
use roost_cluster::contract::Fixture;
use roost_redis::RedisConfig;
use roost_testredis::{ClusterOptions, RedisCluster, RedisOptions};
use topology::{Shared, fixture, hub_user, patient};

static CLUSTER: Shared<RedisCluster> = Shared::new();

async fn make(settings: StoreSettings) -> Fixture {
    let user = hub_user("roost-*");
    let server = RedisOptions { user: Some(user), ..RedisOptions::default() };
    let options = ClusterOptions { replicas: 0, server, ..ClusterOptions::default() };
    let cluster = CLUSTER.get(RedisCluster::start_with(options)).await;
    let config = patient(&cluster.url());
    let config = RedisConfig { prefix: format!("roost-{}", config.prefix), ..config };
    fixture(&config, settings, cluster).await
}

roost_cluster::contract_tests!(make);
