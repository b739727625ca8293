//! Who is let in before anything is asked of the store: pages of known origins, and so many connections
//! a second, while those who are connected notice nothing.

use std::sync::Arc;
use std::time::Duration;

use roost_proto::control::v1::CommandState;
use roost_testkit::backend::command;
use roost_testkit::device::TestDevice;
use roost_testkit::eventually;
use roost_testkit::keys::Keys;
use roost_testkit::process::{HubProcess, NodeOptions};
use roost_testkit::raw::{RawSocket, upgrade_request};

/// So many may come at once in these tests.
const BURST: usize = 5;
/// How long counting may take.
const COUNTED: Duration = Duration::from_secs(30);
/// How many come.
const FLOOD: usize = 200;

fn start(keys: &Keys, env: &[(&str, &str)]) -> HubProcess {
    HubProcess::start(keys, &NodeOptions { env, ..NodeOptions::default() })
}

/// Waits until a metric has this value: an answer is counted after it was sent.
async fn until_counted(hub: &HubProcess, name: &str, label: &str, expected: f64) {
    let what = format!("{name} of {label} is {expected}");
    let there = async || {
        let counted = hub.admin().metrics().await.sum(name, &[label]);
        (counted == expected).then_some(())
    };
    eventually(&what, COUNTED, there).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_told_to_wait_and_the_connected_go_on() {
    let keys = Arc::new(Keys::generate());
    let rate = [("ROOST_EDGE__CONNECT_RATE", "1"), ("ROOST_EDGE__CONNECT_BURST", "5")];
    let hub = start(&keys, &rate);
    let target = hub.target(&keys);
    let backend = target.backend().await;
    let mut connected = TestDevice::connect(target.a(), &keys.token("connected")).await;
    let (mut welcome, mut refused) = (0, 0);
    let mut waits = std::collections::BTreeSet::new();
    for number in 0..FLOOD {
        let mut socket = RawSocket::connect(hub.edge_address()).await;
        socket.send(upgrade_request(&keys.token(&format!("d{number}"))).as_bytes()).await;
        let (status, head) = socket.response().await;
        match status {
            101 => welcome += 1,
            503 => refused += 1,
            other => panic!("{other}: {head}"),
        }
        if status == 503 {
            let after = head.lines().find_map(|line| line.strip_prefix("retry-after: "));
            waits.insert(after.unwrap().parse::<u64>().unwrap());
        }
    }
    // A token a second comes while they do; a slow machine sees more of them.
    assert!(welcome >= BURST - 1, "{welcome} of a burst were let in");
    assert!(refused > 0 && welcome + refused == FLOOD, "{refused} were refused");
    assert!(waits.len() > 1, "all were told to wait alike: {waits:?}");
    assert!(waits.iter().all(|wait| (1..=60).contains(wait)), "{waits:?}");
    let run = backend.run(command("connected", "hello"));
    let answering = async {
        let got = connected.command().await;
        connected.succeed(&got, None).await;
    };
    let (done, ()) = tokio::join!(run, answering);
    assert_eq!(done.state(), CommandState::Succeeded);

    #[expect(clippy::cast_precision_loss, reason = "hundreds")]
    let refused = refused as f64;
    until_counted(&hub, "roost_admission_total", "rate_limited", refused).await;
    until_counted(&hub, "roost_ws_connects_total", "rate_limited", refused).await;
    assert!(hub.admin().metrics().await.sum("roost_admission_tokens", &[]) <= 5.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_limit_nobody_is_counted() {
    let keys = Arc::new(Keys::generate());
    let hub = start(&keys, &[("ROOST_EDGE__CONNECT_RATE", "0")]);
    drop(hub.target(&keys).fleet("d", 50).await);
    let metrics = hub.admin().metrics().await;
    assert_eq!(metrics.sum("roost_admission_total", &["rate_limited"]), 0.0);
    assert!(!metrics.has("roost_admission_tokens"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_origins_are_refused() {
    let keys = Arc::new(Keys::generate());
    let origins = "https://app.example.com, http://localhost:8080";
    let hub = start(&keys, &[("ROOST_EDGE__ALLOWED_ORIGINS", origins)]);
    let token = keys.token("page");
    for (origin, expected) in [
        ("", 101),
        ("Origin: https://app.example.com\r\n", 101),
        ("Origin: HTTP://LOCALHOST:8080\r\n", 101),
        ("Origin: https://app.example.com.evil.example\r\n", 403),
        ("Origin: http://app.example.com\r\n", 403),
        ("Origin: null\r\n", 403),
    ] {
        let mut socket = RawSocket::connect(hub.edge_address()).await;
        let request =
            upgrade_request(&token).replace("Host: hub\r\n", &format!("Host: hub\r\n{origin}"));
        socket.send(request.as_bytes()).await;
        let (status, head) = socket.response().await;
        assert_eq!(status, expected, "{origin:?}: {head}");
    }
    until_counted(&hub, "roost_ws_connects_total", "forbidden", 3.0).await;
}
