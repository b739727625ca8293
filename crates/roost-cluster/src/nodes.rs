//! The `Nodes` seam: who is alive, by leases.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use roost_types::{NodeId, UnixMillis};

use crate::StoreError;

/// A node in one life of it: a restarted process is another incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeRef {
    /// The node's name.
    pub id: NodeId,
    /// Random, drawn at start.
    pub incarnation: u64,
}

impl NodeRef {
    /// A new life of the node of this name.
    ///
    /// # Panics
    /// If the operating system has no randomness to give.
    pub fn start(id: NodeId) -> Self {
        let incarnation = getrandom::u64().expect("the operating system provides randomness");
        // Lua and JSON numbers are exact up to 2^53.
        let incarnation = incarnation >> 11;
        Self { id, incarnation }
    }
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:x}", self.id, self.incarnation)
    }
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Devices connect to it.
    Edge,
    /// Back ends call it.
    Control,
}

/// Which roles a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Roles {
    /// Devices connect to it.
    pub edge: bool,
    /// Back ends call it.
    pub control: bool,
}

/// What a node says of itself with each heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Who.
    pub node: NodeRef,
    /// What for.
    pub roles: Roles,
    /// The version it runs.
    pub version: String,
    /// Where its main port listens.
    pub address: String,
    /// Since when, by hub time.
    pub started: UnixMillis,
    /// How many devices are connected to it.
    pub devices: u64,
    /// Whether it takes no new devices because it is going away.
    pub draining: bool,
}

/// A node as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// What it said last.
    pub info: NodeInfo,
    /// When, by hub time.
    pub last_heartbeat: UnixMillis,
    /// Whether its lease still runs.
    pub live: bool,
}

/// Who is alive.
#[async_trait]
pub trait Nodes: Send + Sync + fmt::Debug {
    /// Starts or renews this node's lease, and brings hub time along.
    ///
    /// `Fenced` where another incarnation holds the node's name with a running lease.
    async fn heartbeat(&self, info: &NodeInfo) -> Result<(), StoreError>;

    /// Gives the lease up at once. Others see the node gone, not dead.
    async fn leave(&self, node: &NodeRef) -> Result<(), StoreError>;

    /// Every node with a lease, and those whose lease ended and were not forgotten yet.
    async fn list(&self) -> Result<Vec<NodeRecord>, StoreError>;

    /// Nodes whose lease is over for certain: the store has answered for a whole lease since its last
    /// interruption, so that each of them had the chance to renew.
    async fn dead(&self) -> Result<Vec<NodeRef>, StoreError>;

    /// Strikes a dead node off once its sessions are ended.
    async fn forget(&self, node: &NodeRef) -> Result<(), StoreError>;

    /// Whether it is this node's turn to do a hub-wide job; the turn lasts `ttl`.
    async fn take_turn(&self, job: &str, ttl: Duration) -> Result<bool, StoreError>;

    /// Asks leave to send `wanted` devices away, and gives for how many it has it: all nodes together get
    /// `per_second`, and a quarter of a second's worth at once, at least one.
    async fn shed(&self, wanted: u32, per_second: u32) -> Result<u32, StoreError>;
}
