//! Making a replaced session's socket close, on this node or another, until it is known to be gone.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use roost_cluster::{NodeEvent, NodeRef};
use roost_telemetry::metrics::labels::TakeoverReason;
use roost_types::{DeviceKey, SessionId};
use tokio::sync::Notify;

use crate::conn::Conn;
use crate::edge::Edge;

/// From the first reminder of the old owner to the second, then twice as long each time: after a
/// node's death each of its devices has a task here.
const REMIND: Duration = Duration::from_millis(200);
/// At most so long between two.
const REMIND_MAX: Duration = Duration::from_secs(4);
/// From which reminder on it is asked whether the old owner still lives.
const ASK_FROM: u32 = 4;
/// At most so many reminders: 22 s, beyond any lease. A node that has not answered by then is dead.
const REMINDERS: u32 = 9;

/// Sessions of other nodes that were told to go and have not said that they did.
pub(crate) type Takeovers = DashMap<SessionId, Arc<Notify>, foldhash::fast::RandomState>;

/// Makes the session that this connection replaced go.
pub(super) fn begin(conn: &Rc<Conn>, device: &DeviceKey, old: SessionId, owner: &NodeRef) {
    let edge = &conn.worker.edge;
    let takeovers = &edge.telemetry.node.session_takeovers;
    if owner.id == edge.node.id {
        let same_life = *owner == edge.node;
        takeovers.inc(if same_life { TakeoverReason::SameNode } else { TakeoverReason::DeadNode });
        edge.close_replaced(old);
    } else {
        takeovers.inc(TakeoverReason::OtherNode);
        let event =
            NodeEvent::Replaced { device: device.clone(), session: old, by: edge.node.id.clone() };
        tokio::task::spawn_local(remind(Arc::clone(edge), owner.clone(), old, event));
    }
}

/// Tells the old owner again and again until it says that the socket is closing.
async fn remind(edge: Arc<Edge>, owner: NodeRef, old: SessionId, event: NodeEvent) {
    let gone = Arc::new(Notify::new());
    edge.takeovers.insert(old, Arc::clone(&gone));
    let mut patience = REMIND;
    for reminder in 1..=REMINDERS {
        if let Err(error) = edge.store.bus.send(&owner, &event).await {
            tracing::debug!(%owner, %error, "could not tell a node of a takeover");
        }
        let answered = tokio::time::timeout(patience, gone.notified()).await.is_ok();
        if answered || (reminder >= ASK_FROM && !lives(&edge, &owner).await) {
            break;
        }
        patience = (patience * 2).min(REMIND_MAX);
    }
    edge.takeovers.remove(&old);
}

/// Whether a node's lease runs, in the incarnation that had the session.
async fn lives(edge: &Edge, owner: &NodeRef) -> bool {
    match edge.store.nodes.list().await {
        Ok(nodes) => nodes.iter().any(|node| node.live && node.info.node == *owner),
        // Not known: go on reminding.
        Err(_) => true,
    }
}
