//! Giving a session back: its local traces at once, its record in the store as soon as the store
//! takes it. Behind both stands the node's lease.

use std::rc::Rc;

use roost_cluster::{LastClose, StoreError};
use roost_types::{DeviceKey, SessionId};

use super::{Session, topics};
use crate::conn::Conn;
use crate::worker::Worker;

/// A session that the store does not know to be over yet.
#[derive(Debug)]
pub(crate) struct Unreleased {
    device: DeviceKey,
    session: SessionId,
    close: LastClose,
}

// === impl Unreleased ===

impl Unreleased {
    pub(crate) fn of(session: &Session, close: LastClose) -> Self {
        Self { device: session.device.clone(), session: session.id, close }
    }
}

/// Takes a connection out of everything on this node that could bring it something.
pub(crate) fn detach(conn: &Conn) {
    if let Some(session) = conn.session.get() {
        conn.worker.edge.registry.remove(session.id);
        topics::withdraw_all(conn, session);
    }
}

/// Tells the store that a session is over, now or once it can be reached.
pub(crate) async fn release(worker: &Rc<Worker>, session: &Session, close: LastClose) {
    try_release(worker, Unreleased::of(session, close)).await;
}

/// One try; one that may be repeated goes to the worker's list.
pub(crate) async fn try_release(worker: &Rc<Worker>, ended: Unreleased) {
    let sessions = &worker.edge.store.sessions;
    match sessions.release(&ended.device, ended.session, &ended.close).await {
        // Fenced: a newer session has the device already.
        Ok(()) | Err(StoreError::Fenced) => {}
        Err(error) => {
            tracing::debug!(device = %ended.device, %error, "could not release a session; it is tried again");
            worker.release_later(ended);
        }
    }
}
