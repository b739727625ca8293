//! The contract suite of `roost-cluster` on real Redis servers. Faults are in `faults.rs`.

mod support;

use roost_cluster::StoreSettings;
use roost_cluster::contract::Fixture;

async fn make(settings: StoreSettings) -> Fixture {
    let server = support::Server::start(&[]).await;
    let mut fixture = support::fixture(&server, settings).await;
    fixture.keep = Box::new((fixture.keep, server));
    fixture
}

roost_cluster::contract_tests!(make);
