//! What the edge adds to a device's history, and two devices that fight over one identity.

use roost_cluster::{CONTEST_TAKEOVERS, HistoryEvent, Refusal};
use serde_json::json;

use crate::support::{TestEdge, hub, key, soon};

async fn refusals(edge: &TestEdge, id: &str) -> Vec<Refusal> {
    let entries = edge.store.sessions.history(&key(id), 100).await.unwrap();
    let refused = |event| match event {
        HistoryEvent::Refused { refusal, .. } => Some(refusal),
        _ => None,
    };
    entries.into_iter().filter_map(|entry| refused(entry.event)).collect()
}

#[tokio::test]
async fn what_is_refused_is_noted_once_a_second_at_the_most() {
    let edge = TestEdge::start(&hub(), "a").await;
    let mut device = edge.device("d").await;
    for n in 0..50 {
        device.send(json!({"type": "publish", "id": n, "topic": "$sys/x", "payload": 1})).await;
        assert_eq!(device.expect("error").await["code"], "PERMISSION_DENIED");
    }
    let noted = soon(async {
        loop {
            let noted = refusals(&edge, "d").await;
            if !noted.is_empty() {
                return noted;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let first = &noted[noted.len() - 1];
    assert_eq!(
        (&*first.what, &*first.code, &*first.about),
        ("publish", "PERMISSION_DENIED", "$sys/x")
    );
    assert!(noted.len() < 50, "{} notes", noted.len());
    // What is taken is no entry.
    device.send(json!({"type": "publish", "id": 1, "topic": "a", "payload": 1})).await;
    device.expect("ack").await;
    assert!(refusals(&edge, "d").await.iter().all(|refusal| &*refusal.about == "$sys/x"));
}

#[tokio::test]
async fn two_devices_with_one_identity_are_told_of() {
    let edge = TestEdge::start(&hub(), "a").await;
    let mut device = edge.device("d").await;
    for _ in 0..CONTEST_TAKEOVERS {
        let next = edge.device("d").await;
        device.expect_end("REPLACED", 4409).await;
        device = next;
    }
    edge.until_metric("roost_session_contests_total", 1.0).await;
}
