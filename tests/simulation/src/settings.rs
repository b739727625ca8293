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
    /// One of these is held up for up to 4 s.
    pub push_stalled: u64,
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
    /// A command crashes its device every time.
    pub poison: u64,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            lost: 20,
            doubled: 30,
            stalled: 30,
            push_lost: 200,
            push_stalled: 50,
            half_open: 400,
            pause: 25,
            cut: 15,
            failover: 12,
            moves: 60,
            poison: 40,
        }
    }
}

/// A rule that keeps a promise, and can be taken out to see that it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The store compares the session that asks with the device's.
    SessionComparison,
    /// The store refuses what comes after its time.
    NotAfter,
    /// An edge whose lease is over keeps still until its sessions are confirmed.
    Leases,
    /// That a command is accepted is answered once a replica has it (`WAIT`).
    WaitAccepted,
    /// What a session reads from its mailbox is handed out once a replica has it.
    WaitRead,
    /// That a device's result is taken is answered once a replica has it.
    WaitResult,
    /// That a command is cancelled, and how one stands, is answered once a replica has it.
    WaitSeen,
    /// What was dispatched, or read, before a session was last confirmed is not handed out.
    Fresh,
    /// A node's sessions are ended only while its lease is over.
    StillDead,
}

impl Part {
    /// Every part once.
    pub const ALL: [Self; 9] = [
        Self::SessionComparison,
        Self::NotAfter,
        Self::Leases,
        Self::WaitAccepted,
        Self::WaitRead,
        Self::WaitResult,
        Self::WaitSeen,
        Self::Fresh,
        Self::StillDead,
    ];

    /// `not-after`, as on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SessionComparison => "session-comparison",
            Self::NotAfter => "not-after",
            Self::Leases => "leases",
            Self::WaitAccepted => "wait-accepted",
            Self::WaitRead => "wait-read",
            Self::WaitResult => "wait-result",
            Self::WaitSeen => "wait-seen",
            Self::Fresh => "fresh",
            Self::StillDead => "still-dead",
        }
    }
}

/// What a run is made of.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Which parts are taken out.
    pub without: Vec<Part>,
    /// How often what goes wrong.
    pub rates: Rates,
}

impl Settings {
    /// Everything as it ought to be but for this.
    pub fn without(part: Part) -> Self {
        Self { without: vec![part], rates: Rates::default() }
    }

    pub(crate) fn has(&self, part: Part) -> bool {
        !self.without.contains(&part)
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
