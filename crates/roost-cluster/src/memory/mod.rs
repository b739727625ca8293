//! The embedded store: everything in this process, behind one lock. It is the reference that the
//! contract suite was written against, and what a hub without Redis runs on.
//!
//! `devices.rs` has sessions, `mailroom.rs` (with `mailbox.rs` and `stored.rs`) mailboxes, `ports.rs`
//! the bus, `members.rs` the nodes; each holds the state and its rules. The trait implementations here only lock and call.

mod devices;
mod mailbox;
mod mailroom;
mod members;
mod ports;
mod seams;
mod stored;

use std::sync::Arc;

use parking_lot::Mutex;
use roost_types::UnixMillis;
use tokio::sync::watch;

use crate::{Clock, Durability, NodeRef, Store, StoreHealth, StoreSettings};

use devices::{Devices, EventLog};
use members::Members;
use ports::Ports;
use stored::Due;

/// What the nodes of one process share. Each takes its own [`Store`] with [`MemoryHub::node`].
#[derive(Debug)]
pub struct MemoryHub {
    settings: StoreSettings,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    health: watch::Sender<StoreHealth>,
}

#[derive(Debug, Default)]
struct State {
    devices: Devices,
    events: EventLog,
    due: Due,
    members: Members,
    ports: Ports,
}

/// One node's handle, which implements every seam.
#[derive(Debug)]
struct MemoryNode {
    hub: Arc<MemoryHub>,
    node: NodeRef,
}

// === impl MemoryHub ===

impl MemoryHub {
    /// An empty store.
    pub fn new(settings: StoreSettings, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            settings,
            clock,
            state: Mutex::default(),
            health: watch::Sender::new(StoreHealth::Up),
        })
    }

    /// The view of one node. A node of the same name that came before gets no more events.
    pub fn node(self: &Arc<Self>, node: NodeRef) -> Store {
        self.state.lock().ports.open(&node);
        let handle = Arc::new(MemoryNode { hub: Arc::clone(self), node });
        Store {
            sessions: Arc::clone(&handle) as _,
            mailboxes: Arc::clone(&handle) as _,
            bus: Arc::clone(&handle) as _,
            nodes: handle,
            clock: Arc::clone(&self.clock),
            health: self.health.subscribe(),
            durability: Durability::Process,
        }
    }

    fn now(&self) -> UnixMillis {
        self.clock.now()
    }
}

#[cfg(all(test, feature = "contract"))]
mod tests {
    use super::*;
    use crate::HubClock;
    use crate::contract::Fixture;

    async fn make(settings: StoreSettings) -> Fixture {
        let hub = MemoryHub::new(settings, Arc::new(HubClock::new()));
        let node = |name: &str| NodeRef::start(Fixture::node_id(name));
        let (a, b) = (node("a"), node("b"));
        Fixture {
            store_a: hub.node(a.clone()),
            store_b: hub.node(b.clone()),
            a,
            b,
            keep: Box::new(hub),
        }
    }

    crate::contract_tests!(make);
}
