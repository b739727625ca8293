//! What a node does when its Redis is slow, gone, empty, full, unfit or spoiled.
#![allow(clippy::unwrap_used, reason = "a failed step should fail the test")]

mod support;

use std::time::Duration;

use roost_cluster::contract::settings;
use roost_cluster::{
    BusEvent, Enqueued, Initiator, LastClose, NodeInfo, Offer, PresenceItem, Report, Reported,
    Resubscribed, Revalidated, Roles, SessionClaim, Store, StoreError, StoreSettings,
};
use roost_redis::{RedisConfig, RedisStore, StartError};
use roost_telemetry::Telemetry;
use roost_types::{
    CommandId, CommandResult, CommandSpec, DeviceKey, Payload, ResultStatus, SessionId, TenantId,
    Text, TopicFilter,
};
use support::{
    Server, connect, device, faulty_fixture, fixture, interrupted, node, patient, until, watchful,
};
use tokio::sync::mpsc;

fn claim(store: &Store, device: &DeviceKey, node: &roost_cluster::NodeRef) -> SessionClaim {
    SessionClaim {
        device: device.clone(),
        session: SessionId::random(),
        node: node.clone(),
        protocol: "roost.v1.json".into(),
        address: "127.0.0.1:1".into(),
        claimed_at: store.clock.now(),
    }
}

fn close(store: &Store) -> LastClose {
    let time = store.clock.now();
    LastClose { code: 1000, reason: "done".into(), initiator: Initiator::Device, time }
}

fn spec(store: &Store, id: &str, bytes: usize) -> CommandSpec {
    let expires = store.clock.now().plus(Duration::from_secs(60));
    let id = CommandId::new(id).unwrap();
    let payload = Some(Payload::binary(vec![7; bytes].into()));
    CommandSpec { payload, ..CommandSpec::new(id, "reboot", expires) }
}

fn succeeded(text: &str) -> Report {
    let payload = Some(Payload::text(Text::from(text)));
    Report::Result(CommandResult { payload, ..CommandResult::new(ResultStatus::Succeeded) })
}

async fn beat(store: &Store, node: &roost_cluster::NodeRef) -> Result<(), StoreError> {
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

async fn next<T>(receiver: &mut mpsc::Receiver<T>) -> T {
    tokio::time::timeout(support::PATIENCE, receiver.recv()).await.unwrap().unwrap()
}

async fn text(events: &mut mpsc::Receiver<BusEvent>) -> String {
    loop {
        if let BusEvent::Message { message, .. } = next(events).await {
            return message.payload.as_str().unwrap().to_owned();
        }
    }
}

/// Waits until the node was told that both kinds of channels are back.
async fn resubscribed(events: &mut mpsc::Receiver<BusEvent>) {
    let mut missing = vec![Resubscribed::Node, Resubscribed::Topics];
    while !missing.is_empty() {
        if let BusEvent::Resubscribed(which) = next(events).await {
            missing.retain(|one| *one != which);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_redis_forgot_are_sent_again() {
    let server = Server::start(&[]).await;
    let fx = fixture(&server, settings()).await;
    let mut raw = server.client().await;
    for round in 0..2 {
        redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut raw).await.unwrap();
        let claims: Vec<_> =
            (0..20).map(|n| claim(&fx.store_a, &device(&format!("{round}-{n}")), &fx.a)).collect();
        let found = fx.store_a.sessions.revalidate(&claims).await.unwrap();
        assert_eq!(found, [Revalidated::Reclaimed; 20]);
        redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut raw).await.unwrap();
        beat(&fx.store_a, &fx.a).await.unwrap();
        fx.store_a.mailboxes.sweep().await.unwrap();
        let found = fx.store_b.sessions.get(&claims[0].device).await.unwrap();
        assert!(found.unwrap().session.is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_redis_fails_fast_and_everything_comes_back() {
    let server = Server::start(&[]).await;
    let telemetry = Telemetry::new("test");
    let mut fx = faulty_fixture(&server, settings()).await;
    let config = RedisConfig { metrics: telemetry.redis.clone(), ..watchful(&server) };
    let counted = RedisStore::connect(config, settings(), fx.a.clone()).await.unwrap();
    (fx.store_a, fx.keep) = (counted.0, Box::new((counted.1, fx.keep)));
    beat(&fx.store_a, &fx.a).await.unwrap();
    let key = device("d");
    let mine = claim(&fx.store_a, &key, &fx.a);
    fx.store_a.sessions.claim(&mine).await.unwrap();
    let mut events = fx.store_a.bus.take_events().unwrap();
    declare(&fx.store_a, "exact/topic").await.unwrap();
    declare(&fx.store_a, "wild/+").await.unwrap();
    server.pause();
    let sent = fx.store_a.mailboxes.enqueue(&key, Offer::new(&spec(&fx.store_a, "c", 1))).await;
    assert!(matches!(sent, Err(StoreError::Indeterminate(_))), "{sent:?}");
    until(&fx.store_a, false).await;
    // Each connection finds out for itself.
    while !telemetry.render().contains("roost_redis_up{role=\"pubsub\"} 0") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sent = fx.store_a.mailboxes.enqueue(&key, Offer::new(&spec(&fx.store_a, "c", 1))).await;
    assert!(matches!(sent, Err(StoreError::NotSent(_))), "{sent:?}");
    server.resume();
    until(&fx.store_a, true).await;
    until(&fx.store_b, true).await;
    resubscribed(&mut events).await;
    assert_eq!(fx.store_a.sessions.revalidate(&[mine]).await.unwrap(), [Revalidated::Kept]);
    // No node could renew meanwhile: nobody is dead, and nobody is shown offline.
    assert_eq!(fx.store_a.nodes.dead().await.unwrap(), []);
    assert!(fx.store_a.sessions.get(&key).await.unwrap().unwrap().session.is_some());
    // The other node's subscriptions may come back a little later; until then it refuses.
    while let Err(error) = publish(&fx.store_b, "exact/topic", "one").await {
        assert!(matches!(error, StoreError::NotSent(_)), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    publish(&fx.store_b, "wild/1", "two").await.unwrap();
    assert_eq!([text(&mut events).await, text(&mut events).await], ["one", "two"]);
    let shown = telemetry.render();
    for line in [
        "roost_redis_up{role=\"primary\"} 1",
        "roost_redis_up{role=\"pubsub\"} 1",
        "command=\"enqueue\",outcome=\"timeout\"",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    let reconnects = telemetry.value("roost_redis_reconnects_total{role=\"primary\"}");
    assert!(reconnects >= Some(1.0), "{reconnects:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_comes_too_late_is_refused() {
    let server = Server::start(&[]).await;
    let me = node("a");
    let validity = Duration::from_secs(2);
    let config = RedisConfig {
        response_timeout: Duration::from_millis(500),
        write_validity: validity,
        ..watchful(&server)
    };
    let (store, _run) = connect(config, &StoreSettings::default(), &me).await;
    let key = device("d");
    // So that Redis knows the script.
    claimed(&store, &device("first"), &me).await;
    server.pause();
    // Given up by the caller after the response timeout, and executed when Redis goes on.
    let late = store.sessions.claim(&claim(&store, &key, &me)).await;
    assert!(matches!(late, Err(StoreError::Indeterminate(_))), "{late:?}");
    let hub_time_error = Duration::from_secs(1);
    tokio::time::sleep(validity + hub_time_error).await;
    server.resume();
    until(&store, true).await;
    assert_eq!(store.sessions.get(&key).await.unwrap(), None);
    claimed(&store, &key, &me).await;
}

/// Claims again what a busy machine was too slow for.
async fn claimed(store: &Store, device: &DeviceKey, node: &roost_cluster::NodeRef) {
    loop {
        match store.sessions.claim(&claim(store, device, node)).await {
            Err(StoreError::Stale | StoreError::Indeterminate(_) | StoreError::NotSent(_)) => {}
            done => return drop(done.unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_empty_gets_the_sessions_again() {
    let mut server = Server::start(&[]).await;
    let fx = faulty_fixture(&server, settings()).await;
    beat(&fx.store_a, &fx.a).await.unwrap();
    let claims: Vec<_> =
        (0..50).map(|n| claim(&fx.store_a, &device(&format!("d-{n}")), &fx.a)).collect();
    for claim in &claims {
        fx.store_a.sessions.claim(claim).await.unwrap();
    }
    let mut events = fx.store_b.bus.take_events().unwrap();
    declare(&fx.store_b, "w/#").await.unwrap();
    let mut watch = fx.store_b.sessions.watch(&TenantId::default(), None).await.unwrap();
    server.kill();
    until(&fx.store_a, false).await;
    let refused = fx.store_a.sessions.get(&claims[0].device).await;
    assert!(matches!(refused, Err(StoreError::NotSent(_))), "{refused:?}");
    server.restart().await;
    until(&fx.store_a, true).await;
    until(&fx.store_b, true).await;
    resubscribed(&mut events).await;
    let found = fx.store_a.sessions.revalidate(&claims).await.unwrap();
    assert_eq!(found, [Revalidated::Reclaimed; 50]);
    assert!(matches!(next(&mut watch).await, PresenceItem::Gap), "events were lost");
    beat(&fx.store_a, &fx.a).await.unwrap();
    let shown = fx.store_b.sessions.get(&claims[0].device).await.unwrap().unwrap();
    assert_eq!(shown.session.unwrap().session, claims[0].session);
    while let Err(error) = publish(&fx.store_a, "w/1", "again").await {
        assert!(matches!(error, StoreError::NotSent(_)), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(text(&mut events).await, "again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_refuses_what_is_new_and_lets_the_rest_through() {
    let server = Server::start(&[]).await;
    let fx = fixture(&server, settings()).await;
    beat(&fx.store_a, &fx.a).await.unwrap();
    let (key, other) = (device("d"), device("other"));
    let mine = claim(&fx.store_a, &key, &fx.a);
    fx.store_a.sessions.claim(&mine).await.unwrap();
    let (store, mail) = (&fx.store_a, &fx.store_a.mailboxes);
    mail.enqueue(&key, Offer::new(&spec(store, "before", 10))).await.unwrap();
    mail.enqueue(&key, Offer::new(&spec(store, "cancel", 10))).await.unwrap();
    let mut raw = server.client().await;
    let mut limit = async |bytes: u64| {
        let mut config = redis::cmd("CONFIG");
        config.arg("SET").arg("maxmemory").arg(bytes).exec_async(&mut raw).await.unwrap();
    };
    // Less than it uses already.
    limit(100_000).await;
    let refused = mail.enqueue(&key, Offer::new(&spec(store, "after", 10))).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    assert_eq!(mail.get(&key, &CommandId::new("after").unwrap(), None).await, Ok(None));
    beat(store, &fx.a).await.unwrap();
    let second = claim(store, &other, &fx.a);
    store.sessions.claim(&second).await.unwrap();
    store.sessions.release(&other, second.session, &close(store)).await.unwrap();
    assert_eq!(mail.read(&key, mine.session, 0).await.unwrap().commands.len(), 2);
    let id = CommandId::new("before").unwrap();
    let ended = mail.report(&key, mine.session, &id, &succeeded("fine")).await.unwrap();
    assert!(matches!(ended, Reported::Applied { .. }), "{ended:?}");
    mail.cancel(&key, &CommandId::new("cancel").unwrap()).await.unwrap();
    mail.sweep().await.unwrap();
    assert!(store.nodes.take_turn("sweep", Duration::from_secs(1)).await.unwrap());
    declare(store, "w/#").await.unwrap();
    limit(0).await;
    let accepted = mail.enqueue(&key, Offer::new(&spec(store, "after", 10))).await.unwrap();
    assert!(matches!(accepted, Enqueued::Accepted { .. }), "{accepted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_publications_arrive_once_each_at_both_nodes() {
    let server = Server::start(&[]).await;
    let fx = fixture(&server, settings()).await;
    for (store, filters) in
        [(&fx.store_a, ["t/1", "t/+", "t/#"]), (&fx.store_b, ["t/1", "+/1", "t/2"])]
    {
        for filter in filters {
            declare(store, filter).await.unwrap();
        }
    }
    let mut publishers = tokio::task::JoinSet::new();
    for (store, from) in [(fx.store_a.clone(), 0), (fx.store_b.clone(), 500)] {
        publishers.spawn(async move {
            for n in from..from + 500 {
                let topic = ["t/1", "t/2"][n % 2];
                publish(&store, topic, &n.to_string()).await.unwrap();
            }
        });
    }
    publishers.join_all().await;
    for (store, end) in [(&fx.store_a, "t/1"), (&fx.store_b, "t/2")] {
        publish(store, end, "end").await.unwrap();
    }
    for store in [&fx.store_a, &fx.store_b] {
        let mut events = store.bus.take_events().unwrap();
        let mut seen: Vec<usize> = Vec::new();
        let mut ends = 0;
        while ends < 2 {
            match text(&mut events).await.parse() {
                Ok(number) => seen.push(number),
                Err(_) => ends += 1,
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..1_000).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spoiled_records_are_named_and_do_not_spoil_others() {
    let server = Server::start(&[]).await;
    let brief = StoreSettings { undelivered_after: Duration::ZERO, ..settings() };
    let fx = fixture(&server, brief).await;
    let mut raw = server.client().await;
    let (store, mail) = (&fx.store_a, &fx.store_a.mailboxes);
    let key = device("d");
    let mine = claim(store, &key, &fx.a);
    store.sessions.claim(&mine).await.unwrap();
    mail.enqueue(&key, Offer::new(&spec(store, "c", 10))).await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*:c:*").query_async(&mut raw).await.unwrap();
    let id = CommandId::new("c").unwrap();
    for (field, value) in
        [("b", "\u{1}no protobuf"), ("t", "0@x"), ("s", "99"), ("o", "nobody"), ("x", "soon")]
    {
        let whole: Vec<(String, Vec<u8>)> =
            redis::cmd("HGETALL").arg(&keys[0]).query_async(&mut raw).await.unwrap();
        redis::cmd("HSET").arg(&keys[0]).arg(field).arg(value).exec_async(&mut raw).await.unwrap();
        let found = mail.get(&key, &id, None).await;
        assert!(matches!(found, Err(StoreError::Corrupt(_))), "{field}: {found:?}");
        for (name, value) in whole {
            redis::cmd("HSET")
                .arg(&keys[0])
                .arg(name)
                .arg(value)
                .exec_async(&mut raw)
                .await
                .unwrap();
        }
    }
    redis::cmd("HSET").arg(&keys[0]).arg("x").arg("soon").exec_async(&mut raw).await.unwrap();
    let other = device("other");
    store.sessions.claim(&claim(store, &other, &fx.a)).await.unwrap();
    mail.enqueue(&other, Offer::new(&spec(store, "fine", 10))).await.unwrap();
    while mail.sweep().await.unwrap().len() != 1 {
        tokio::task::yield_now().await;
    }
    let session = keys[0].replace(":c:", ":s:");
    let session = session.trim_end_matches(":c");
    redis::cmd("HSET").arg(session).arg("g").arg("xyz").exec_async(&mut raw).await.unwrap();
    assert!(matches!(store.sessions.get(&key).await, Err(StoreError::Corrupt(_))));
    redis::cmd("DEL").arg(session).exec_async(&mut raw).await.unwrap();
    redis::cmd("SET").arg(session).arg("text").exec_async(&mut raw).await.unwrap();
    let found = store.sessions.claim(&mine).await;
    assert!(matches!(found, Err(StoreError::Corrupt(_))), "{found:?}");
    let found = mail.enqueue(&key, Offer::new(&spec(store, "d", 1))).await;
    assert!(matches!(found, Err(StoreError::Corrupt(_))), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unfit_redis_is_refused_at_start() {
    let settings = StoreSettings::default();
    let start = async |server: &Server| {
        let me = node("a");
        RedisStore::connect(patient(server), settings.clone(), me).await.map(drop).unwrap_err()
    };
    let server = Server::start(&["--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"]).await;
    let policy = "allkeys-lru".to_owned();
    assert_eq!(start(&server).await, StartError::Eviction { policy });
    let server = Server::start(&[]).await;
    drop(connect(patient(&server), &settings, &node("a")).await);
    let mut raw = server.client().await;
    let mut foreign = redis::cmd("HSET");
    foreign.arg("roost:1:meta").arg("partitions").arg(64).exec_async(&mut raw).await.unwrap();
    let error = start(&server).await;
    assert!(matches!(error, StartError::Layout { .. }), "{error}");
    let mut server = Server::start(&[]).await;
    server.kill();
    let error = start(&server).await;
    assert!(matches!(error, StartError::Unreachable(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_is_too_old_gets_a_gap() {
    let server = Server::start(&[]).await;
    let fx = fixture(&server, settings()).await;
    let (store, key) = (&fx.store_a, device("d"));
    let home = TenantId::default();
    let mut watch = store.sessions.watch(&home, None).await.unwrap();
    store.sessions.claim(&claim(store, &key, &fx.a)).await.unwrap();
    let PresenceItem::Event(first) = next(&mut watch).await else { panic!("no event yet") };
    drop(watch);
    let claims: Vec<_> = (0..2_000)
        .map(|_| SessionClaim {
            claimed_at: store.clock.now().plus(Duration::from_secs(1)),
            ..claim(store, &key, &fx.a)
        })
        .collect();
    for claim in &claims {
        store.sessions.claim(claim).await.unwrap();
    }
    let mut watch = fx.store_b.sessions.watch(&home, Some(&first.cursor)).await.unwrap();
    assert!(matches!(next(&mut watch).await, PresenceItem::Gap));
    let mut last = None;
    while last != claims.last().map(|claim| claim.session) {
        if let PresenceItem::Event(event) = next(&mut watch).await {
            last = Some(event.session);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_everybody_claims_at_once_all_get_their_turn() {
    let server = Server::start(&[]).await;
    let me = node("a");
    let config = patient(&server);
    let (store, _run) = connect(config, &StoreSettings::default(), &me).await;
    let health = store.health.clone();
    let mut claims = tokio::task::JoinSet::new();
    for n in 0..3_000 {
        let (store, me) = (store.clone(), me.clone());
        claims.spawn(async move {
            store.sessions.claim(&claim(&store, &device(&format!("d-{n}")), &me)).await
        });
    }
    for claimed in claims.join_all().await {
        claimed.unwrap();
    }
    assert!(!health.has_changed().unwrap(), "the connection was never in doubt");
    let mut ended = 0;
    while let some @ 1.. = store.sessions.end_sessions_of(&me).await.unwrap() {
        ended += some;
    }
    assert_eq!(ended, 3_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_connection_is_replaced_on_its_own() {
    let server = Server::start(&[]).await;
    let fx = faulty_fixture(&server, settings()).await;
    let mut raw = server.client().await;
    let mut kill = async |kind: &str| {
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("TYPE").arg(kind).arg("SKIPME").arg("yes");
        kill.exec_async(&mut raw).await.unwrap();
    };
    let mut events = fx.store_a.bus.take_events().unwrap();
    for n in 0..300 {
        declare(&fx.store_a, &format!("t/{n}")).await.unwrap();
    }
    declare(&fx.store_a, "w/#").await.unwrap();
    let health = [fx.store_a.health.clone(), fx.store_b.health.clone()];
    kill("pubsub").await;
    resubscribed(&mut events).await;
    assert!(!health[0].has_changed().unwrap(), "commands went on");
    kill("normal").await;
    for health in health {
        interrupted(health).await;
    }
    until(&fx.store_a, true).await;
    until(&fx.store_b, true).await;
    for topic in ["t/0", "t/299", "w/1"] {
        while let Err(error) = publish(&fx.store_b, topic, topic).await {
            // The first may go to the connection that was just killed.
            assert!(!matches!(error, StoreError::Corrupt(_)), "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(text(&mut events).await, topic);
    }
}
