//! Closing every connection of a worker: shuffled, paced, and forced at the end.

use std::rc::Rc;
use std::time::Duration;

use roost_cluster::Initiator;
use roost_types::ErrorCode;
use roost_wire::device::ToDevice;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Worker;
use crate::conn::Conn;

/// Between two batches of closes.
const STEP: Duration = Duration::from_millis(50);
/// So many are closed before other work gets a turn.
const CONNECTIONS: usize = 64;
/// How much longer than the close handshake the last releases may take.
const RELEASE: Duration = Duration::from_secs(2);

/// Closes everybody within `within`, waits for the peers, forces the rest, and answers with how many
/// had to be forced.
pub(super) async fn run(worker: Rc<Worker>, within: Duration, done: oneshot::Sender<u64>) {
    let mut conns = worker.all();
    shuffle(&worker, &mut conns);
    let steps = usize::try_from(within.as_millis() / STEP.as_millis()).unwrap_or(1).max(1);
    let batch = conns.len().div_ceil(steps).max(1);
    while !conns.is_empty() {
        // Let go as they are closed: a connection that is held here would count as open.
        let some = conns.split_off(conns.len().saturating_sub(batch));
        for few in some.chunks(CONNECTIONS) {
            for conn in few {
                send_away(&worker, conn, within);
            }
            tokio::task::yield_now().await;
        }
        drop(some);
        if !conns.is_empty() {
            tokio::time::sleep(STEP).await;
        }
    }
    // Those whose handshake was under way.
    for conn in worker.all() {
        send_away(&worker, &conn, within);
    }
    let patience = worker.edge.config.timeouts.close;
    let mut forced = 0;
    if !empty_within(&worker, patience).await {
        for conn in worker.all() {
            forced += 1;
            worker.edge.telemetry.node.drain_forced(1);
            conn.kill();
        }
        if !empty_within(&worker, RELEASE).await {
            tracing::warn!(worker = worker.index, "some sessions could not be released in time");
        }
    }
    if done.send(forced).is_err() {
        tracing::debug!("nobody waits for the drain any more");
    }
}

/// `goaway`, then the close frame. The whole fleet is not to come back in one instant.
fn send_away(worker: &Worker, conn: &Rc<Conn>, within: Duration) {
    if conn.live_session().is_some() {
        let spread = u64::try_from(within.as_millis()).unwrap_or(0).clamp(1_000, 30_000);
        conn.say(&ToDevice::Goaway {
            reason: "draining".into(),
            retry_after_ms: Some(250 + worker.random_below(spread)),
        });
    }
    conn.close_planned(ErrorCode::Draining, Initiator::Hub);
}

fn shuffle(worker: &Worker, conns: &mut [Rc<Conn>]) {
    for last in (1..conns.len()).rev() {
        let other = worker.random_below(last as u64 + 1);
        conns.swap(last, usize::try_from(other).unwrap_or(last));
    }
}

async fn empty_within(worker: &Worker, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let emptied = worker.empty.notified();
        if worker.is_empty() {
            return true;
        }
        if tokio::time::timeout_at(deadline, emptied).await.is_err() {
            return worker.is_empty();
        }
    }
}
