//! What the connections amount to: whether Redis is up, since when, and what time it is there.

use std::sync::atomic::Ordering;

use roost_cluster::StoreHealth;
use roost_telemetry::metrics::labels::RedisRole;
use tokio::time::Instant;

use crate::check;

use super::Link;
use super::master::Master;

// === impl Link: health ===

impl Link {
    /// Takes hub time over from the master that leases are kept by; another one's must be near it.
    pub(super) fn take_time(&self, master: &Master, facts: &check::Facts) {
        let leases = super::slot(self.keys.nodes().as_bytes());
        let map = self.map.load();
        let only = !self.target.is_cluster();
        let keeps_leases = map.master_of(leases).is_none_or(|of| of.address == master.address);
        if only || keeps_leases {
            self.clock.set(facts.asked, facts.time);
            self.metrics().set_hub_time_error(self.clock.error_bound());
        } else if let Some(apart) = check::apart(&*self.clock, facts) {
            tracing::warn!(
                master = %master.address, ?apart,
                "the clocks of two masters differ: writes are refused too early, or commands expire late; run NTP"
            );
        }
    }

    pub(super) fn note_failover(&self) {
        self.metrics().failovers.increment(1);
        self.histories.fetch_add(1, Ordering::AcqRel);
    }

    /// Works out what all of it amounts to.
    pub(super) fn settle(&self) {
        let map = self.map.load();
        let mut up_since = self.up_since.lock();
        let trouble = map.masters.iter().find_map(|master| {
            let reason = master.trouble()?;
            Some(if map.is_sharded() { format!("{}: {reason}", master.address) } else { reason })
        });
        let trouble = trouble.or_else(|| {
            (!map.is_whole()).then(|| "some slots of the cluster have no master".to_owned())
        });
        match (&trouble, up_since.is_some()) {
            (Some(reason), true) => {
                *up_since = None;
                self.interruptions.fetch_add(1, Ordering::AcqRel);
                tracing::warn!(reason, "lost Redis");
            }
            (None, false) => {
                *up_since = Some(Instant::now());
                if self.was_interrupted() {
                    tracing::info!("Redis is back");
                }
            }
            _ => {}
        }
        self.metrics().set_up(RedisRole::Primary, trouble.is_none());
        let health = match trouble {
            Some(reason) => StoreHealth::Down { reason },
            None => StoreHealth::Up,
        };
        self.health.send_if_modified(|known| {
            let changes = *known != health;
            *known = health;
            changes
        });
    }

    /// Another server took a master's place and none was missed: it may lack what the other had last.
    pub(super) fn pulse(&self) {
        let mut up_since = self.up_since.lock();
        if up_since.is_some() {
            *up_since = Some(Instant::now());
            self.interruptions.fetch_add(1, Ordering::AcqRel);
            let reason = "another server became master".to_owned();
            self.health.send_replace(StoreHealth::Down { reason });
            self.health.send_replace(StoreHealth::Up);
        }
    }

    /// This node could not renew its lease although Redis answers: a master without its replicas refuses
    /// writes, a cluster that is down every script. Others could not renew theirs either.
    pub(super) fn note_refusal(&self) {
        if let Some(since) = self.up_since.lock().as_mut() {
            *since = Instant::now();
            self.interruptions.fetch_add(1, Ordering::AcqRel);
        }
    }
}
