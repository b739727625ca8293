//! What an error of the redis client means to a caller: was it done, may it be retried. The one place
//! that decides.

use redis::{RedisError, ServerErrorKind};
use roost_cluster::StoreError;
use roost_telemetry::metrics::labels::{RedisErrorKind, RedisOutcome};

/// Why a node could not join its Redis.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The URL is not one.
    #[error(
        "the Redis URL is not valid, it should look like redis://host:6379/0, \
         redis-sentinel://host:26379,host/MASTER or redis-cluster://host:6379,host: {0}"
    )]
    Url(String),
    /// Certificates or keys for TLS cannot be used.
    #[error("TLS to Redis cannot be set up: {0}")]
    Tls(String),
    /// The user, its password or its rights are not enough.
    #[error("Redis refuses this user: {0}; `roost redis acl` prints the rule that it needs")]
    Denied(String),
    /// A replica, where a master is needed.
    #[error(
        "{address} is a replica; give its master's address, or redis-sentinel:// to have it found"
    )]
    Replica {
        /// Which server.
        address: String,
    },
    /// The URL is for another arrangement of servers than this one.
    #[error("{address} {what}")]
    Arrangement {
        /// Which server.
        address: String,
        /// What it is, and what URL is for that.
        what: String,
    },
    /// The server cannot do what the durability asked for needs.
    #[error("redis.durability \"fsync\" needs WAITAOF, hence Redis 7.2 or newer; this is {found}")]
    Durability {
        /// What it says it is.
        found: String,
    },
    /// The key prefix has characters that would break the key layout.
    #[error("the key prefix {0:?} is not valid; it needs 1 to 64 characters of A-Z a-z 0-9 . _ -")]
    Prefix(String),
    /// Nobody answers there, or not as Redis does.
    #[error("Redis cannot be used: {0}")]
    Unreachable(String),
    /// Too old.
    #[error("Redis {found} is too old; 7.0 or newer is needed")]
    Version {
        /// What it says it is.
        found: String,
    },
    /// It may drop keys when memory runs short.
    #[error(
        "Redis may evict keys (maxmemory-policy is {policy}), which would lose commands and sessions; \
         set maxmemory-policy to noeviction"
    )]
    Eviction {
        /// The policy found.
        policy: String,
    },
    /// The data there was written for another layout.
    #[error(
        "the data under this prefix has {found}, this version needs {needed}; \
         use another prefix or the version that wrote it"
    )]
    Layout {
        /// What the data has.
        found: String,
        /// What this version needs.
        needed: String,
    },
}

// === impl StartError ===

impl StartError {
    /// Whether it may be otherwise in a moment, with nothing changed here: worth another try.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Replica { .. })
    }
}

/// What an error says of a server that is being connected to.
pub(crate) fn refused(who: impl std::fmt::Display, error: &RedisError) -> StartError {
    let denied = error.kind() == redis::ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
    let text = format!("{who}: {error}");
    if error.to_string().contains("cluster support disabled") {
        let what = "is no node of a cluster: write redis:// (or rediss://)".to_owned();
        return StartError::Arrangement { address: who.to_string(), what };
    }
    if error.to_string().contains("unknown command 'SENTINEL'") {
        let what = "is no sentinel: name the sentinels (port 26379 by custom), or write redis:// \
                    (or rediss://) for the Redis itself"
            .to_owned();
        return StartError::Arrangement { address: who.to_string(), what };
    }
    if denied { StartError::Denied(text) } else { StartError::Unreachable(text) }
}

/// What an error means, how it is counted, and whether the connection is to be looked at.
pub(crate) struct Verdict {
    pub(crate) error: StoreError,
    pub(crate) outcome: RedisOutcome,
    pub(crate) kind: RedisErrorKind,
    pub(crate) suspect: bool,
}

/// Judges the error of a command that was given to a connection.
pub(crate) fn judge(error: &RedisError) -> Verdict {
    if error.is_timeout() {
        return Verdict {
            error: StoreError::Indeterminate("Redis did not answer in time".into()),
            outcome: RedisOutcome::Timeout,
            kind: RedisErrorKind::Timeout,
            suspect: true,
        };
    }
    if error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error() {
        return Verdict {
            error: StoreError::Indeterminate(format!("the connection broke: {error}")),
            outcome: RedisOutcome::Connection,
            kind: RedisErrorKind::Connection,
            suspect: true,
        };
    }
    let kind = RedisErrorKind::from_code(error.code());
    // The master may be one no longer.
    let suspect = matches!(error.code(), Some("READONLY" | "MASTERDOWN" | "LOADING"));
    Verdict { error: judge_answer(error), outcome: RedisOutcome::Error, kind, suspect }
}

/// An error that Redis answered with: it has done nothing, since every script is refused whole.
fn judge_answer(error: &RedisError) -> StoreError {
    let text = error.to_string();
    match error.code() {
        Some("OOM") => StoreError::Full("Redis has reached its maxmemory".into()),
        Some(
            "LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MISCONF" | "BUSY"
            | "NOREPLICAS" | "NOAUTH" | "NOPERM" | "WRONGPASS" | "MOVED" | "ASK" | "NOSCRIPT",
        ) => StoreError::NotSent(format!("Redis refused: {text}")),
        _ => StoreError::Corrupt(text),
    }
}

/// Whether the script has to be sent in full.
pub(crate) fn is_no_script(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Something stored or answered that makes no sense.
pub(crate) fn corrupt(what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(what.to_string())
}
