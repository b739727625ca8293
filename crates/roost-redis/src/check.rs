//! What is looked at when a connection is made: that this is a Redis that can be relied on, that its
//! data has our layout, and what time it is.

use std::collections::HashMap;
use std::time::Duration;

use redis::Value;
use redis::aio::MultiplexedConnection;
use roost_cluster::{Clock, Durability};
use roost_types::{PARTITIONS, UnixMillis};
use tokio::time::Instant;

use crate::config::RedisConfig;
use crate::error::{StartError, refused};
use crate::keys::{Keys, LAYOUT};
use crate::target::Address;

/// Masters whose clocks differ by more are told about: a write is refused a second after it was sent.
const APART: Duration = Duration::from_millis(300);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// A random number that is new whenever the data is; `None` of a master that does not keep it.
    pub(crate) epoch: Option<u64>,
    /// The master's replication id: another one is another master, or one that lost its history.
    pub(crate) replid: Option<String>,
    /// When the time was asked for, and what it was.
    pub(crate) asked: Instant,
    pub(crate) time: UnixMillis,
}

/// A look at one server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look<'a> {
    pub(crate) address: &'a Address,
    pub(crate) config: &'a RedisConfig,
}

/// How a server is set up, as far as it tells.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    pub(crate) info: String,
    /// By CONFIG GET; empty without the right to ask.
    pub(crate) config: HashMap<String, String>,
}

// === impl Look ===

impl Look<'_> {
    /// Looks; an error says what is wrong and what would be right.
    pub(crate) async fn facts(
        &self,
        connection: &mut MultiplexedConnection,
        keys: &Keys,
    ) -> Result<Facts, StartError> {
        let wrong = |error: redis::RedisError| refused(self.address, &error);
        let asked = Instant::now();
        let (seconds, micros): (u64, u64) =
            redis::cmd("TIME").query_async(connection).await.map_err(wrong)?;
        // Half the way back.
        let time = UnixMillis(seconds * 1_000 + micros / 1_000);
        let info: String = redis::cmd("INFO").query_async(connection).await.map_err(wrong)?;
        judge_info(&info, self.address, self.config.durability)?;
        judge_arrangement(&info, self.address, &self.config.url)?;
        let replid = line(&info, "master_replid").map(str::to_owned);
        let epoch = match meta(connection, keys).await {
            Ok(epoch) => Some(epoch?),
            // In a cluster one master keeps it.
            Err(error) if matches!(error.code(), Some("MOVED" | "ASK" | "TRYAGAIN")) => None,
            Err(error) => return Err(wrong(error)),
        };
        Ok(Facts { epoch, replid, asked, time })
    }

    /// Says, once, what its restart or its failover would lose of what is promised.
    pub(crate) async fn warn(&self, connection: &mut MultiplexedConnection) {
        let Ok(setup) = Setup::read(connection).await else {
            // A user without the right to ask: nothing is known, nothing is said.
            return;
        };
        for lack in setup.lacks(self.config.durability, self.config.replicas) {
            tracing::warn!(server = %self.address, "{lack}");
        }
    }
}

// === impl Setup ===

impl Setup {
    pub(crate) async fn read(connection: &mut MultiplexedConnection) -> redis::RedisResult<Self> {
        let info: String = redis::cmd("INFO").query_async(connection).await?;
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET");
        for name in [
            "save",
            "appendonly",
            "appendfsync",
            "min-replicas-to-write",
            "client-output-buffer-limit",
        ] {
            ask.arg(name);
        }
        let config = ask.query_async(connection).await.unwrap_or_default();
        Ok(Self { info, config })
    }

    pub(crate) fn line(&self, name: &str) -> Option<&str> {
        line(&self.info, name)
    }

    pub(crate) fn config(&self, name: &str) -> Option<&str> {
        self.config.get(name).map(String::as_str)
    }

    /// What is missing for what is promised, each with what to do.
    pub(crate) fn lacks(&self, durability: Durability, replicas: u32) -> Vec<String> {
        let mut lacks = Vec::new();
        let appends = self.line("aof_enabled") == Some("1");
        let saves = self.config("save").is_none_or(|save| !save.is_empty());
        if !appends && !saves {
            lacks.push(
                "this Redis keeps nothing on disk: its restart loses sessions and accepted \
                 commands; set appendonly yes, or save"
                    .to_owned(),
            );
        }
        if durability == Durability::Fsync && !appends {
            lacks.push("redis.durability is \"fsync\" and there is no append-only file: set appendonly yes".to_owned());
        }
        let follow: u32 =
            self.line("connected_slaves").and_then(|text| text.parse().ok()).unwrap_or(0);
        let needs_copies = matches!(durability, Durability::Replicated | Durability::Fsync);
        if needs_copies && follow < replicas {
            lacks.push(format!(
                "redis.durability waits for {replicas} replicas and {follow} are connected: every \
                 durable write will be answered as if it were not"
            ));
        }
        let needed = self.config("min-replicas-to-write").and_then(|text| text.parse::<u32>().ok());
        if durability == Durability::Replicated && needed == Some(0) {
            lacks.push(
                "a master that lost its replicas goes on accepting writes, which its failover then \
                 loses: set min-replicas-to-write 1"
                    .to_owned(),
            );
        }
        lacks
    }
}

/// How far a master's clock is from hub time, if it is too far.
pub(crate) fn apart(clock: &dyn Clock, facts: &Facts) -> Option<Duration> {
    // It was told at some moment since it was asked for: what lies in between is no difference.
    let since = facts.asked.elapsed();
    let (now, told) = (clock.now().0, facts.time.0);
    let behind = Duration::from_millis(now.saturating_sub(told)).saturating_sub(since);
    let ahead = Duration::from_millis(told.saturating_sub(now));
    let apart = behind.max(ahead);
    (apart > APART).then_some(apart)
}

/// The value of a line of INFO.
pub(crate) fn line<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

/// Major and minor version.
fn version(info: &str) -> Option<(u32, u32)> {
    // Valkey says there which Redis it is like.
    let mut parts = line(info, "redis_version")?.split('.').map(str::parse);
    let part = |part: Option<Result<u32, _>>| part?.ok();
    Some((part(parts.next())?, part(parts.next()).unwrap_or(0)))
}

/// Whether it knows WAITAOF. Valkey 8 and later do; they call themselves Redis 7.2.
pub(crate) fn has_waitaof(info: &str) -> bool {
    version(info).is_none_or(|found| found >= (7, 2))
}

pub(crate) fn judge_info(
    info: &str,
    address: &Address,
    durability: Durability,
) -> Result<(), StartError> {
    let found = line(info, "redis_version").unwrap_or("unknown").to_owned();
    if version(info).is_some_and(|version| version < (7, 0)) {
        return Err(StartError::Version { found });
    }
    if durability == Durability::Fsync && !has_waitaof(info) {
        return Err(StartError::Durability { found });
    }
    if line(info, "loading") == Some("1") {
        return Err(StartError::Unreachable(format!("{address} is still loading its data")));
    }
    if line(info, "role") == Some("slave") {
        return Err(StartError::Replica { address: address.to_string() });
    }
    let bounded = line(info, "maxmemory").is_some_and(|bytes| bytes != "0");
    if let Some(policy) = line(info, "maxmemory_policy")
        && bounded
        && policy != "noeviction"
    {
        let policy = policy.to_owned();
        return Err(StartError::Eviction { policy });
    }
    Ok(())
}

/// A node of a cluster has only some of the keys: it must be known to be one.
pub(crate) fn judge_arrangement(
    info: &str,
    address: &Address,
    url: &str,
) -> Result<(), StartError> {
    let for_cluster = url.split("://").next().is_some_and(|scheme| scheme.ends_with("-cluster"));
    if line(info, "cluster_enabled") == Some("1") && !for_cluster {
        let what =
            "is a node of a cluster: write redis-cluster:// (or rediss-cluster://)".to_owned();
        return Err(StartError::Arrangement { address: address.to_string(), what });
    }
    Ok(())
}

/// Checks the layout, or sets it for a hub that starts with no data. Gives the epoch.
async fn meta(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
) -> redis::RedisResult<Result<u64, StartError>> {
    let mut read = redis::cmd("HMGET");
    read.arg(keys.meta()).arg("partitions").arg("layout").arg("epoch");
    let mut found: Vec<Value> = read.query_async(connection).await?;
    if found.contains(&Value::Nil) {
        let epoch = getrandom::u32().unwrap_or(0);
        let mut write = redis::pipe();
        for (name, value) in
            [("partitions", u64::from(PARTITIONS)), ("layout", LAYOUT), ("epoch", u64::from(epoch))]
        {
            write.cmd("HSETNX").arg(keys.meta()).arg(name).arg(value).ignore();
        }
        write.exec_async(connection).await?;
        found = read.query_async(connection).await?;
    }
    let number = |value: &Value| redis::from_redis_value_ref::<u64>(value).ok();
    let (partitions, layout, epoch) = match found.as_slice() {
        [partitions, layout, epoch] => (number(partitions), number(layout), number(epoch)),
        _ => (None, None, None),
    };
    let show = |n: Option<u64>| n.map_or("none".to_owned(), |n| n.to_string());
    if partitions != Some(u64::from(PARTITIONS)) || layout != Some(LAYOUT) {
        return Ok(Err(StartError::Layout {
            found: format!("{} partitions in layout {}", show(partitions), show(layout)),
            needed: format!("{PARTITIONS} partitions in layout {LAYOUT}"),
        }));
    }
    Ok(Ok(epoch.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfit_servers_are_named() {
        let judge = |info: &str, durability| judge_info(info, &Address::new("a", 1), durability);
        let memory = |info: &str| judge(info, Durability::Memory);
        let good = "redis_version:7.0.15\r\nrole:master\r\nloading:0\r\nmaxmemory:100\r\nmaxmemory_policy:noeviction\r\n";
        assert_eq!(memory(good), Ok(()));
        let evicting = good.replace("noeviction", "allkeys-lru");
        assert_eq!(memory(&evicting), Err(StartError::Eviction { policy: "allkeys-lru".into() }));
        assert_eq!(memory(&evicting.replace("maxmemory:100", "maxmemory:0")), Ok(()));
        let old = good.replace("7.0.15", "6.2.1");
        assert_eq!(memory(&old), Err(StartError::Version { found: "6.2.1".into() }));
        let replica = good.replace("role:master", "role:slave");
        assert_eq!(memory(&replica), Err(StartError::Replica { address: "a:1".into() }));
        let loading = memory(&good.replace("loading:0", "loading:1"));
        assert!(matches!(loading, Err(StartError::Unreachable(_))), "{loading:?}");
        assert_eq!(judge(good, Durability::Replicated), Ok(()));
        let fsync = judge(good, Durability::Fsync);
        assert_eq!(fsync, Err(StartError::Durability { found: "7.0.15".into() }));
        assert_eq!(judge(&good.replace("7.0.15", "7.2.4"), Durability::Fsync), Ok(()));
    }

    #[test]
    fn what_is_missing_for_a_promise_is_said() {
        let setup = |info: &str, config: &[(&str, &str)]| Setup {
            info: info.to_owned(),
            config: config.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
        };
        let bare = setup(
            "aof_enabled:0\r\nconnected_slaves:0\r\n",
            &[("save", ""), ("min-replicas-to-write", "0")],
        );
        assert_eq!(bare.lacks(Durability::Memory, 1).len(), 1);
        assert_eq!(bare.lacks(Durability::Replicated, 1).len(), 3);
        let whole = setup(
            "aof_enabled:1\r\nconnected_slaves:2\r\n",
            &[("save", ""), ("min-replicas-to-write", "1")],
        );
        assert_eq!(whole.lacks(Durability::Replicated, 2), [""; 0]);
        assert_eq!(
            setup("aof_enabled:0\r\n", &[]).lacks(Durability::Memory, 1),
            [""; 0],
            "not known"
        );
    }
}
