//! Publications to a worker's subscribers: one shared frame, first in first out, a few sockets at a
//! time so that a command is not stuck behind a broadcast.

use std::rc::Rc;
use std::sync::Arc;

use roost_telemetry::metrics::labels::{
    DeliveryPath, Direction, DropReason, GapCause, MessageKind,
};
use tokio::sync::mpsc;

use super::inbox::{Lost, Told};
use super::{Place, Publication, Worker, jobs};
use crate::conn::{Class, Sent};

/// So many sockets are written before other work gets a turn, for one publication or for several.
const SLICE: usize = 64;

/// Hands out what comes until the node is gone.
pub(super) async fn run(
    worker: Rc<Worker>,
    mut publications: mpsc::Receiver<Told>,
    lost: Arc<Lost>,
) {
    let mut found = Vec::new();
    let mut written = 0;
    while let Some(told) = publications.recv().await {
        lost.taken_out(&told);
        let publication = match told {
            Told::Publication(publication) => publication,
            Told::Gap(cause) => {
                jobs::tell_gap(&worker, cause).await;
                continue;
            }
        };
        let Publication { tenant, topic, .. } = &publication;
        worker.subscribers.borrow().find(tenant, topic, &mut found);
        for slice in found.chunks(SLICE) {
            hand_out(&worker, &publication, slice);
            written += slice.len();
            if written >= SLICE {
                written = 0;
                tokio::task::yield_now().await;
            }
        }
        if !found.is_empty() {
            let latency = worker.edge.store.clock.now().since(publication.time);
            worker.edge.metrics().delivered(DeliveryPath::Publication, latency);
        }
        if lost.gap_is_due() {
            jobs::tell_gap(&worker, GapCause::Dropped).await;
        }
    }
}

fn hand_out(worker: &Worker, publication: &Publication, places: &[Place]) {
    let (mut sent, mut gone) = (0, 0);
    for place in places {
        let Some(conn) = worker.find(*place).filter(|conn| conn.is_open()) else {
            gone += 1;
            continue;
        };
        match conn.send(&publication.frame, Class::Publication(&publication.topic)) {
            Sent::Written | Sent::Queued => sent += 1,
            // It has a full queue, and that is counted there.
            Sent::Dropped | Sent::Postponed if conn.is_open() => {}
            Sent::Dropped | Sent::Postponed => gone += 1,
        }
    }
    let metrics = worker.edge.metrics();
    metrics.messages.add((Direction::Out, MessageKind::Message), sent);
    if gone > 0 {
        metrics.messages_dropped.add(DropReason::Disconnected, gone);
    }
}
