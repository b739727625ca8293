//! What stands in Redis, how long, and what it costs: looked at past the hub. The layout is described in
//! `src/keys.rs`.
#![allow(clippy::unwrap_used, reason = "a failed step should fail the test")]

mod support;

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use roost_cluster::contract::{Fixture, settings};
use roost_cluster::{
    HistoryEvent, Initiator, LastClose, Offer, PageRequest, Report, Reported, SessionClaim, Store,
    StoreSettings,
};
use roost_types::{
    Command, CommandId, CommandResult, CommandSpec, CommandState, DeviceKey, Payload, Progress,
    ResultStatus, SessionId, TenantId, UnixMillis,
};
use support::{Server, device, fixture};

fn id(name: &str) -> CommandId {
    CommandId::new(name).unwrap()
}

async fn connect(fx: &Fixture, key: &DeviceKey) -> SessionId {
    let claim = SessionClaim {
        device: key.clone(),
        session: SessionId::random(),
        node: fx.a.clone(),
        protocol: "roost.v1.json".into(),
        address: "127.0.0.1:50123".into(),
        claimed_at: fx.store_a.clock.now(),
    };
    fx.store_a.sessions.claim(&claim).await.unwrap();
    claim.session
}

async fn release(store: &Store, key: &DeviceKey, session: SessionId) {
    let (reason, initiator) = ("done".into(), Initiator::Device);
    let close = LastClose { code: 1000, reason, initiator, time: store.clock.now() };
    store.sessions.release(key, session, &close).await.unwrap();
}

async fn send(store: &Store, key: &DeviceKey, name: &str, max_attempts: u32) {
    let expires = store.clock.now().plus(Duration::from_secs(60));
    let payload = Some(Payload::binary(vec![7; 10].into()));
    let spec = CommandSpec { payload, max_attempts, ..CommandSpec::new(id(name), "go", expires) };
    store.mailboxes.enqueue(key, Offer::new(&spec)).await.unwrap();
}

async fn report(fx: &Fixture, key: &DeviceKey, by: SessionId, of: &str, what: &Report) -> Reported {
    fx.store_a.mailboxes.report(key, by, &id(of), what).await.unwrap()
}

async fn get(store: &Store, key: &DeviceKey, name: &str) -> Command {
    store.mailboxes.get(key, &id(name), None).await.unwrap().unwrap()
}

fn result(status: ResultStatus, bytes: usize) -> CommandResult {
    let payload = Some(Payload::binary(vec![7; bytes].into()));
    CommandResult { payload, ..CommandResult::new(status) }
}

async fn keys(raw: &mut MultiplexedConnection, pattern: &str) -> Vec<String> {
    redis::cmd("KEYS").arg(pattern).query_async(raw).await.unwrap()
}

/// The one key of a pattern, and how long it has, in ms: -1 for ever.
async fn only(raw: &mut MultiplexedConnection, pattern: &str) -> (String, i64) {
    let mut found = keys(raw, pattern).await;
    assert_eq!(found.len(), 1, "{pattern}: {found:?}");
    let key = found.remove(0);
    let ttl = redis::cmd("PTTL").arg(&key).query_async(raw).await.unwrap();
    (key, ttl)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_device_costs_two_keys_and_what_ends_goes_by_itself() {
    let server = Server::start(&[]).await;
    let fx = fixture(&server, settings()).await;
    let mut raw = server.client().await;
    let key = device("d");
    let session = connect(&fx, &key).await;
    assert_eq!(keys(&mut raw, "*1:d").await.len(), 2, "the session's record and its history");
    send(&fx.store_a, &key, "c", 0).await;
    assert_eq!(keys(&mut raw, "*1:d").await.len(), 5);
    let done = Report::Result(result(ResultStatus::Succeeded, 3));
    report(&fx, &key, session, "c", &done).await;
    for gone in ["*:q:*", "*:m:*", "*:due"] {
        assert_eq!(keys(&mut raw, gone).await, [""; 0], "{gone}");
    }
    release(&fx.store_a, &key, session).await;
    for kept in ["*:s:*", "*:c:*", "*:h:*", "*:y:*"] {
        let (key, ttl) = only(&mut raw, kept).await;
        assert!(ttl > 0, "{key} goes by itself");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_lives_as_long_as_what_it_is_about() {
    let server = Server::start(&[]).await;
    let fx = fixture(&server, settings()).await;
    let mut raw = server.client().await;
    let (key, kept) = (device("d"), settings().device_retention);
    // Nobody ever saw this device: its history goes with its commands.
    send(&fx.store_a, &key, "c", 0).await;
    let (_, waiting) = only(&mut raw, "*:y:*").await;
    let most = settings().retention + Duration::from_secs(60);
    assert!(waiting > 0 && waiting <= millis(most), "{waiting}");
    let session = connect(&fx, &key).await;
    assert_eq!(only(&mut raw, "*:y:*").await.1, -1, "as long as there is a session");
    fx.store_a.mailboxes.read(&key, session, 0).await.unwrap();
    release(&fx.store_a, &key, session).await;
    let (_, ended) = only(&mut raw, "*:y:*").await;
    assert!(ended > millis(most) && ended <= millis(kept), "{ended}");
    // Lost while the device is away, and begun again by a command.
    let (history, _) = only(&mut raw, "*:y:*").await;
    redis::cmd("DEL").arg(&history).exec_async(&mut raw).await.unwrap();
    fx.store_a.mailboxes.cancel(&key, &id("c")).await.unwrap();
    let (_, again) = only(&mut raw, "*:y:*").await;
    assert!(again > 0, "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spoiled_history_entry_is_passed_over() {
    let server = Server::start(&[]).await;
    let fx = fixture(&server, settings()).await;
    let mut raw = server.client().await;
    let key = device("d");
    let session = connect(&fx, &key).await;
    let (history, _) = only(&mut raw, "*:y:*").await;
    for spoiled in [&b"13:17951760000001:C"[..], b"", b"\xff", b"1:11:?"] {
        redis::cmd("RPUSH").arg(&history).arg(spoiled).exec_async(&mut raw).await.unwrap();
    }
    release(&fx.store_a, &key, session).await;
    let found = fx.store_b.sessions.history(&key, 10).await.unwrap();
    assert!(matches!(found[0].event, HistoryEvent::Disconnected { .. }), "{found:?}");
    assert!(matches!(found[1].event, HistoryEvent::Connected { .. }), "{found:?}");
    assert_eq!(found.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_history_is_kept_where_none_is_wanted() {
    let server = Server::start(&[]).await;
    let fx = fixture(&server, StoreSettings { history: 0, ..settings() }).await;
    let key = device("d");
    let session = connect(&fx, &key).await;
    send(&fx.store_a, &key, "c", 0).await;
    release(&fx.store_a, &key, session).await;
    assert_eq!(keys(&mut server.client().await, "*:y:*").await, [""; 0]);
    assert_eq!(fx.store_b.sessions.history(&key, 10).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dead_are_listed_as_long_as_their_records_are_kept() {
    let server = Server::start(&[]).await;
    let fx = fixture(&server, settings()).await;
    let mut raw = server.client().await;
    let key = device("d");
    for name in ["a", "b", "c"] {
        send(&fx.store_a, &key, name, 1).await;
        for _ in 0..2 {
            let session = connect(&fx, &key).await;
            fx.store_a.mailboxes.read(&key, session, 0).await.unwrap();
        }
        assert_eq!(get(&fx.store_b, &key, name).await.state, CommandState::Dead);
    }
    let (list, ttl) = only(&mut raw, "*:z:default").await;
    assert!(ttl > 0 && ttl <= millis(settings().retention), "{ttl}");
    let (record, _) = only(&mut raw, "*:c:*:b").await;
    redis::cmd("DEL").arg(&record).exec_async(&mut raw).await.unwrap();
    let tenant = TenantId::default();
    // Page by page, with what the last page ended with taken off before the next one.
    let mut page = PageRequest { size: 1, token: None };
    let mut names = Vec::new();
    loop {
        let found = fx.store_b.mailboxes.dead(&tenant, &page).await.unwrap();
        for command in &found.items {
            names.push(command.spec.id.to_string());
            let (dead, next) = (&command.spec.id, id("next"));
            assert!(fx.store_b.mailboxes.settle_dead(&key, dead, &next).await.unwrap());
        }
        page.token = found.next;
        if page.token.is_none() {
            break;
        }
    }
    assert_eq!(names, ["a", "c"]);
    let left: u64 = redis::cmd("ZCARD").arg(&list).query_async(&mut raw).await.unwrap();
    assert_eq!(left, 0, "the one without a record was dropped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_keeps_how_a_command_ended_but_not_with_what() {
    let server = Server::start(&[]).await;
    let fx = fixture(&server, settings()).await;
    let mut raw = server.client().await;
    let key = device("d");
    let session = connect(&fx, &key).await;
    for name in ["fits", "full", "late"] {
        send(&fx.store_a, &key, name, 0).await;
    }
    let large = result(ResultStatus::Succeeded, 5_000);
    let small = CommandResult { payload: None, payload_dropped: true, ..large.clone() };
    report(&fx, &key, session, "fits", &Report::Result(large.clone())).await;
    report(&fx, &key, session, "late", &Report::Result(large.clone())).await;
    let mut limit = async |bytes: u64| {
        let mut config = redis::cmd("CONFIG");
        config.arg("SET").arg("maxmemory").arg(bytes).exec_async(&mut raw).await.unwrap();
    };
    // Less than it uses already.
    limit(100_000).await;
    let progress = |note: &str| {
        Report::Progress(Progress {
            percent: Some(9),
            note: Some(note.into()),
            time: UnixMillis(1),
        })
    };
    for (note, expected) in [("short", Some("short")), (&*"long".repeat(200), None)] {
        report(&fx, &key, session, "full", &progress(note)).await;
        let kept = get(&fx.store_b, &key, "full").await.progress.unwrap();
        assert_eq!((kept.percent, kept.note.as_deref()), (Some(9), expected));
    }
    let ended = report(&fx, &key, session, "full", &Report::Result(large.clone())).await;
    assert!(matches!(ended, Reported::Applied { .. }), "{ended:?}");
    let after = get(&fx.store_b, &key, "full").await;
    assert_eq!((after.state, after.result.as_ref()), (CommandState::Succeeded, Some(&small)));
    // The device did not hear of it, and says the same again: while Redis is full, and after.
    let late = Reported::Late { state: CommandState::Succeeded };
    let failed = result(ResultStatus::Failed, 5_000);
    for _ in 0..2 {
        for name in ["fits", "full"] {
            let again = report(&fx, &key, session, name, &Report::Result(large.clone())).await;
            assert_eq!(again, late);
            assert_eq!(get(&fx.store_b, &key, name).await.late, None, "{name}");
        }
        let again = report(&fx, &key, session, "late", &Report::Result(failed.clone())).await;
        assert_eq!(again, late);
        limit(0).await;
    }
    let kept = get(&fx.store_b, &key, "late").await.late.unwrap();
    assert_eq!((kept.result.status, kept.count), (ResultStatus::Failed, 1));
    assert!(kept.result.payload_dropped && kept.result.payload.is_none());
    assert_eq!(get(&fx.store_b, &key, "full").await.revision, after.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_the_version_before_are_read() {
    let server = Server::start(&[]).await;
    let fx = fixture(&server, settings()).await;
    let mut raw = server.client().await;
    let key = device("d");
    let session = connect(&fx, &key).await;
    send(&fx.store_a, &key, "c", 0).await;
    let (record, _) = only(&mut raw, "*:c:*").await;
    redis::cmd("HDEL").arg(&record).arg("v").exec_async(&mut raw).await.unwrap();
    assert_eq!(get(&fx.store_b, &key, "c").await.revision, 0);
    let done = Report::Result(result(ResultStatus::Succeeded, 3));
    report(&fx, &key, session, "c", &done).await;
    assert_eq!(get(&fx.store_b, &key, "c").await.revision, 1);
}
