//! The bus of the embedded store: one bounded queue for each node.

use std::collections::HashMap;
use std::sync::Arc;

use roost_types::{FilterTrie, Message, NodeId, TenantId, TopicFilter};
use tokio::sync::mpsc;

use crate::{BusEvent, NodeEvent, NodeRef};

/// How many events wait for a node that is busy: about a second of full load. Beyond it publications
/// are dropped and said to be missing.
const QUEUE: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Ports(HashMap<NodeId, Port>);

#[derive(Debug)]
struct Port {
    node: NodeRef,
    sender: mpsc::Sender<BusEvent>,
    receiver: Option<mpsc::Receiver<BusEvent>>,
    wanted: HashMap<TenantId, FilterTrie<()>>,
    /// Dropped since the last gap was said.
    dropped: u64,
}

// === impl Ports ===

impl Ports {
    pub(super) fn open(&mut self, node: &NodeRef) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let port = Port {
            node: node.clone(),
            sender,
            receiver: Some(receiver),
            wanted: HashMap::new(),
            dropped: 0,
        };
        self.0.insert(node.id.clone(), port);
    }

    fn of(&mut self, node: &NodeRef) -> Option<&mut Port> {
        self.0.get_mut(&node.id).filter(|port| port.node == *node)
    }

    pub(super) fn take(&mut self, node: &NodeRef) -> Option<mpsc::Receiver<BusEvent>> {
        self.of(node)?.receiver.take()
    }

    pub(super) fn publish(&mut self, tenant: &TenantId, message: &Arc<Message>) {
        for port in self.0.values_mut() {
            let wanted = port.wanted.get(tenant);
            if wanted.is_some_and(|filters| filters.matches_any(&message.topic)) {
                port.offer(BusEvent::Message {
                    tenant: tenant.clone(),
                    message: Arc::clone(message),
                });
            }
        }
    }

    pub(super) fn declare(&mut self, node: &NodeRef, tenant: &TenantId, filter: &TopicFilter) {
        if let Some(port) = self.of(node) {
            let wanted = port.wanted.entry(tenant.clone()).or_default();
            wanted.get_or_insert_with(filter, || ());
        }
    }

    pub(super) fn withdraw(&mut self, node: &NodeRef, tenant: &TenantId, filter: &TopicFilter) {
        if let Some(wanted) = self.of(node).and_then(|port| port.wanted.get_mut(tenant)) {
            wanted.remove(filter);
        }
    }

    /// `incarnation` is `None` where any will do.
    pub(super) fn send(&mut self, node: &NodeId, incarnation: Option<u64>, event: &NodeEvent) {
        if let Some(port) = self.0.get_mut(node)
            && incarnation.is_none_or(|wanted| wanted == port.node.incarnation)
        {
            port.offer(BusEvent::Node(Box::new(event.clone())));
        }
    }
}

// === impl Port ===

impl Port {
    fn offer(&mut self, event: BusEvent) {
        if self.dropped > 0 && self.sender.try_send(BusEvent::Gap { dropped: self.dropped }).is_ok()
        {
            self.dropped = 0;
        }
        if self.sender.try_send(event).is_err() {
            self.dropped += 1;
        }
    }
}
