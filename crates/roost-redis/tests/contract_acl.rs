//! The contract suite as a user that may do what `roost redis acl` says, and nothing else.
#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]

mod topology;

use roost_cluster::StoreSettings;
use roost_cluster::contract::Fixture;
use roost_redis::RedisConfig;
use roost_testredis::{RedisOptions, RedisServer};
use topology::{fixture, hub_user, patient};

async fn make(settings: StoreSettings) -> Fixture {
    let options = RedisOptions { user: Some(hub_user("roost")), ..RedisOptions::default() };
    let server = RedisServer::start_with(options).await.unwrap();
    let config = RedisConfig { prefix: "roost".into(), ..patient(&server.url()) };
    fixture(&config, settings, server).await
}

roost_cluster::contract_tests!(make);
