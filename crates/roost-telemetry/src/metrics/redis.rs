//! What the Redis client side counts. The client itself is in `roost-redis`.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::catalog as c;
use super::family::{Family, Registrar};
use super::labels::{RedisCommand, RedisOutcome, RedisRole};

/// The metrics of the connections to Redis; one set per hub. All zero on the embedded store.
#[derive(Debug)]
pub struct RedisMetrics {
    duration: Family<Histogram, (RedisCommand, RedisOutcome)>,
    /// `roost_redis_reconnects_total`.
    pub reconnects: Family<Counter, RedisRole>,
    up: Family<Gauge, RedisRole>,
}

// === impl RedisMetrics ===

impl RedisMetrics {
    pub(crate) fn new(r: &Registrar) -> Self {
        Self {
            duration: Family::lazy(r, &c::REDIS_COMMAND_DURATION),
            reconnects: Family::eager(r, &c::REDIS_RECONNECTS),
            // Absent without a Redis, so that no alert takes an embedded store for a lost one.
            up: Family::lazy(r, &c::REDIS_UP),
        }
    }

    /// A command or script was answered, or failed, `elapsed` after it was sent.
    pub fn observe(&self, command: RedisCommand, outcome: RedisOutcome, elapsed: Duration) {
        self.duration.with((command, outcome)).record(elapsed);
    }

    /// The connection for `role` answers (`true`) or does not.
    pub fn set_up(&self, role: RedisRole, up: bool) {
        self.up.with(role).set(u32::from(up));
    }
}
