//! What is without end or too much: the hub's memory and the neighbours stay as they are.

use roost_testkit::raw::{Seen, fragment};
use roost_testkit::{HANGS, eventually};
use roost_wire::ws::Opcode;

use super::Scene;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_fragments_take_no_memory() {
    /// How much the hub may grow, in bytes.
    const GROWTH: u64 = 1_000_000;
    let scene = Scene::start().await;
    // One round of everything first, so that what is allocated once is there.
    flood(&scene, 256 << 10).await;
    trickle(&scene, 1 << 20).await;
    let before = scene.hub.resident();
    flood(&scene, 1 << 30).await;
    let after = scene.hub.resident();
    assert!(after < before + GROWTH, "{before} bytes became {after} by 1 GiB in fragments");
    trickle(&scene, 16 << 20).await;
    let after = scene.hub.resident();
    assert!(after < before + GROWTH, "{before} bytes became {after} by empty fragments");
    scene.end().await;
}

/// Fragments of one message without end, until `total` bytes or the hub's word that it is too much.
async fn flood(scene: &Scene, total: usize) {
    let mut socket = scene.welcomed().await;
    socket.send(&fragment(false, Opcode::Text, b"\"")).await;
    let piece = fragment(false, Opcode::Continuation, &vec![b'x'; 64 << 10]);
    let mut sent = 0;
    while sent < total && socket.try_send(&piece).await.is_ok() {
        sent += piece.len();
    }
    let (errors, close) = socket.end().await;
    // The close frame may be lost with the connection that we go on filling.
    assert!(matches!(close, 1009 | 1006), "{close} {errors:?}");

    // The same without haste shows it.
    let mut socket = scene.welcomed().await;
    socket.send(&fragment(false, Opcode::Text, b"\"")).await;
    for _ in 0..2 {
        socket.send(&piece).await;
    }
    assert_eq!(socket.end().await, (vec!["MESSAGE_TOO_BIG".to_owned()], 1009));
}

/// Empty fragments without end: nothing to keep, and so nothing that grows, whether the hub bears it
/// or not.
async fn trickle(scene: &Scene, total: usize) {
    let mut socket = scene.welcomed().await;
    socket.send(&fragment(false, Opcode::Text, b"")).await;
    let pieces = fragment(false, Opcode::Continuation, b"").repeat(10_000);
    let mut sent = 0;
    while sent < total && socket.try_send(&pieces).await.is_ok() {
        sent += pieces.len();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_never_reads_is_closed_and_what_it_missed_is_counted() {
    let scene = Scene::start().await;
    let target = scene.hub.target(&scene.keys);
    let backend = target.backend().await;
    let admin = scene.hub.admin();
    let mut reader = target.on_a("reader").await;
    reader.subscribe("flood").await.unwrap();
    let mut deaf = scene.welcomed().await;
    deaf.text(r#"{"type":"subscribe","id":1,"topic":"flood"}"#).await;
    assert!(matches!(deaf.seen().await, Seen::Json(ack) if ack["type"] == "ack"));

    let payload = format!("\"{}\"", "x".repeat(60_000));
    let mut slow = 0.0;
    while slow == 0.0 {
        for _ in 0..20 {
            backend.publish("flood", &payload).await;
            assert_eq!(reader.message().await.payload.len(), payload.len());
        }
        slow = admin.metrics().await.sum("roost_slow_consumers_total", &[]);
    }
    let ended = async || {
        let metrics = admin.metrics().await;
        let closed = metrics.sum("roost_ws_disconnects_total", &["slow_consumer"]);
        (closed == 1.0 && metrics.sum("roost_messages_dropped_total", &[]) >= 1.0).then_some(())
    };
    // At the latest 30 s after the queue was first not empty, and a margin.
    eventually("the device is closed", HANGS, ended).await;
    scene.end().await;
}
