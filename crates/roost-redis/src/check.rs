//! What is looked at when a connection is made: that this is a Redis that can be relied on, that its
//! data has our layout, and what time it is.

use redis::Value;
use redis::aio::MultiplexedConnection;
use roost_cluster::HubClock;
use roost_types::{PARTITIONS, UnixMillis};
use tokio::time::Instant;

use crate::error::StartError;
use crate::keys::{Keys, LAYOUT};

/// What was found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// A random number that is new whenever the data is.
    pub(crate) epoch: u64,
    /// The master's replication id: another one is another master, or one that lost its history.
    pub(crate) replid: Option<String>,
}

/// Looks; an error says what is wrong and what would be right.
pub(crate) async fn check(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    clock: &HubClock,
) -> Result<Facts, StartError> {
    let asked = Instant::now();
    let (seconds, micros): (u64, u64) =
        redis::cmd("TIME").query_async(connection).await.map_err(|error| unreachable(&error))?;
    clock.set(asked, UnixMillis(seconds * 1_000 + micros / 1_000));
    let info: String =
        redis::cmd("INFO").query_async(connection).await.map_err(|error| unreachable(&error))?;
    judge_info(&info)?;
    let epoch = meta(connection, keys).await?;
    let replid = line(&info, "master_replid").map(str::to_owned);
    Ok(Facts { epoch, replid })
}

/// Says so, once, where a restart of Redis loses what was accepted.
pub(crate) async fn warn_without_persistence(connection: &mut MultiplexedConnection) {
    let mut found = Vec::new();
    for name in ["save", "appendonly"] {
        let answer = redis::cmd("CONFIG").arg("GET").arg(name).query_async(connection).await;
        let Ok([_, value]) = answer.map(|pair: [String; 2]| pair) else {
            // A user without the right to ask: nothing is known, nothing is said.
            return;
        };
        found.push(value);
    }
    if found == ["", "no"] {
        tracing::warn!(
            "this Redis keeps nothing on disk: its restart loses sessions and accepted commands"
        );
    }
}

fn unreachable(error: &redis::RedisError) -> StartError {
    StartError::Unreachable(error.to_string())
}

/// The value of a line of INFO.
fn line<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

fn judge_info(info: &str) -> Result<(), StartError> {
    let version = line(info, "redis_version").unwrap_or("unknown");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major < 7) {
        let found = version.to_owned();
        return Err(StartError::Version { found });
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

/// Checks the layout, or sets it for a hub that starts with no data. Gives the epoch.
async fn meta(connection: &mut MultiplexedConnection, keys: &Keys) -> Result<u64, StartError> {
    let mut read = redis::cmd("HMGET");
    read.arg(keys.meta()).arg("partitions").arg("layout").arg("epoch");
    let mut found: Vec<Value> =
        read.query_async(connection).await.map_err(|error| unreachable(&error))?;
    if found.contains(&Value::Nil) {
        let epoch = getrandom::u32().unwrap_or(0);
        let mut write = redis::pipe();
        for (name, value) in
            [("partitions", u64::from(PARTITIONS)), ("layout", LAYOUT), ("epoch", u64::from(epoch))]
        {
            write.cmd("HSETNX").arg(keys.meta()).arg(name).arg(value).ignore();
        }
        write.exec_async(connection).await.map_err(|error| unreachable(&error))?;
        found = read.query_async(connection).await.map_err(|error| unreachable(&error))?;
    }
    let number = |value: &Value| redis::from_redis_value_ref::<u64>(value).ok();
    let (partitions, layout, epoch) = match found.as_slice() {
        [partitions, layout, epoch] => (number(partitions), number(layout), number(epoch)),
        _ => (None, None, None),
    };
    let show = |n: Option<u64>| n.map_or("none".to_owned(), |n| n.to_string());
    if partitions != Some(u64::from(PARTITIONS)) || layout != Some(LAYOUT) {
        return Err(StartError::Layout {
            found: format!("{} partitions in layout {}", show(partitions), show(layout)),
            needed: format!("{PARTITIONS} partitions in layout {LAYOUT}"),
        });
    }
    Ok(epoch.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfit_servers_are_named() {
        let good = "redis_version:7.0.15\r\nmaxmemory:100\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n";
        assert_eq!(judge_info(good), Ok(()));
        let evicting = good.replace("noeviction", "allkeys-lru");
        assert_eq!(
            judge_info(&evicting),
            Err(StartError::Eviction { policy: "allkeys-lru".into() })
        );
        assert_eq!(judge_info(&evicting.replace("maxmemory:100", "maxmemory:0")), Ok(()));
        let old = good.replace("7.0.15", "6.2.1");
        assert_eq!(judge_info(&old), Err(StartError::Version { found: "6.2.1".into() }));
    }
}
