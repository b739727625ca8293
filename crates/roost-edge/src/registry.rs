//! Which connection has which session, node-wide. Keyed by session id: it is unique to one
//! connection and every node event names it, so nothing of a newer connection can be touched by
//! what concerns an older one.

use dashmap::DashMap;
use roost_types::SessionId;

use crate::worker::Place;

/// The sessions of this node.
#[derive(Debug, Default)]
pub(crate) struct Registry(DashMap<SessionId, Place, foldhash::fast::RandomState>);

// === impl Registry ===

impl Registry {
    pub(crate) fn insert(&self, session: SessionId, place: Place) {
        self.0.insert(session, place);
    }

    pub(crate) fn remove(&self, session: SessionId) {
        self.0.remove(&session);
    }

    /// Where a session is; `None` where it is not on this node, or no longer.
    pub(crate) fn find(&self, session: SessionId) -> Option<Place> {
        self.0.get(&session).map(|place| *place)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
