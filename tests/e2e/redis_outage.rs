//! Redis stops, or dies and comes back empty, under 1,000 connected devices: nobody is cut off, no call
//! is answered with what is not known, and seconds after its return everything works again, under the
//! same sessions.

use std::sync::Arc;
use std::time::Duration;

use roost_proto::control::v1::{Command, CommandState};
use roost_testkit::admin::Readiness;
use roost_testkit::backend::{TestBackend, command, waiting, with_id};
use roost_testkit::fleet::Fleet;
use roost_testkit::process::TwoEdges;
use roost_testkit::{HANGS, eventually};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How many devices are connected.
const DEVICES: usize = 1_000;
/// How many calls a back end has under way at once.
const CALLS: usize = 100;
/// For how long a node counts as alive: the outages are longer.
const LEASE: (&str, &str) = ("ROOST_STORE__LEASE", "5s");
/// How long an outage is, unless `ROOST_TEST_OUTAGE_SECONDS` says otherwise.
const OUTAGE: u64 = 12;
/// Within which a call is refused: as a rule, since a machine that is busy with other things may let
/// any single one wait.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// Within which every device answers again, on top of what the same calls take on this machine when all
/// is well, and what a busy machine may take.
const BACK_WITHIN: Duration = Duration::from_secs(5 + 5);
/// The fewest calls that are made during an outage.
const CALLS_AT_LEAST: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_stopped_and_resumed() {
    let mut hub = TwoEdges::start(&[LEASE]).await;
    let (mut fleet, backend) = crowd(&hub).await;
    let usual = everybody_answers(&fleet, &backend, "before").await;
    hub.redis.pause().unwrap();
    outage(&hub, &mut fleet, &backend).await;
    hub.redis.resume().unwrap();
    all_is_well(&hub, &mut fleet, &backend, usual).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_and_restarted_empty() {
    let mut hub = TwoEdges::start(&[LEASE]).await;
    let (mut fleet, backend) = crowd(&hub).await;
    let usual = everybody_answers(&fleet, &backend, "before").await;
    hub.redis.kill();
    outage(&hub, &mut fleet, &backend).await;
    hub.redis.restart().await.unwrap();
    all_is_well(&hub, &mut fleet, &backend, usual).await;
}

async fn crowd(hub: &TwoEdges) -> (Fleet, TestBackend) {
    let target = hub.target();
    let backend = target.backend().await;
    let fleet = target.fleet("d", DEVICES).await;
    let done = backend.run(command("d-0", "hello")).await;
    assert_eq!(done.state(), CommandState::Succeeded);
    (fleet, backend)
}

/// What holds while Redis is away.
async fn outage(hub: &TwoEdges, fleet: &mut Fleet, backend: &TestBackend) {
    let seconds = std::env::var("ROOST_TEST_OUTAGE_SECONDS");
    let seconds = seconds.map_or(OUTAGE, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut calls = vec![];
    while Instant::now() < end || calls.len() < CALLS_AT_LEAST {
        let asked = Instant::now();
        let refused = backend.try_send(command("d-1", "hello")).await;
        let took = asked.elapsed();
        let error = refused.expect_err("accepted without a store");
        assert!(error.is_unavailable(), "{error}");
        let honest = ["NOT_ENQUEUED", "INDETERMINATE"].contains(&error.reason.as_str());
        assert!(honest, "{error}");
        assert!(error.retryable(), "{error}");
        calls.push(took);
        // Between calls something may happen; and no busy loop.
        if let Ok((who, closed)) = timeout(Duration::from_millis(200), fleet.ended()).await {
            panic!("{who} was cut off: {closed}");
        }
    }
    calls.sort_unstable();
    assert!(calls[calls.len() / 2] < REFUSED_WITHIN, "refused after {calls:?}");
    let degraded = Readiness { code: 200, status: "degraded".to_owned() };
    assert_eq!(hub.a.admin().readiness().await, degraded);
    assert_eq!(hub.b.admin().readiness().await, degraded);
    let unready = Readiness { code: 503, status: "unready".to_owned() };
    assert_eq!(hub.control.admin().readiness().await, unready);
    // Whoever is new is asked to come back.
    let new = hub.target().keys.token("new");
    let refused = roost_testkit::device::TestDevice::open(&hub.a.edge(), &new, &[]).await;
    let refused = refused.expect_err("a session without a store").to_string();
    assert!(refused.contains("503"), "{refused}");
}

/// Redis has just come back: every device answers, on the session that it had.
async fn all_is_well(hub: &TwoEdges, fleet: &mut Fleet, backend: &TestBackend, usual: Duration) {
    let took = everybody_answers(fleet, backend, "after").await;
    eprintln!("all answered within {took:?} of the return of Redis; before it, within {usual:?}");
    assert_eq!(fleet.ends(), []);
    assert!(took < BACK_WITHIN + 2 * usual, "after {took:?}");
    for node in [&hub.a, &hub.b, &hub.control] {
        let ready = async || (node.admin().readiness().await.status == "ready").then_some(());
        eventually("the node is ready", HANGS, ready).await;
    }
}

/// Sends every device a command; gives how long it took until all had answered.
async fn everybody_answers(fleet: &Fleet, backend: &TestBackend, id: &'static str) -> Duration {
    let began = Instant::now();
    let permits = Arc::new(Semaphore::new(CALLS));
    let mut asking = JoinSet::new();
    for (name, session) in fleet.devices() {
        let (backend, name, session) = (backend.clone(), name.clone(), session.to_string());
        let permits = Arc::clone(&permits);
        asking.spawn(async move {
            let _permit = permits.acquire_owned().await.unwrap();
            let done = answered(&backend, &name, id).await;
            assert_eq!(done.state(), CommandState::Succeeded, "{done:?}");
            assert_eq!(done.session_id, session, "{name} has another session");
        });
    }
    asking.join_all().await;
    began.elapsed()
}

/// Sends a device a command until the hub takes it, as a back end should: with the same id.
async fn answered(backend: &TestBackend, device: &str, id: &str) -> Command {
    loop {
        let request = with_id(id, command(device, "hello"));
        match backend.try_send(waiting(Duration::from_secs(60), request)).await {
            Ok(answer) => return answer.command.unwrap(),
            Err(error) => assert!(error.is_unavailable(), "{device}: {error}"),
        }
        sleep(Duration::from_millis(200)).await;
    }
}
