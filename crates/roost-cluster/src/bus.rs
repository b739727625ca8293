//! The `Bus` seam: publications to whoever wants them, and events from node to node.
//!
//! Delivery is at most once. What may be missing is said (`Gap`, `Resubscribed`), never left silent;
//! whatever must not be lost is in a mailbox, and an event is only its doorbell.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use roost_types::{
    Command, CommandId, DeviceKey, Message, NodeId, SessionId, TenantId, TopicFilter,
};
use tokio::sync::mpsc;

use crate::{NodeRef, StoreError};

/// What one node tells another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeEvent {
    /// To an edge: deliver this command, if your cursor has passed `prev`; else read the mailbox.
    Deliver {
        /// The session that it is dispatched to.
        session: SessionId,
        /// The command, its `seq` included.
        command: Box<Command>,
        /// The `seq` dispatched before it.
        prev: u64,
    },
    /// To an edge: read this device's mailbox.
    Drain {
        /// Whose.
        device: DeviceKey,
        /// For which session.
        session: SessionId,
    },
    /// To an edge: tell the device that a command is cancelled.
    Cancel {
        /// Which device.
        device: DeviceKey,
        /// On which session.
        session: SessionId,
        /// Which command.
        command: CommandId,
    },
    /// To an edge: this session was replaced; close its socket and say so to `by`.
    Replaced {
        /// Which device.
        device: DeviceKey,
        /// The session that lost.
        session: SessionId,
        /// The node of the session that won.
        by: NodeId,
    },
    /// The answer to `Replaced`: the socket is closing, or was gone.
    ReplacedDone {
        /// The session that lost.
        session: SessionId,
    },
    /// To an edge: an operator disconnects this session.
    Disconnect {
        /// Which device.
        device: DeviceKey,
        /// Which session.
        session: SessionId,
        /// The operator's words, for the device.
        reason: Arc<str>,
    },
    /// To a control node that waits: the command moved on.
    CommandUpdate(Box<Command>),
    /// To an edge: an operator drains it. It takes no more devices, sends those that it has away, and
    /// stays.
    DrainNode {
        /// Over how long.
        over: Duration,
    },
    /// To an edge: an operator takes that back. It takes devices again.
    UndrainNode,
    /// To an edge: others have room for some of its devices. It sends that many away, any of them.
    Rebalance {
        /// How many.
        surplus: u64,
        /// Over how long.
        over: Duration,
    },
}

/// Which channels came back after an interruption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resubscribed {
    /// This node's own: events may be missing. Sessions are to be revalidated, mailboxes read,
    /// awaited commands looked up.
    Node,
    /// Those of topics: publications may be missing for every subscriber here.
    Topics,
}

/// What the bus brings a node.
#[derive(Debug, Clone)]
pub enum BusEvent {
    /// A publication that matches a filter this node declared; once, however many match.
    Message {
        /// Whose.
        tenant: TenantId,
        /// What.
        message: Arc<Message>,
    },
    /// An event for this node.
    Node(Box<NodeEvent>),
    /// Publications were dropped on the way because this node was too slow.
    Gap {
        /// How many, as far as is known.
        dropped: u64,
    },
    /// Channels were interrupted and are back.
    Resubscribed(Resubscribed),
}

/// Messages between nodes.
#[async_trait]
pub trait Bus: Send + Sync + std::fmt::Debug {
    /// Sends a publication to every node that declared a matching filter, this one included.
    async fn publish(&self, tenant: &TenantId, message: Arc<Message>) -> Result<(), StoreError>;

    /// Makes matching publications come here. Returns when a publication made afterwards anywhere
    /// reaches this node. Declaring twice is harmless.
    async fn declare(&self, tenant: &TenantId, filter: &TopicFilter) -> Result<(), StoreError>;

    /// Takes a declaration back.
    async fn withdraw(&self, tenant: &TenantId, filter: &TopicFilter) -> Result<(), StoreError>;

    /// Sends an event to one node; nothing happens where it is gone.
    async fn send(&self, node: &NodeRef, event: &NodeEvent) -> Result<(), StoreError>;

    /// The same to a node in whatever incarnation.
    async fn send_to(&self, node: &NodeId, event: &NodeEvent) -> Result<(), StoreError>;

    /// What comes for this node; the receiver can be taken once, `None` after that.
    fn take_events(&self) -> Option<mpsc::Receiver<BusEvent>>;
}
