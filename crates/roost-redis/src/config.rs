//! How to reach Redis. What is kept there, and for how long, is in `StoreSettings`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use roost_cluster::Durability;
use roost_telemetry::Telemetry;
use roost_telemetry::metrics::RedisMetrics;

/// How to reach Redis.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://[user:password@]host:port/db`, `redis-sentinel://…host:port,host:port/MASTER[/db]` or
    /// `redis-cluster://…host:port,host:port`; `rediss…` for TLS.
    pub url: String,
    /// Who signed the servers' certificates (PEM). Not set: whom the system trusts.
    pub ca_file: Option<PathBuf>,
    /// What proves us to the servers (PEM), with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The key to `cert_file` (PEM).
    pub key_file: Option<PathBuf>,
    /// Who we are to sentinels; the URL's user is for the masters.
    pub sentinel_user: Option<String>,
    /// The password for sentinels.
    pub sentinel_password: Option<String>,
    /// What an accepted command is to be worth: `Memory`, `Replicated` or `Fsync`.
    pub durability: Durability,
    /// How many replicas are to confirm, above `Memory`.
    pub replicas: u32,
    /// How long that may take; then what was done is worth no more than `Memory`.
    pub wait_timeout: Duration,
    /// What all keys and channels start with; hubs with different prefixes share a Redis unnoticed.
    pub prefix: String,
    /// How long an answer may take. Below 1 s, so that a caller is told within 1 s.
    pub response_timeout: Duration,
    /// How long a connection may take until it answers, and a PING at any time.
    pub connect_timeout: Duration,
    /// How long Redis may take to confirm a channel. Below 1 s, as the answer's.
    pub confirm_timeout: Duration,
    /// How long a wildcard's declaration waits for the slowest node; one that is later misses a little.
    pub wildcard_timeout: Duration,
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
            ca_file: None,
            cert_file: None,
            key_file: None,
            sentinel_user: None,
            sentinel_password: None,
            durability: Durability::Memory,
            replicas: 1,
            wait_timeout: Duration::from_millis(500),
            prefix: "roost".into(),
            response_timeout: Duration::from_millis(700),
            connect_timeout: Duration::from_millis(500),
            confirm_timeout: Duration::from_millis(900),
            wildcard_timeout: Duration::from_secs(1),
            write_validity: Duration::from_secs(1),
            metrics: Telemetry::noop().redis,
        }
    }
}

impl RedisConfig {
    /// Whether a text is a URL that a hub understands; the error says what is wrong with it.
    pub fn check_url(url: &str) -> Result<(), crate::StartError> {
        crate::target::Target::check(url)
    }
}

impl fmt::Debug for RedisConfig {
    /// Without the URL, which may hold a password, and without that for sentinels.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("prefix", &self.prefix)
            .field("durability", &self.durability)
            .field("response_timeout", &self.response_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}
