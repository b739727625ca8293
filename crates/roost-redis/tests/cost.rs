//! What devices and commands cost Redis. The figures of `docs/benchmarks.md` come from
//! `what_it_costs`, which asserts nothing and is run by hand:
//!
//! ```sh
//! cargo test --release -p roost-redis --test cost -- --ignored --nocapture
//! ```
#![allow(clippy::unwrap_used, reason = "a failed step should fail the test")]
#![allow(clippy::print_stdout, reason = "figures are for people")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use roost_cluster::contract::{Fixture, settings};
use roost_cluster::{
    Keeper, Lease, NodeInfo, NodeRef, Offer, Report, Roles, SessionClaim, Store, StoreSettings,
};
use roost_types::{
    CommandId, CommandResult, CommandSpec, DeviceKey, Payload, ResultStatus, SessionId,
};
use support::{Server, device, fixture};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How many devices one figure is of.
const DEVICES: u64 = 10_000;
/// How many are asked for at once.
const AT_ONCE: u64 = 200;
/// How long operations are counted.
const WATCHED: Duration = Duration::from_secs(60);

/// Works on so many devices, some at a time.
async fn each<F>(devices: u64, work: impl Fn(DeviceKey) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut left = (0..devices).map(|n| device(&format!("device-{n:05}"))).peekable();
    while left.peek().is_some() {
        let mut tasks = JoinSet::new();
        for key in left.by_ref().take(usize::try_from(AT_ONCE).unwrap()) {
            tasks.spawn(work(key));
        }
        tasks.join_all().await;
    }
}

async fn claim(store: &Store, node: &NodeRef, key: &DeviceKey) -> SessionId {
    let claim = SessionClaim {
        device: key.clone(),
        session: SessionId::random(),
        node: node.clone(),
        protocol: "roost.v1.json".into(),
        address: "203.0.113.17:50123".into(),
        claimed_at: store.clock.now(),
    };
    store.sessions.claim(&claim).await.unwrap();
    claim.session
}

fn spec(store: &Store, n: u64, bytes: usize) -> CommandSpec {
    let id = CommandId::new(format!("01JD0000000000000000{n:06}")).unwrap();
    let expires = store.clock.now().plus(Duration::from_secs(3600));
    let payload = Some(Payload::binary(vec![7; bytes].into()));
    CommandSpec { payload, ..CommandSpec::new(id, "reboot", expires) }
}

async fn connect(store: &Store, node: &NodeRef, devices: u64) {
    each(devices, |key| {
        let (store, node) = (store.clone(), node.clone());
        async move {
            claim(&store, &node, &key).await;
        }
    })
    .await;
}

/// So many commands for each of so many devices that nobody has seen.
async fn send(store: &Store, devices: u64, commands: u64, bytes: usize) {
    each(devices, |key| {
        let store = store.clone();
        async move {
            for n in 0..commands {
                let spec = spec(&store, n, bytes);
                store.mailboxes.enqueue(&key, Offer::new(&spec)).await.unwrap();
            }
        }
    })
    .await;
}

fn info(node: &NodeRef, store: &Store) -> NodeInfo {
    NodeInfo {
        node: node.clone(),
        roles: Roles { edge: true, control: true },
        version: "0.1.0".into(),
        address: "192.0.2.1:7080".into(),
        started: store.clock.now(),
        devices: DEVICES,
        draining: false,
    }
}

/// How often each command was executed, those within scripts included.
async fn calls(raw: &mut MultiplexedConnection) -> BTreeMap<String, u64> {
    let found: String = redis::cmd("INFO").arg("commandstats").query_async(raw).await.unwrap();
    let line = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    found.lines().filter_map(line).collect()
}

/// CPU time of Redis for each script since the last look, in microseconds, reading and answering
/// included.
async fn script_time(raw: &mut MultiplexedConnection, last: &mut (f64, u64)) -> String {
    let found: String = redis::cmd("INFO").arg("cpu").query_async(raw).await.unwrap();
    let part = |name: &str| -> f64 {
        found.lines().find_map(|line| line.strip_prefix(name)).map_or(0.0, |n| n.parse().unwrap())
    };
    let cpu = part("used_cpu_user_main_thread:") + part("used_cpu_sys_main_thread:");
    let scripts = calls(raw).await.get("evalsha").copied().unwrap_or_default();
    let (before, count) = std::mem::replace(last, (cpu, scripts));
    let count = u32::try_from(scripts - count).unwrap().max(1);
    format!("{:.0}", (cpu - before) * 1e6 / f64::from(count))
}

async fn used(raw: &mut MultiplexedConnection) -> u64 {
    let found: String = redis::cmd("INFO").arg("memory").query_async(raw).await.unwrap();
    let line = found.lines().find_map(|line| line.strip_prefix("used_memory:"));
    line.unwrap().parse().unwrap()
}

/// What the keys of a pattern take, by MEMORY USAGE.
async fn usage(raw: &mut MultiplexedConnection, pattern: &str) -> u64 {
    let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(raw).await.unwrap();
    if keys.is_empty() {
        return 0;
    }
    let mut pipe = redis::pipe();
    for key in &keys {
        pipe.cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0);
    }
    let found: Vec<u64> = pipe.query_async(raw).await.unwrap();
    found.iter().sum()
}

/// The commands that only scripts of a partition execute.
const OF_PARTITIONS: [&str; 6] =
    ["hget", "hmget", "srandmember", "zcard", "zcount", "zrangebyscore"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_done_for_idle_devices() {
    let mut counts = Vec::new();
    for devices in [10, 400] {
        let server = Server::start(&[]).await;
        let fx: Fixture = fixture(&server, settings()).await;
        let mut raw = server.client().await;
        let store = &fx.store_a;
        let me = info(&fx.a, store);
        store.nodes.heartbeat(&me).await.unwrap();
        connect(store, &fx.a, devices).await;
        redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut raw).await.unwrap();
        // What a node does that has nothing to do.
        store.nodes.heartbeat(&me).await.unwrap();
        assert!(store.nodes.take_turn("sweep", Duration::from_secs(1)).await.unwrap());
        assert_eq!(store.nodes.dead().await.unwrap(), []);
        assert_eq!(store.mailboxes.sweep().await.unwrap(), []);
        let found = calls(&mut raw).await;
        counts.push(OF_PARTITIONS.map(|name| found.get(name).copied().unwrap_or_default()));
    }
    assert_eq!(counts[0], counts[1], "{OF_PARTITIONS:?}");
    assert_eq!(counts[0][5], 256, "each partition was swept once: {counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, and asserts nothing"]
async fn what_it_costs() {
    for (history, what) in [(0, "without history"), (64, "with history")] {
        let server = Server::start(&[]).await;
        let fx = fixture(&server, StoreSettings { history, ..StoreSettings::default() }).await;
        let mut raw = server.client().await;
        let (before, mut last) = (used(&mut raw).await, (0.0, 0));
        script_time(&mut raw, &mut last).await;
        connect(&fx.store_a, &fx.a, DEVICES).await;
        let each = used(&mut raw).await.saturating_sub(before) / DEVICES;
        let time = script_time(&mut raw, &mut last).await;
        println!("an idle session, {what}: {each} bytes by used_memory; a claim {time} µs");
        for (pattern, what) in [
            ("*:s:*", "record"),
            ("*:y:*", "history"),
            ("*:d:*", "in the list of devices"),
            ("*:n:*", "in the index by node"),
            ("*:ev", "in streams of events (bounded)"),
        ] {
            let bytes = usage(&mut raw, pattern).await;
            println!("    {what}: {} bytes", bytes / DEVICES);
        }
        if history > 0 {
            rest(&fx, &mut raw).await;
        }
    }
    // As Redis is by default, and with records of commands kept compact.
    for args in [&[][..], &["--hash-max-listpack-value", "512"]] {
        let with = args.join(" ");
        let server = Server::start(args).await;
        let fx = fixture(&server, StoreSettings::default()).await;
        ended(&fx, &mut server.client().await, &with).await;
        for (devices, commands) in [(DEVICES, 1), (DEVICES / 10, 10), (DEVICES / 100, 100)] {
            let server = Server::start(args).await;
            let fx = fixture(&server, StoreSettings::default()).await;
            waiting(&fx, &mut server.client().await, (devices, commands), &with).await;
        }
    }
}

/// Commands for devices that are away.
async fn waiting(
    fx: &Fixture,
    raw: &mut MultiplexedConnection,
    (devices, commands): (u64, u64),
    with: &str,
) {
    let (before, mut last) = (used(raw).await, (0.0, 0));
    script_time(raw, &mut last).await;
    let bytes = 100;
    send(&fx.store_a, devices, commands, bytes).await;
    let each = used(raw).await.saturating_sub(before) / (devices * commands);
    let time = script_time(raw, &mut last).await;
    println!(
        "a waiting command with a payload of {bytes} bytes, {commands} a device: \
         {each} bytes by used_memory; an enqueue {time} µs {with}"
    );
    for (pattern, what) in [
        ("*:c:*", "record"),
        ("*:q:*", "order"),
        ("*:h:*", "list"),
        ("*:m:*", "bytes"),
        ("*:due", "due"),
        ("*:y:*", "history"),
    ] {
        let bytes = usage(raw, pattern).await;
        println!("    {what}: {} bytes", bytes / (devices * commands));
    }
}

/// Commands that go at once, are received and end: what stays, and what Redis works.
async fn ended(fx: &Fixture, raw: &mut MultiplexedConnection, with: &str) {
    let (devices, commands) = (DEVICES / 10, 20);
    let (before, mut last) = (used(raw).await, (0.0, 0));
    script_time(raw, &mut last).await;
    each(devices, |key| {
        let store = fx.store_a.clone();
        let node = fx.a.clone();
        async move {
            let session = claim(&store, &node, &key).await;
            for n in 0..commands {
                let spec = spec(&store, n, 100);
                store.mailboxes.enqueue(&key, Offer::new(&spec)).await.unwrap();
                let done = Report::Result(CommandResult::new(ResultStatus::Succeeded));
                for report in [Report::Sent, Report::Received, done] {
                    store.mailboxes.report(&key, session, &spec.id, &report).await.unwrap();
                }
            }
        }
    })
    .await;
    let each = (used(raw).await - before) / (devices * commands);
    let time = script_time(raw, &mut last).await;
    println!(
        "an ended command, {commands} a device: {each} bytes by used_memory; a script {time} µs {with}"
    );
    let history = usage(raw, "*:y:*").await / devices;
    println!("    a full history: {history} bytes a device");
}

/// Counts what two nodes do at rest.
async fn rest(fx: &Fixture, raw: &mut MultiplexedConnection) {
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let length = StoreSettings::default().lease;
    for (store, node) in [(&fx.store_a, &fx.a), (&fx.store_b, &fx.b)] {
        let (info, lease) = (info(node, store), Arc::new(Lease::new()));
        let mut keeper = Keeper::new(store.clone(), info, lease, length, None);
        keeper.join().await.unwrap();
        tasks.spawn(keeper.run(stop.clone()));
    }
    let before = calls(raw).await;
    tokio::time::sleep(WATCHED).await;
    let after = calls(raw).await;
    let seconds = WATCHED.as_secs();
    println!("two nodes at rest, {DEVICES} idle devices, commands a second:");
    let mut most: Vec<_> = after
        .iter()
        .map(|(name, count)| (count - before.get(name).copied().unwrap_or_default(), name))
        .filter(|(count, _)| *count > 0)
        .collect();
    most.sort_unstable_by(|a, b| b.cmp(a));
    for (count, name) in most {
        println!("    {name}: {}.{:02}", count / seconds, count % seconds * 100 / seconds);
    }
    stop.cancel();
    tasks.join_all().await;
}
