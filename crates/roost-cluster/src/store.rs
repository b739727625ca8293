//! The seams of one node put together, and the settings that every implementation honours.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::{Bus, Clock, Mailboxes, Nodes, Sessions};

/// One node's view of what all nodes share.
#[derive(Clone, Debug)]
pub struct Store {
    /// Who is connected where.
    pub sessions: Arc<dyn Sessions>,
    /// Commands that wait for devices.
    pub mailboxes: Arc<dyn Mailboxes>,
    /// Messages between nodes.
    pub bus: Arc<dyn Bus>,
    /// Who else is there.
    pub nodes: Arc<dyn Nodes>,
    /// Hub time.
    pub clock: Arc<dyn Clock>,
    /// Whether the store can be reached.
    pub health: watch::Receiver<StoreHealth>,
    /// What "accepted" is worth on this store while all of it is well: the most that can be asked.
    pub durability: Durability,
}

/// Whether the store can be reached, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreHealth {
    /// It answers.
    Up,
    /// It does not; operations fail at once with `NotSent`.
    Down {
        /// What the last attempt said.
        reason: String,
    },
}

/// Where an accepted command is when the caller is told so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Durability {
    /// In the memory of this process.
    Process,
    /// In the memory of one Redis.
    Memory,
    /// In the memory of one Redis and of as many of its replicas as the hub is told to ask for.
    Replicated,
    /// On the disk of one Redis, and replicated.
    Fsync,
}

/// What every store implementation honours alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// How long a node counts as alive after a heartbeat. Heartbeats come at a third of it.
    pub lease: Duration,
    /// How many commands may be with a device, unfinished, before further ones wait.
    pub window: u32,
    /// How many unfinished commands one device's mailbox holds.
    pub mailbox_commands: u32,
    /// How many payload bytes one device's mailbox holds.
    pub mailbox_bytes: u64,
    /// How long a finished command's record is kept.
    pub retention: Duration,
    /// How long a disconnected device's record is kept.
    pub device_retention: Duration,
    /// After how long a dispatched command that no edge reports as sent is pushed again.
    pub undelivered_after: Duration,
    /// How many entries of its history are kept for each device.
    pub history: u32,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            window: 64,
            mailbox_commands: 1_000,
            mailbox_bytes: 4 << 20,
            retention: Duration::from_secs(24 * 3600),
            device_retention: Duration::from_secs(7 * 24 * 3600),
            undelivered_after: Duration::from_secs(5),
            history: 64,
        }
    }
}
