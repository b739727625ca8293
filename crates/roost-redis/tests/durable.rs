//! What a hub does that promises more than Redis gives at the moment: replicas that confirm are asked for,
//! and there is none. That what *is* replicated is confirmed: `topologies.rs`.
#![allow(clippy::unwrap_used, reason = "a failed step should fail the test")]

mod support;

use std::time::Duration;

use roost_cluster::contract::settings;
use roost_cluster::{
    CommandFilter, Durability, Enqueued, NodeRef, Offer, PageRequest, Report, SessionClaim, Store,
    StoreError,
};
use roost_redis::RedisConfig;
use roost_types::{
    CommandId, CommandResult, CommandSpec, CommandState, DeviceKey, ResultStatus, SessionId,
    TenantId,
};
use support::{Server, connect, device, node, patient};

fn id(name: &str) -> CommandId {
    CommandId::new(name).unwrap()
}

fn spec(store: &Store, name: &str) -> CommandSpec {
    CommandSpec::new(id(name), "go", store.clock.now().plus(Duration::from_secs(600)))
}

async fn claim(store: &Store, key: &DeviceKey, node: &NodeRef) -> SessionId {
    let claim = SessionClaim {
        device: key.clone(),
        session: SessionId::random(),
        node: node.clone(),
        protocol: "roost.v1.json".into(),
        address: "127.0.0.1:1".into(),
        claimed_at: store.clock.now(),
    };
    store.sessions.claim(&claim).await.unwrap();
    claim.session
}

/// Asks for a replica where there is none.
fn promised_more(server: &Server) -> RedisConfig {
    let wait_timeout = Duration::from_millis(20);
    let durability = Durability::Replicated;
    RedisConfig { durability, replicas: 1, wait_timeout, ..patient(server) }
}

fn unclear<T: std::fmt::Debug>(found: &Result<T, StoreError>) {
    assert!(matches!(found, Err(StoreError::Indeterminate(_))), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_said_that_is_less_durable_than_promised() {
    let server = Server::start(&[]).await;
    let me = node("a");
    let (strict, _run) = connect(promised_more(&server), &settings(), &me).await;
    assert_eq!(strict.durability, Durability::Replicated);
    // Another node that is content with less shows what was done.
    let (plain, _run) = connect(patient(&server), &settings(), &node("b")).await;
    let key = device("d");
    let session = claim(&strict, &key, &me).await;
    let mail = &strict.mailboxes;
    let spec = spec(&strict, "c");
    unclear(&mail.enqueue(&key, Offer::new(&spec)).await);
    let state = async || plain.mailboxes.get(&key, &id("c"), None).await.unwrap().unwrap().state;
    assert_eq!(state().await, CommandState::Dispatched, "it is there");
    // Whoever repeats it and asks for less is told so; who does not asks again.
    unclear(&mail.enqueue(&key, Offer::new(&spec)).await);
    let least = Offer { durability: Some(Durability::Memory), ..Offer::new(&spec) };
    let existing = mail.enqueue(&key, least).await.unwrap();
    let Enqueued::Existing { durability, .. } = existing else { panic!("{existing:?}") };
    assert_eq!(durability, Durability::Memory);
    unclear(&mail.get(&key, &id("c"), None).await);
    unclear(&mail.read(&key, session, 0).await);
    let done = Report::Result(CommandResult::new(ResultStatus::Succeeded));
    unclear(&mail.report(&key, session, &id("c"), &done).await);
    assert_eq!(state().await, CommandState::Succeeded);
    unclear(&mail.report(&key, session, &id("c"), &done).await);
    unclear(&mail.cancel(&key, &id("c")).await);
    let page = PageRequest { size: 10, token: None };
    unclear(&mail.list(&key, &CommandFilter::default(), &page).await);
    unclear(&mail.settle_dead(&key, &id("c"), &id("d")).await);
    unclear(&mail.sweep().await);
    assert_eq!(mail.dead(&TenantId::default(), &page).await.unwrap().items, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_accepted_with_less_waits_for_a_sweep() {
    let server = Server::start(&[]).await;
    let me = node("a");
    let (strict, _run) = connect(promised_more(&server), &settings(), &me).await;
    let key = device("d");
    let session = claim(&strict, &key, &me).await;
    let spec = spec(&strict, "c");
    let least = Offer { durability: Some(Durability::Memory), ..Offer::new(&spec) };
    let accepted = strict.mailboxes.enqueue(&key, least).await.unwrap();
    let Enqueued::Accepted { command, dispatch, durability } = accepted else {
        panic!("{accepted:?}");
    };
    assert_eq!((dispatch, durability), (None, Durability::Memory));
    assert_eq!((command.state, command.session), (CommandState::Dispatched, Some(session)));
}
