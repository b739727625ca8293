//! Redis stops, or dies and comes back empty, under 1,000 connected devices: nobody is cut off, no call
//! is answered with what is not known, and seconds after its return everything works again, under the
//! same sessions.

use std::sync::Arc;
use std::time::Duration;

use roost_proto::control::v1::{Command, CommandState};
use roost_testkit::admin::Readiness;
use roost_testkit::backend::{TestBackend, command, waiting, with_id};
use roost_testkit::eventually;
use roost_testkit::fleet::Fleet;
use roost_testkit::process::TwoEdges;
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
/// Within which a call is refused, with what a busy machine may take on top.
const REFUSED_WITHIN: Duration = Duration::from_millis(1_000 + 500);
/// Within which every device answers again, with what a busy machine may take on top.
const BACK_WITHIN: Duration = Duration::from_secs(5 + 5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_stopped_and_resumed() {
    let mut hub = TwoEdges::start(&[LEASE]).await;
    let (mut fleet, backend) = crowd(&hub).await;
    hub.redis.pause().unwrap();
    outage(&hub, &mut fleet, &backend).await;
    hub.redis.resume().unwrap();
    all_is_well(&hub, &mut fleet, &backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_and_restarted_empty() {
    let mut hub = TwoEdges::start(&[LEASE]).await;
    let (mut fleet, backend) = crowd(&hub).await;
    hub.redis.kill();
    outage(&hub, &mut fleet, &backend).await;
    hub.redis.restart().await.unwrap();
    all_is_well(&hub, &mut fleet, &backend).await;
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
    let mut calls = 0;
    while Instant::now() < end {
        let asked = Instant::now();
        let refused = backend.try_send(command("d-1", "hello")).await;
        let took = asked.elapsed();
        let error = refused.expect_err("accepted without a store");
        assert!(error.is_unavailable(), "{error}");
        let honest = ["NOT_ENQUEUED", "INDETERMINATE"].contains(&error.reason.as_str());
        assert!(honest, "{error}");
        assert!(error.retryable(), "{error}");
        assert!(took < REFUSED_WITHIN, "refused after {took:?}");
        calls += 1;
        // Between calls something may happen; and no busy loop.
        if let Ok((who, closed)) = timeout(Duration::from_millis(200), fleet.ended()).await {
            panic!("{who} was cut off: {closed}");
        }
    }
    assert!(calls > 5, "only {calls} calls were answered");
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
async fn all_is_well(hub: &TwoEdges, fleet: &mut Fleet, backend: &TestBackend) {
    let back = Instant::now();
    let permits = Arc::new(Semaphore::new(CALLS));
    let mut asking = JoinSet::new();
    for (name, session) in fleet.devices() {
        let (backend, name, session) = (backend.clone(), name.clone(), session.to_string());
        let permits = Arc::clone(&permits);
        asking.spawn(async move {
            let _permit = permits.acquire_owned().await.unwrap();
            let done = answered(&backend, &name).await;
            assert_eq!(done.state(), CommandState::Succeeded, "{done:?}");
            assert_eq!(done.session_id, session, "{name} has another session");
            back.elapsed()
        });
    }
    let mut answers = asking.join_all().await;
    answers.sort_unstable();
    let (median, took) = (answers[DEVICES / 2], answers[DEVICES - 1]);
    eprintln!(
        "{DEVICES} devices answered within {took:?} of the return of Redis, half of them within {median:?}"
    );
    assert_eq!(fleet.ends(), []);
    assert!(took < BACK_WITHIN, "after {took:?}");
    for node in [&hub.a, &hub.b, &hub.control] {
        let ready = async || (node.admin().readiness().await.status == "ready").then_some(());
        eventually("the node is ready", Duration::from_secs(5), ready).await;
    }
}

/// Sends a device a command until the hub takes it, as a back end should: with the same id.
async fn answered(backend: &TestBackend, device: &str) -> Command {
    loop {
        let request = with_id("after", command(device, "hello"));
        match backend.try_send(waiting(Duration::from_secs(20), request)).await {
            Ok(answer) => return answer.command.unwrap(),
            Err(error) => assert!(error.is_unavailable(), "{device}: {error}"),
        }
        sleep(Duration::from_millis(200)).await;
    }
}
