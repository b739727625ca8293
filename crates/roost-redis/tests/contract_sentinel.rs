//! The contract suite on a master that sentinels name.
#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]

mod topology;

use roost_cluster::StoreSettings;
use roost_cluster::contract::Fixture;
use roost_testredis::RedisSentinel;
use topology::{Shared, fixture, patient};

static SENTINEL: Shared<RedisSentinel> = Shared::new();

async fn make(settings: StoreSettings) -> Fixture {
    let servers = SENTINEL.get(RedisSentinel::start()).await;
    let url = servers.url();
    fixture(&patient(&url), settings, servers).await
}

roost_cluster::contract_tests!(make);
