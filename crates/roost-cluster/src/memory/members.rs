//! Nodes of the embedded store: leases and turns.

use std::collections::HashMap;
use std::time::Duration;

use roost_types::{NodeId, UnixMillis};

use crate::{NodeInfo, NodeRecord, NodeRef, StoreError};

#[derive(Debug, Default)]
pub(super) struct Members {
    nodes: HashMap<NodeId, (NodeInfo, UnixMillis)>,
    turns: HashMap<String, UnixMillis>,
    /// When the next device may be sent away at the agreed pace, in µs of hub time.
    shed_next: u64,
}

/// How far ahead of the pace devices may be sent away.
const SHED_BURST_MICROS: u64 = 250_000;

// === impl Members ===

impl Members {
    pub(super) fn beat(
        &mut self,
        info: &NodeInfo,
        lease: Duration,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        if let Some((held, last)) = self.nodes.get(&info.node.id) {
            let other = held.node.incarnation != info.node.incarnation;
            if other && now < last.plus(lease) {
                return Err(StoreError::Fenced);
            }
        }
        self.nodes.insert(info.node.id.clone(), (info.clone(), now));
        Ok(())
    }

    pub(super) fn remove(&mut self, node: &NodeRef) {
        if self.nodes.get(&node.id).is_some_and(|(info, _)| info.node == *node) {
            self.nodes.remove(&node.id);
        }
    }

    pub(super) fn is_live(&self, node: &NodeRef, lease: Duration, now: UnixMillis) -> bool {
        self.nodes
            .get(&node.id)
            .is_some_and(|(info, last)| info.node == *node && now < last.plus(lease))
    }

    pub(super) fn list(&self, lease: Duration, now: UnixMillis) -> Vec<NodeRecord> {
        let record = |(info, last): &(NodeInfo, UnixMillis)| NodeRecord {
            info: info.clone(),
            last_heartbeat: *last,
            live: now < last.plus(lease),
        };
        let mut records: Vec<_> = self.nodes.values().map(record).collect();
        records.sort_by(|a, b| a.info.node.id.cmp(&b.info.node.id));
        records
    }

    pub(super) fn take_turn(&mut self, job: &str, ttl: Duration, now: UnixMillis) -> bool {
        let free = self.turns.get(job).is_none_or(|until| *until <= now);
        if free {
            self.turns.insert(job.to_owned(), now.plus(ttl));
        }
        free
    }

    pub(super) fn shed(&mut self, wanted: u32, per_second: u32, now: UnixMillis) -> u32 {
        // As `shed.lua` does it, in the same units.
        let interval = 1_000_000 / u64::from(per_second.max(1));
        let burst = (interval).max(SHED_BURST_MICROS);
        let now = now.0 * 1_000;
        let next = self.shed_next.max(now);
        let free = (now + burst).saturating_sub(next) / interval.max(1);
        let granted = u64::from(wanted).min(free);
        self.shed_next = next + granted * interval;
        u32::try_from(granted).expect("no more than was wanted")
    }
}
