//! The Redis of a run, however it is arranged, and the sessions that its scripts wrote down: each device
//! has a list of what happened to it, in the order of the scripts. See `keys.rs` of `roost-redis`.

use anyhow::Context as _;
use roost_checker::{Event, Kind};
use roost_testredis::{RedisCluster, RedisReplicated, RedisSentinel, RedisServer, slot_of};
use roost_types::{CommandState, DeviceKey, Partition};

use crate::journal::Journal;
use crate::names::Name;

/// Redis, as a scenario needs it.
#[derive(Debug)]
pub enum Store {
    /// One server.
    Single(RedisServer),
    /// A master with replicas behind one address.
    Replicated(RedisReplicated),
    /// The same under sentinels.
    Sentinel(RedisSentinel),
    /// A cluster.
    Cluster(RedisCluster),
}

/// States by the number that scripts have for them.
const STATES: [CommandState; 11] = [
    CommandState::Queued,
    CommandState::Dispatched,
    CommandState::Sent,
    CommandState::Received,
    CommandState::Running,
    CommandState::Succeeded,
    CommandState::Failed,
    CommandState::Rejected,
    CommandState::Expired,
    CommandState::Cancelled,
    CommandState::Dead,
];

// === impl Store ===

impl Store {
    /// Where the hub finds it.
    pub fn url(&self) -> String {
        match self {
            Self::Single(redis) => redis.url(),
            Self::Replicated(redis) => redis.url(),
            Self::Sentinel(redis) => redis.url(),
            Self::Cluster(redis) => redis.url(),
        }
    }

    /// The one server that it is.
    ///
    /// # Panics
    /// If it is another arrangement.
    pub fn single(&mut self) -> &mut RedisServer {
        match self {
            Self::Single(redis) => redis,
            other => panic!("this scenario needs one server and not {other:?}"),
        }
    }

    /// The master and its replicas.
    ///
    /// # Panics
    /// If it is another arrangement.
    pub fn replicated(&mut self) -> &mut RedisReplicated {
        match self {
            Self::Replicated(redis) => redis,
            other => panic!("this scenario needs replicas and not {other:?}"),
        }
    }

    /// The servers under sentinels.
    ///
    /// # Panics
    /// If it is another arrangement.
    pub fn sentinel(&mut self) -> &mut RedisSentinel {
        match self {
            Self::Sentinel(redis) => redis,
            other => panic!("this scenario needs sentinels and not {other:?}"),
        }
    }

    /// The cluster.
    ///
    /// # Panics
    /// If it is another arrangement.
    pub fn cluster(&mut self) -> &mut RedisCluster {
        match self {
            Self::Cluster(redis) => redis,
            other => panic!("this scenario needs a cluster and not {other:?}"),
        }
    }

    /// The server that has a key.
    pub async fn server_of(&mut self, key: &str) -> anyhow::Result<&RedisServer> {
        Ok(match self {
            Self::Single(redis) => redis,
            Self::Replicated(redis) => redis.master(),
            Self::Sentinel(redis) => {
                let master = redis.master().await?;
                redis.server(master)
            }
            Self::Cluster(redis) => {
                let owner = redis.owner(slot_of(key)).await?;
                redis.node(owner)
            }
        })
    }

    /// Writes what the scripts noted of a device's sessions into the history. Gives whether all of it was
    /// there: a list is cut at `kept` entries, and one that was cut says nothing.
    pub async fn note_sessions(
        &mut self,
        name: &Name,
        journal: &Journal,
        kept: usize,
    ) -> anyhow::Result<bool> {
        let key = timeline_key(&name.key());
        let server = self.server_of(&key).await?;
        let entries = server.query(&["LRANGE", &key, "0", "-1"]).await?.into_texts();
        if entries.len() >= kept {
            return Ok(false);
        }
        for (place, entry) in entries.iter().enumerate() {
            let fields = fields(entry).with_context(|| format!("{key} has an entry {entry:?}"))?;
            note(name, &fields, place, journal);
        }
        Ok(true)
    }
}

/// `roost:1:{pN}:y:<len>:<tenant>:<len>:<device>`.
pub fn timeline_key(device: &DeviceKey) -> String {
    key_of(device, "y")
}

/// A key of this kind that belongs to a device.
pub fn key_of(device: &DeviceKey, kind: &str) -> String {
    let partition = Partition::of(device);
    let (tenant, id) = (device.tenant.as_str(), device.device.as_str());
    format!("roost:1:{{{partition}}}:{kind}:{}:{tenant}:{}:{id}", tenant.len(), id.len())
}

/// `<len>:<field>` again and again.
fn fields(mut entry: &str) -> Option<Vec<&str>> {
    let mut fields = vec![];
    while !entry.is_empty() {
        let (len, rest) = entry.split_once(':')?;
        let (field, rest) = rest.split_at_checked(len.parse().ok()?)?;
        fields.push(field);
        entry = rest;
    }
    Some(fields)
}

/// Time, kind, and what belongs to it: `C session node …`, `T session node incarnation protocol address
/// replaced`, `R session node incarnation replaced`, `D session …`, `X command state session`.
fn note(name: &Name, fields: &[&str], place: usize, journal: &Journal) {
    let [time, kind, first, rest @ ..] = fields else { return };
    let field = |index: usize| rest.get(index).copied().unwrap_or_default();
    let event = |kind| name.event(kind).session(first).pos(place as u64);
    let event = match *kind {
        "C" => event(Kind::Claimed),
        "T" => Event { replaced: field(4).into(), ..event(Kind::Claimed) },
        "R" => Event { replaced: field(2).into(), ..event(Kind::Reclaimed) },
        "D" => event(Kind::Released),
        "X" => {
            let state = field(0).parse::<usize>().ok().and_then(|state| STATES.get(state));
            let session = field(1);
            // What ends or is queued by itself is no session's doing.
            let Some(state) = state.filter(|_| !session.is_empty()) else { return };
            let event = name.event(Kind::Apply).session(session).pos(place as u64);
            event.command(first).state(*state)
        }
        _ => return,
    };
    journal.add_at(event, time.parse().unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_the_scripts_write_them() {
        assert_eq!(fields("2:991:X2:c11:5"), Some(vec!["99", "X", "c1", "5"]));
        assert_eq!(fields("0:1:a"), Some(vec!["", "a"]));
        assert_eq!(fields("3:ab"), None);
        let key = timeline_key(&Name::extra("thermo-1").key());
        assert_eq!(key, "roost:1:{p129}:y:7:default:8:thermo-1");
    }
}
