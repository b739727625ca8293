//! How to reach Redis. What is kept there, and for how long, is in `StoreSettings`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use roost_telemetry::Telemetry;
use roost_telemetry::metrics::RedisMetrics;

/// How to reach Redis.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://[user:password@]host:port/db`.
    pub url: String,
    /// What all keys and channels start with; hubs with different prefixes share a Redis unnoticed.
    pub prefix: String,
    /// How long an answer may take. Below 1 s, so that a caller is told within 1 s.
    pub response_timeout: Duration,
    /// How long a connection may take until it answers.
    pub connect_timeout: Duration,
    /// How long after it was sent a write may still be executed.
    pub write_validity: Duration,
    /// Where to count.
    pub metrics: Arc<RedisMetrics>,
}

// === impl RedisConfig ===

impl RedisConfig {
    /// The defaults for a Redis at this URL; counts nothing.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "roost".into(),
            response_timeout: Duration::from_millis(700),
            connect_timeout: Duration::from_millis(500),
            write_validity: Duration::from_secs(1),
            metrics: Telemetry::noop().redis,
        }
    }
}

impl fmt::Debug for RedisConfig {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("prefix", &self.prefix)
            .field("response_timeout", &self.response_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}
