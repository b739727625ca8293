//! What the Redis client side counts. The client itself is in `roost-redis`.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::catalog as c;
use super::family::{Family, Registrar};
use super::labels::{PubsubDrop, RedisCommand, RedisErrorKind, RedisOutcome, RedisRole};

/// The metrics of the connections to Redis; one set per hub. All zero on the embedded store.
#[derive(Debug)]
pub struct RedisMetrics {
    duration: Family<Histogram, (RedisCommand, RedisOutcome)>,
    /// `roost_redis_reconnects_total`.
    pub reconnects: Family<Counter, RedisRole>,
    up: Family<Gauge, RedisRole>,
    /// `roost_redis_errors_total`.
    pub errors: Family<Counter, RedisErrorKind>,
    /// `roost_redis_failovers_total`.
    pub failovers: Counter,
    /// `roost_redis_pubsub_dropped_total`.
    pub pubsub_dropped: Family<Counter, PubsubDrop>,
    hub_time_error: Gauge,
}

// === impl RedisMetrics ===

impl RedisMetrics {
    pub(crate) fn new(r: &Registrar) -> Self {
        Self {
            duration: Family::lazy(r, &c::REDIS_COMMAND_DURATION),
            reconnects: Family::eager(r, &c::REDIS_RECONNECTS),
            // Absent without a Redis, so that no alert takes an embedded store for a lost one.
            up: Family::lazy(r, &c::REDIS_UP),
            errors: Family::eager(r, &c::REDIS_ERRORS),
            failovers: r.single(&c::REDIS_FAILOVERS),
            pubsub_dropped: Family::eager(r, &c::REDIS_PUBSUB_DROPPED),
            hub_time_error: r.single(&c::HUB_TIME_ERROR),
        }
    }

    /// A command or script was answered, or failed, `elapsed` after it was sent.
    pub fn observe(&self, command: RedisCommand, outcome: RedisOutcome, elapsed: Duration) {
        self.duration.with((command, outcome)).record(elapsed);
    }

    /// The store told the time, to within `bound`.
    pub fn set_hub_time_error(&self, bound: Duration) {
        self.hub_time_error.set(bound.as_secs_f64());
    }

    /// The connection for `role` answers (`true`) or does not.
    pub fn set_up(&self, role: RedisRole, up: bool) {
        self.up.with(role).set(u32::from(up));
    }
}
