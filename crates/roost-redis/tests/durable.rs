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
use support::{Server, connect, device, interrupted, node, patient, until};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_ever_behind_those_who_wait_for_a_replica() {
    let server = Server::start(&[]).await;
    let config = RedisConfig {
        response_timeout: Duration::from_secs(1),
        wait_timeout: Duration::from_secs(2),
        ..promised_more(&server)
    };
    let (strict, _run) = connect(config, &settings(), &node("a")).await;
    let (key, id) = (device("d"), id("c"));
    // Six batches' worth, each of which takes as long as the wait for a replica.
    let all = (0..3_000).map(|_| strict.mailboxes.cancel(&key, &id));
    let found = futures_util::future::join_all(all).await;
    let refused = found.iter().filter(|one| matches!(one, Err(StoreError::NotSent(_)))).count();
    assert!(refused > 0, "{:?}", found.last());
    assert!(found.iter().all(Result::is_err));
}

/// The hub's connections to a server: those that wait for a replica, or the others.
async fn clients(server: &Server, waiting: bool) -> Vec<String> {
    let mut redis = server.client().await;
    let mut list = redis::cmd("CLIENT");
    let list: String = list.arg("LIST").query_async(&mut redis).await.unwrap();
    let field = |line: &str, name: &str| {
        line.split(' ').find_map(|word| word.strip_prefix(name)).unwrap_or_default().to_owned()
    };
    // The test's own asks about clients.
    let asked_for = |line: &&str| match field(line, "cmd=").as_str() {
        "wait" => waiting,
        command => !waiting && !command.starts_with("client"),
    };
    list.lines().filter(asked_for).map(|line| field(line, "id=")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_durable_goes_to_the_same_server_as_everything_else() {
    let server = Server::start(&[]).await;
    let wait_timeout = Duration::from_secs(2);
    let config = RedisConfig { wait_timeout, ..promised_more(&server) };
    let (store, _run) = connect(config, &settings(), &node("a")).await;
    let key = device("d");
    let wait = async || unclear(&store.mailboxes.cancel(&key, &id("c")).await);
    // The connection for commands is lost while the other one waits for a replica. What comes instead may
    // lead to another server.
    let meanwhile = async {
        let before = loop {
            let waiting = clients(&server, true).await;
            if !waiting.is_empty() {
                break waiting;
            }
        };
        let lost = interrupted(store.health.clone());
        let mut redis = server.client().await;
        for client in clients(&server, false).await {
            let mut kill = redis::cmd("CLIENT");
            // The one that is asked for signs of life may have gone meanwhile, with those for channels.
            kill.arg("KILL")
                .arg("ID")
                .arg(client)
                .query_async::<redis::Value>(&mut redis)
                .await
                .ok();
        }
        lost.await;
        until(&store, true).await;
        before
    };
    let ((), before) = tokio::join!(wait(), meanwhile);
    let replaced = async {
        loop {
            let ((), now) = tokio::join!(wait(), async {
                loop {
                    let waiting = clients(&server, true).await;
                    if !waiting.is_empty() {
                        return waiting;
                    }
                }
            });
            if now != before {
                return;
            }
        }
    };
    tokio::time::timeout(support::PATIENCE, replaced).await.expect("it is replaced too");
}
