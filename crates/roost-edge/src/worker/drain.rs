//! Sending connections of a worker away: one by one as the node's pace has it (`shed.rs`), and whoever is
//! left at the end of a drain.

use std::rc::Rc;
use std::time::Duration;

use roost_cluster::Initiator;
use roost_types::ErrorCode;
use roost_wire::device::ToDevice;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Place, Worker};
use crate::conn::{Conn, Stage};
use crate::shed::{Farewell, Why};

/// So many are sent away before other work gets a turn.
const CONNECTIONS: usize = 64;
/// How much longer than the close handshake the last releases may take.
const RELEASE: Duration = Duration::from_secs(2);
/// The least that a device waits before it comes back: its new node is to hear of the old session's end
/// first.
const RETRY_MS: u64 = 250;

/// Where every connection is, or every device with a session.
pub(super) fn roster(worker: &Worker, devices_only: bool) -> Vec<Place> {
    let wanted = |conn: &Rc<Conn>| !devices_only || conn.live_session().is_some();
    worker.all().into_iter().filter(wanted).map(|conn| conn.place).collect()
}

/// Tells these connections to go, a few at a time.
pub(super) async fn send_away(worker: Rc<Worker>, places: Vec<Place>, farewell: Farewell) {
    for some in places.chunks(CONNECTIONS) {
        for conn in some.iter().filter_map(|place| worker.find(*place)) {
            depart(&worker, &conn, farewell);
        }
        tokio::task::yield_now().await;
    }
}

/// Tells whoever is left to go, waits for the peers, forces the rest, and says so.
pub(super) async fn finish(worker: Rc<Worker>, done: oneshot::Sender<()>) {
    // Those whose handshake was under way.
    for conn in worker.all() {
        depart(&worker, &conn, Farewell { why: Why::Draining, spread: Duration::from_secs(1) });
    }
    let patience = worker.edge.config.timeouts.close;
    if !empty_within(&worker, patience).await {
        for conn in worker.all() {
            if conn.stage() != Stage::Over {
                worker.edge.closed_by_force();
                conn.kill();
            }
        }
        if !empty_within(&worker, RELEASE).await {
            tracing::warn!(worker = worker.index, "some sessions could not be released in time");
        }
    }
    if done.send(()).is_err() {
        tracing::debug!("nobody waits for the drain any more");
    }
}

/// `goaway`, then what waits for the socket, the session's release and the close frame. Devices are not
/// all to come back in one instant.
pub(crate) fn depart(worker: &Worker, conn: &Rc<Conn>, farewell: Farewell) {
    if conn.live_session().is_none() {
        return conn.close_planned(ErrorCode::Draining, Initiator::Hub);
    }
    let spread = u64::try_from(farewell.spread.as_millis()).unwrap_or(u64::MAX);
    conn.say(&ToDevice::Goaway {
        reason: farewell.why.as_str().into(),
        retry_after_ms: Some(RETRY_MS + worker.random_below(spread)),
    });
    conn.depart(farewell.why.as_str());
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
