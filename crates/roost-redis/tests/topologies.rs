//! What a node does when a master is lost, replaced, or slots move: under sentinels, in a cluster, and
//! with replicas that copies are waited for.
#![allow(clippy::unwrap_used, reason = "a failed step should fail the test")]
#![allow(clippy::print_stdout, reason = "how long it took is for people")]

mod topology;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use roost_cluster::contract::settings;
use roost_cluster::{
    BusEvent, Durability, Enqueued, NodeInfo, NodeRef, Offer, Resubscribed, Revalidated, Roles,
    SessionClaim, Store, StoreError, StoreHealth, SweepFinding,
};
use roost_redis::{RedisConfig, RedisStore, StartError};
use roost_testredis::{
    Certificates, ClusterOptions, RedisCluster, RedisOptions, RedisReplicated, RedisSentinel,
    RedisServer, slot_of,
};
use roost_types::{
    CommandId, CommandSpec, DeviceId, DeviceKey, Partition, Payload, SessionId, TenantId, Text,
    TopicFilter,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use topology::{PATIENCE, connect, fixture, node, patient, watchful};

fn device(name: &str) -> DeviceKey {
    DeviceKey::new(TenantId::default(), DeviceId::new(name).unwrap())
}

fn claim(store: &Store, device: &DeviceKey, node: &NodeRef) -> SessionClaim {
    SessionClaim {
        device: device.clone(),
        session: SessionId::random(),
        node: node.clone(),
        protocol: "roost.v1.json".into(),
        address: "127.0.0.1:1".into(),
        claimed_at: store.clock.now(),
    }
}

fn spec(store: &Store, id: &str) -> CommandSpec {
    let expires = store.clock.now().plus(Duration::from_secs(600));
    CommandSpec::new(CommandId::new(id).unwrap(), "reboot", expires)
}

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

async fn declare(store: &Store, filter: &str) -> Result<(), StoreError> {
    let filter = TopicFilter::new(filter).unwrap();
    store.bus.declare(&TenantId::default(), &filter).await
}

async fn declare_at_last(store: &Store, filter: &str) {
    while let Err(error) = declare(store, filter).await {
        assert!(!matches!(error, StoreError::Corrupt(_)), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn publish(store: &Store, topic: &str, text: &str) -> Result<(), StoreError> {
    let message = roost_types::Message {
        topic: roost_types::Topic::new(topic).unwrap(),
        payload: Payload::text(Text::from(text)),
        headers: vec![],
        qos: roost_types::Qos::BestEffort,
        time: store.clock.now(),
        from: roost_types::Origin::Service("test".into()),
        position: None,
    };
    store.bus.publish(&TenantId::default(), message.into()).await
}

/// Asks again while Redis is away: a busy machine may look like that at any moment.
async fn until_done<T>(mut ask: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(done) => return done,
            Err(StoreError::NotSent(_) | StoreError::Indeterminate(_))
                if Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

async fn next<T>(receiver: &mut mpsc::Receiver<T>) -> T {
    tokio::time::timeout(PATIENCE, receiver.recv()).await.expect("in time").unwrap()
}

async fn until_up(store: &Store, up: bool) {
    let mut health = store.health.clone();
    let reached = health.wait_for(|health| (*health == StoreHealth::Up) == up);
    tokio::time::timeout(PATIENCE, reached).await.expect("in time").unwrap();
}

/// Publishes to every topic that has not arrived yet, again and again, until all have; gives which
/// resubscriptions were told meanwhile.
async fn until_all_arrive(
    publisher: &Store,
    events: &mut mpsc::Receiver<BusEvent>,
    topics: &[String],
) -> Vec<Resubscribed> {
    let mut missing: HashSet<String> = topics.iter().cloned().collect();
    let mut told = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while !missing.is_empty() {
        assert!(Instant::now() < deadline, "{} topics stay silent", missing.len());
        for topic in &missing {
            // One that fails comes again.
            drop(publish(publisher, topic, topic).await);
        }
        while let Ok(Some(event)) =
            tokio::time::timeout(Duration::from_millis(100), events.recv()).await
        {
            match event {
                BusEvent::Message { message, .. } => {
                    missing.remove(message.payload.as_str().unwrap());
                }
                BusEvent::Resubscribed(which) => {
                    told.push(which);
                }
                _ => {}
            }
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_thousand_topics_deliver_again_when_one_master_of_three_is_lost() {
    let mut cluster = RedisCluster::start().await.unwrap();
    let fx = fixture(&watchful(&cluster.url()), settings(), ()).await;
    until_done(async || beat(&fx.store_a, &fx.a).await).await;
    let claims: Vec<_> =
        (0..60).map(|n| claim(&fx.store_a, &device(&format!("d-{n}")), &fx.a)).collect();
    for claim in &claims {
        until_done(async || fx.store_a.sessions.claim(claim).await).await;
    }
    let topics: Vec<String> = (0..3_000).map(|n| format!("fleet/{n}")).collect();
    let mut events = fx.store_a.bus.take_events().unwrap();
    let mut declared = JoinSet::new();
    for some in topics.chunks(100) {
        let (store, some) = (fx.store_a.clone(), some.to_vec());
        declared.spawn(async move {
            for topic in some {
                declare_at_last(&store, &topic).await;
            }
        });
    }
    declared.join_all().await;
    until_all_arrive(&fx.store_b, &mut events, &topics).await;
    let replica = cluster.replica_of(0);
    let mut health = fx.store_a.health.clone();
    health.borrow_and_update();
    cluster.kill(0);
    tokio::time::timeout(PATIENCE, health.changed()).await.expect("in time").unwrap();
    // What the other masters have goes on.
    let mut fine = 0;
    for claim in &claims {
        match fx.store_b.sessions.get(&claim.device).await {
            Ok(found) => fine += usize::from(found.is_some()),
            Err(error) => assert!(
                matches!(error, StoreError::NotSent(_) | StoreError::Indeterminate(_)),
                "{error}"
            ),
        }
    }
    println!("{fine} of {} sessions were readable with a master missing", claims.len());
    cluster.wait_promoted(replica).await.unwrap();
    let promoted = Instant::now();
    let told = until_all_arrive(&fx.store_b, &mut events, &topics).await;
    println!("all topics delivered {:?} after the failover", promoted.elapsed());
    assert!(told.contains(&Resubscribed::Topics), "{told:?}");
    until_up(&fx.store_a, true).await;
    // Nobody could renew for a while, and nobody is dead.
    assert_eq!(until_done(async || fx.store_a.nodes.dead().await).await, []);
    for found in until_done(async || fx.store_a.sessions.revalidate(&claims).await).await {
        assert_ne!(found, Revalidated::Lost);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_without_a_loss_is_noticed_too() {
    let cluster = RedisCluster::start().await.unwrap();
    let fx = fixture(&watchful(&cluster.url()), settings(), ()).await;
    let mut health = fx.store_a.health.clone();
    health.borrow_and_update();
    let replica = cluster.replica_of(1);
    cluster.failover(replica).await.unwrap();
    cluster.wait_promoted(replica).await.unwrap();
    // The keeper confirms all sessions at every change of health, however short.
    tokio::time::timeout(PATIENCE, health.changed()).await.expect("in time").unwrap();
    until_up(&fx.store_a, true).await;
    for n in 0..30 {
        let mine = claim(&fx.store_a, &device(&format!("d-{n}")), &fx.a);
        until_done(async || fx.store_a.sessions.claim(&mine).await).await;
    }
}

/// Asks for things and checks that each answer is the one to its question, until told to stop.
async fn load(
    store: Store,
    node: NodeRef,
    name: String,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) {
    let mut round = 0;
    while !stop.load(Ordering::Acquire) {
        let key = device(&format!("{name}-{}", round % 40));
        beat(&store, &node).await.unwrap();
        let mine = claim(&store, &key, &node);
        store.sessions.claim(&mine).await.unwrap();
        let id = format!("c-{round}");
        let spec = spec(&store, &id);
        let accepted = store.mailboxes.enqueue(&key, Offer::new(&spec)).await.unwrap();
        let Enqueued::Accepted { command, .. } = accepted else { panic!("{accepted:?}") };
        assert_eq!((command.spec.id.as_str(), &command.device), (id.as_str(), &key));
        let found = store.sessions.get(&key).await.unwrap().unwrap();
        assert_eq!(found.device, key);
        assert_eq!(found.session.unwrap().session, mine.session);
        let cancelled = store.mailboxes.cancel(&key, &spec.id).await.unwrap();
        assert!(format!("{cancelled:?}").contains(&id), "{cancelled:?}");
        let topic = format!("load/{name}/{}", round % 40);
        declare(&store, &topic).await.unwrap();
        publish(&store, &topic, &id).await.unwrap();
        round += 1;
        done.fetch_add(1, Ordering::AcqRel);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_under_load_show_no_caller_an_error_and_mix_no_answers() {
    let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
    let cluster = RedisCluster::start_with(options).await.unwrap();
    let config = patient(&cluster.url());
    let fx = fixture(&config, settings(), ()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let mut loads = JoinSet::new();
    for (store, node, name) in [(&fx.store_a, &fx.a, "a"), (&fx.store_b, &fx.b, "b")] {
        for n in 0..3 {
            let name = format!("{name}{n}");
            loads.spawn(load(
                store.clone(),
                node.clone(),
                name,
                Arc::clone(&stop),
                Arc::clone(&done),
            ));
        }
    }
    while done.load(Ordering::Acquire) < 30 {
        if let Some(ended) = loads.try_join_next() {
            ended.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Those of the partitions that have keys; of the leases, the filters; and of some channels.
    let tags = Partition::all().map(|partition| partition.to_string());
    let mut slots: Vec<u16> =
        tags.chain(["nodes".into(), "wild".into()]).map(|tag| slot_of(&tag)).collect();
    slots.extend(
        (0..120).map(|n| slot_of(&format!("{}:1:t:7:default:load/a0/{}", config.prefix, n % 40))),
    );
    slots.retain(|slot| *slot < 16_384 / 3);
    slots.sort_unstable();
    slots.dedup();
    let before = done.load(Ordering::Acquire);
    cluster.migrate(&slots, 1, 3).await.unwrap();
    let during = done.load(Ordering::Acquire) - before;
    cluster.migrate(&slots[..slots.len() / 4], 2, 3).await.unwrap();
    stop.store(true, Ordering::Release);
    while let Some(ended) = loads.join_next().await {
        ended.unwrap();
    }
    println!("{} slots moved, {during} rounds meanwhile", slots.len());
    let health = fx.store_a.health.borrow().clone();
    assert_eq!(health, StoreHealth::Up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinels_failover_is_followed() {
    let mut servers = RedisSentinel::start().await.unwrap();
    let fx = fixture(&watchful(&servers.url()), settings(), ()).await;
    until_done(async || beat(&fx.store_a, &fx.a).await).await;
    let key = device("d");
    let mine = claim(&fx.store_a, &key, &fx.a);
    until_done(async || fx.store_a.sessions.claim(&mine).await).await;
    let mut events = fx.store_a.bus.take_events().unwrap();
    until_done(async || declare(&fx.store_a, "exact/topic").await).await;
    until_done(async || declare(&fx.store_a, "wild/+").await).await;
    servers.wait_followed().await.unwrap();
    let mut health = fx.store_a.health.clone();
    health.borrow_and_update();
    let former = servers.kill_master().await.unwrap();
    // It may be back before this is looked at.
    tokio::time::timeout(PATIENCE, health.changed()).await.expect("in time").unwrap();
    servers.wait_promoted(former).await.unwrap();
    until_up(&fx.store_a, true).await;
    let mut missing = vec![Resubscribed::Node, Resubscribed::Topics];
    while !missing.is_empty() {
        if let BusEvent::Resubscribed(which) = next(&mut events).await {
            missing.retain(|one| *one != which);
        }
    }
    assert_eq!(until_done(async || fx.store_a.nodes.dead().await).await, []);
    let mine = [mine];
    let found = until_done(async || fx.store_a.sessions.revalidate(&mine).await).await;
    assert_ne!(found, [Revalidated::Lost]);
    let topics = ["exact/topic".to_owned(), "wild/1".to_owned()];
    until_all_arrive(&fx.store_b, &mut events, &topics).await;
    // And once more, the master being asked to step down while it answers.
    servers.wait_followed().await.unwrap();
    health.borrow_and_update();
    servers.failover().await.unwrap();
    tokio::time::timeout(PATIENCE, health.changed()).await.expect("in time").unwrap();
    until_up(&fx.store_a, true).await;
    until_all_arrive(&fx.store_b, &mut events, &topics).await;
}

/// Two that wait for copies: as long as it takes, and not for long.
fn waiting(url: &str) -> (RedisConfig, RedisConfig) {
    let sure =
        RedisConfig { durability: Durability::Replicated, wait_timeout: PATIENCE, ..patient(url) };
    let hasty = RedisConfig { wait_timeout: Duration::from_millis(300), ..sure.clone() };
    (sure, hasty)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_replicated_is_confirmed_and_what_is_not_is_said_to_be_less() {
    let mut servers = RedisReplicated::start().await.unwrap();
    let (sure, hasty) = waiting(&servers.url());
    let (certain, _run) = connect(&sure, &settings(), &node("a")).await;
    let (store, _too) = connect(&hasty, &settings(), &node("b")).await;
    assert_eq!(store.durability, Durability::Replicated);
    servers.wait_in_step().await.unwrap();
    let offer = async |id: String, least| {
        let spec = spec(&store, &id);
        let offer = Offer { durability: Some(least), ..Offer::new(&spec) };
        store.mailboxes.enqueue(&device(&id), offer).await
    };
    let mut offers = JoinSet::new();
    for n in 0..200 {
        let store = certain.clone();
        offers.spawn(async move {
            let id = format!("c-{n}");
            let spec = spec(&store, &id);
            store.mailboxes.enqueue(&device(&id), Offer::new(&spec)).await
        });
    }
    for accepted in offers.join_all().await {
        let Enqueued::Accepted { durability, command, .. } = accepted.unwrap() else { panic!() };
        assert_eq!(durability, Durability::Replicated);
        assert_eq!(command.device.device.as_str(), command.spec.id.as_str());
    }
    servers.cut_links();
    // Accepted on the master alone: less is claimed, or nothing.
    let alone = offer("alone".into(), Durability::Memory).await.unwrap();
    let Enqueued::Accepted { durability, .. } = alone else { panic!("{alone:?}") };
    assert_eq!(durability, Durability::Memory);
    let refused = offer("unsure".into(), Durability::Replicated).await;
    assert!(matches!(refused, Err(StoreError::Indeterminate(_))), "{refused:?}");
    // The same again writes nothing new, and is worth no more for that.
    let refused = offer("unsure".into(), Durability::Replicated).await;
    assert!(matches!(refused, Err(StoreError::Indeterminate(_))), "{refused:?}");
    servers.promote(1).await.unwrap();
    until_up(&store, true).await;
    let found = async |id: &str| loop {
        // The connection that was moved may be noticed only now.
        match store.mailboxes.get(&device(id), &CommandId::new(id).unwrap(), None).await {
            Err(StoreError::NotSent(_) | StoreError::Indeterminate(_)) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            found => return found.unwrap().is_some(),
        }
    };
    for n in 0..200 {
        assert!(found(&format!("c-{n}")).await, "c-{n} was confirmed by the replica");
    }
    assert!(!found("alone").await && !found("unsure").await, "the replica never had them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flush_to_disk_is_refused_where_the_server_cannot_be_asked_for_it() {
    let server = RedisServer::start().await.unwrap();
    let version = server.info("server", "redis_version").await.unwrap();
    let config =
        RedisConfig { durability: Durability::Fsync, replicas: 0, ..patient(&server.url()) };
    let started = RedisStore::connect(config, settings(), node("a")).await;
    let old = version.starts_with("7.0") || version.starts_with("7.1");
    match started {
        Err(StartError::Durability { .. }) => assert!(old, "{version}"),
        Err(error) => panic!("{error}"),
        Ok(_) => assert!(!old, "{version}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_certificates_on_both_sides_works_and_without_them_is_refused() {
    let certificates = Arc::new(Certificates::generate().unwrap());
    let options = RedisOptions {
        tls: Some(Arc::clone(&certificates)),
        client_certificate: true,
        password: Some("s3cret".into()),
        ..RedisOptions::default()
    };
    let server = RedisServer::start_with(options).await.unwrap();
    assert!(server.url().starts_with("rediss://"), "{}", server.url());
    let config = RedisConfig {
        ca_file: Some(certificates.ca()),
        cert_file: Some(certificates.client_certificate()),
        key_file: Some(certificates.client_key()),
        ..patient(&server.url())
    };
    let fx = fixture(&config, settings(), ()).await;
    let mut events = fx.store_a.bus.take_events().unwrap();
    declare(&fx.store_a, "t").await.unwrap();
    publish(&fx.store_b, "t", "over TLS").await.unwrap();
    let BusEvent::Message { message, .. } = next(&mut events).await else { panic!() };
    assert_eq!(message.payload.as_str(), Some("over TLS"));
    let start = async |config: RedisConfig| {
        RedisStore::connect(config, settings(), node("c")).await.map(drop).unwrap_err()
    };
    let unproven = RedisConfig { cert_file: None, key_file: None, ..config.clone() };
    assert!(matches!(start(unproven).await, StartError::Unreachable(_)));
    let untrusted = RedisConfig { ca_file: None, ..config.clone() };
    assert!(matches!(start(untrusted).await, StartError::Unreachable(_)));
    let half = RedisConfig { key_file: None, ..config.clone() };
    assert!(matches!(start(half).await, StartError::Tls(_)));
    let wrong = RedisConfig { url: config.url.replace("s3cret", "guess"), ..config };
    let error = start(wrong).await;
    assert!(
        matches!(error, StartError::Denied(_)) && !error.to_string().contains("guess"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_lacks_a_right_is_told_how_to_get_it() {
    let mut user = topology::hub_user("roost");
    user.rules.push_str(" -evalsha -eval -info");
    let options = RedisOptions { user: Some(user), ..RedisOptions::default() };
    let server = RedisServer::start_with(options).await.unwrap();
    let config = RedisConfig { prefix: "roost".into(), ..patient(&server.url()) };
    let error = RedisStore::connect(config, settings(), node("a")).await.map(drop).unwrap_err();
    assert!(matches!(error, StartError::Denied(_)), "{error}");
    assert!(error.to_string().contains("roost redis acl"), "{error}");
    assert!(!error.is_passing());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_for_another_arrangement_is_refused_with_the_right_one() {
    let options = ClusterOptions { masters: 1, replicas: 0, ..ClusterOptions::default() };
    let cluster = RedisCluster::start_with(options).await.unwrap();
    let single = RedisServer::start().await.unwrap();
    let start = async |url: String| {
        RedisStore::connect(patient(&url), settings(), node("a")).await.map(drop).unwrap_err()
    };
    let error = start(format!("redis://127.0.0.1:{}", cluster.port(0))).await;
    assert!(error.to_string().contains("redis-cluster://") && !error.is_passing(), "{error}");
    let error = start(format!("redis-cluster://127.0.0.1:{}", single.port())).await;
    assert!(error.to_string().contains("write redis://") && !error.is_passing(), "{error}");
    let error = start(format!("redis-sentinel://127.0.0.1:{}/main", single.port())).await;
    assert!(error.to_string().contains("is no sentinel") && !error.is_passing(), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_master_of_a_cluster_waits_for_its_own_replica() {
    let mut cluster = RedisCluster::start().await.unwrap();
    let (sure, hasty) = waiting(&cluster.url());
    let (certain, _run) = connect(&sure, &settings(), &node("a")).await;
    let (hurried, _too) = connect(&hasty, &settings(), &node("b")).await;
    let offer = async |store: &Store, id: String| {
        let spec = spec(store, &id);
        let offer = Offer { durability: Some(Durability::Memory), ..Offer::new(&spec) };
        match store.mailboxes.enqueue(&device(&id), offer).await.unwrap() {
            Enqueued::Accepted { durability, .. } => durability,
            other => panic!("{other:?}"),
        }
    };
    let is_on_first = |id: &str| slot_of(&Partition::of(&device(id)).to_string()) < 16_384 / 3;
    for n in 0..60 {
        assert_eq!(offer(&certain, format!("c-{n}")).await, Durability::Replicated, "c-{n}");
    }
    let replica = cluster.replica_of(0);
    cluster.node(replica).pause().unwrap();
    for n in (100..).filter(|n| is_on_first(&format!("c-{n}"))).take(2) {
        assert_eq!(
            offer(&hurried, format!("c-{n}")).await,
            Durability::Memory,
            "its replica is silent"
        );
    }
    for n in (100..).filter(|n| !is_on_first(&format!("c-{n}"))).take(4) {
        assert_eq!(
            offer(&certain, format!("c-{n}")).await,
            Durability::Replicated,
            "the others go on"
        );
    }
    // So does the sweep of what they have.
    let soon = certain.clock.now().plus(Duration::from_millis(1));
    let elsewhere = (200..1_000).find(|n| !is_on_first(&format!("c-{n}"))).unwrap();
    let ends = CommandSpec { expires: soon, ..spec(&certain, "ends") };
    let key = device(&format!("c-{elsewhere}"));
    hurried.mailboxes.enqueue(&key, Offer::new(&ends)).await.unwrap();
    let is_end = |found: &SweepFinding| matches!(found, SweepFinding::Expired { .. });
    while !until_done(async || hurried.mailboxes.sweep().await).await.iter().any(is_end) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
