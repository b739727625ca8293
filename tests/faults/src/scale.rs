//! How large a run is. The full scale is that of the promises in docs/guarantees.md; the small one is for
//! every change.

use std::time::Duration;

/// The numbers of a run.
#[derive(Debug, Clone)]
pub struct Scale {
    /// `full` or `small`.
    pub name: &'static str,
    /// How many devices.
    pub devices: usize,
    /// Commands a second.
    pub rate: u32,
    /// How long a node counts as alive after a heartbeat.
    pub lease: Duration,
    /// How long everything is well before the fault.
    pub before: Duration,
    /// How long faults last that have a length of their own.
    pub fault: Duration,
    /// How long everything is well after the fault.
    pub after: Duration,
    /// How often faults come that come more than once.
    pub times: usize,
    /// How many devices are asked at once when the fault is over.
    pub probes: usize,
    /// How many takeovers of one device.
    pub takeovers: usize,
    /// How many control nodes are killed between accepting and answering.
    pub control_kills: usize,
    /// How many slots are moved.
    pub slots: usize,
    /// How long an edge is stopped while its devices move.
    pub pause: Duration,
}

// === impl Scale ===

impl Scale {
    /// 2,000 devices, 200 commands a second.
    pub fn full() -> Self {
        Self {
            name: "full",
            devices: 2_000,
            rate: 200,
            lease: Duration::from_secs(10),
            before: Duration::from_secs(10),
            fault: Duration::from_secs(15),
            after: Duration::from_secs(15),
            times: 6,
            probes: 1_000,
            takeovers: 1_000,
            control_kills: 1_000,
            slots: 1_000,
            pause: Duration::from_secs(60),
        }
    }

    /// 150 devices, 40 commands a second, for a few seconds.
    pub fn small() -> Self {
        Self {
            name: "small",
            devices: 150,
            rate: 40,
            lease: Duration::from_secs(3),
            before: Duration::from_secs(2),
            fault: Duration::from_secs(4),
            after: Duration::from_secs(2),
            times: 2,
            probes: 100,
            takeovers: 60,
            control_kills: 30,
            slots: 200,
            pause: Duration::from_secs(6),
        }
    }
}
