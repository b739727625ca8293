//! How large a run is, how often what goes wrong, and which rules the store applies.

use std::time::Duration;

use roost_cluster::StoreSettings;

/// How many edges there are.
pub(crate) const EDGES: usize = 3;
/// How many devices: few, so that much happens to each.
pub(crate) const DEVICES: usize = 4;
/// How many commands are sent.
pub(crate) const COMMANDS: u64 = 40;
/// How long things go wrong, in ms.
pub(crate) const CHAOS: u64 = 15_000;
/// How long the run goes on without faults, so that what was accepted may arrive or end.
pub(crate) const CALM: u64 = 12_000;
/// How long a command lives, in ms: from, to.
pub(crate) const TTL: (u64, u64) = (500, 9_000);
/// After how long a call to the store is given up; also its `not_after`.
pub(crate) const CALL_LIMIT: Duration = Duration::from_millis(500);
/// A node's lease.
pub(crate) const LEASE: Duration = Duration::from_millis(2_000);
/// How far a node's hub time is off at most, in ms.
pub(crate) const SKEW: u64 = 20;
/// What the checker allows for the skews of two nodes.
pub(crate) const CLOCK_ERROR: Duration = Duration::from_millis(2 * SKEW + 5);
/// How often the sweeps run, in ms.
pub(crate) const SWEEP: u64 = 500;

/// How often something goes wrong, in a thousand.
#[derive(Debug, Clone)]
pub struct Rates {
    /// A request to the store, or its answer, is lost.
    pub lost: u64,
    /// A request arrives twice.
    pub doubled: u64,
    /// A request is held up for up to 4 s.
    pub stalled: u64,
    /// A push, a nudge or a reminder from node to node is lost.
    pub push_lost: u64,
    /// A connection that its device leaves stays open at the edge.
    pub half_open: u64,
    /// Every 100 ms: an edge stops for up to 5 s.
    pub pause: u64,
    /// Every 100 ms: the link to the replica is cut for up to 2 s.
    pub cut: u64,
    /// Every 100 ms: the replica is promoted with what it has.
    pub failover: u64,
    /// Every 100 ms: a device leaves for another edge.
    pub moves: u64,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            lost: 20,
            doubled: 30,
            stalled: 30,
            push_lost: 200,
            half_open: 400,
            pause: 25,
            cut: 15,
            failover: 12,
            moves: 60,
        }
    }
}

/// An answer that cannot be taken back: it waits until the replica has what it tells (`WAIT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// That a command is accepted.
    Accepted,
    /// What a session reads from its mailbox, and hands to the device.
    Read,
    /// That a device's result is taken.
    Result,
    /// That a command is cancelled, and how a command stands.
    Seen,
}

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether the store compares the session that asks with the device's.
    pub compare_sessions: bool,
    /// Whether the store refuses what comes after its time.
    pub not_after: bool,
    /// Whether an edge whose lease is over keeps still until its sessions are confirmed.
    pub leases: bool,
    /// What is answered before it is replicated.
    pub hasty: Vec<Promise>,
    /// How often what goes wrong.
    pub rates: Rates,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            compare_sessions: true,
            not_after: true,
            leases: true,
            hasty: Vec::new(),
            rates: Rates::default(),
        }
    }
}

pub(crate) fn of_store() -> StoreSettings {
    StoreSettings {
        lease: LEASE,
        window: 3,
        undelivered_after: Duration::from_millis(700),
        ..StoreSettings::default()
    }
}

/// A duration in whole milliseconds.
pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("the durations of a run are short")
}
