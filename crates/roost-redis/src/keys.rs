//! Where everything is kept in Redis. Every key starts `<prefix>:1:`, 1 being the layout's version,
//! followed by a hash tag: `{p0}` to `{p255}` for the partition of a device, `{nodes}` and `{wild}`
//! for what concerns all. All that concerns one device has one tag, so that one script can change it.
//!
//! A device is written `<len>:<tenant>:<len>:<device>` (below: `DEV`). Ids may contain colons; with
//! their lengths before them no two devices, and no device and command, give the same key.
//!
//! | key | type | TTL | written by | read by | why |
//! |---|---|---|---|---|---|
//! | `{pN}:s:DEV` | hash | none while connected, then the device retention | claim, release, revalidate, `end_node`, every dispatch and acknowledgement | get, list, every mailbox script | the session: `i` id, `n` node, `g` incarnation, `p` protocol, `a` address, `c` claimed at, `d` the greatest `seq` that is with this session; `b` the `seq` of the oldest unfinished command that was with a session when it was lost, until the device acknowledges one: while it is there the window is one; `t` takeovers as `since ms/count`, from the first of a row on; after the end `l` when, `k` code, `r` reason, `w` who. `d` goes with the session: what was with it is queued again by that alone |
//! | `{pN}:q:DEV` | sorted set | last expiry + retention | enqueue, finish | mailbox scripts, get | unfinished command ids by `seq`. In flight: up to `d`; queued: above. No counters that could drift |
//! | `{pN}:m:DEV` | string | as `q` | enqueue, finish | enqueue | payload bytes in `q`; gone when `q` is |
//! | `{pN}:c:DEV:<command>` | hash | expiry + retention, from the end on retention | mailbox scripts | mailbox scripts, list | the command: `b` body and `p` progress and `r` result (protobuf), `g` digest, `z` payload bytes, `x` expiry, `c` created, `q` seq, `s` state, `a` attempt, `o` session, `t` steps as `state@ms,…`, `w` waiting nodes, `v` revision, `m` most attempts where they are bounded, `l` the last late result (protobuf) and `k` how many there were and when the last came as `count@ms`, `n` the successor of a dead one |
//! | `{pN}:h:DEV` | sorted set | last expiry + retention | enqueue | list, enqueue | all kept command ids by `seq`; ids whose record is gone are dropped two at a time |
//! | `{pN}:y:DEV` | list, [`StoreSettings::history`](roost_cluster::StoreSettings) entries | none while connected, then the device retention; for a device never seen expiry + retention of its commands | whatever changes the session or a command's state, `note` | history | what happened to the device lately, the newest last: fields as `<len>:<text>`, see `history.rs` |
//! | `{pN}:z:<tenant>` | sorted set | last end + retention | read, settle, dead | dead | `DEV:<command>` of dead commands by the time of their end; those that are no more are dropped by who lists them, and when another dies |
//! | `{pN}:due` | sorted set | none | mailbox scripts | due | `DEV:<command>` by the next moment to look at it; one entry for each unfinished command |
//! | `{pN}:oldest` | string | 10 min | tally | tally | the oldest member of `due` that was found, where there are too many to look at all |
//! | `{pN}:n:<node>:<incarnation>` | set | none | claim, release | `end_node` | `DEV` of each session of a node: what to end when it dies |
//! | `{pN}:d:<tenant>` | sorted set, all scores 0 | none | claim, prune | list | device ids of a tenant; those that are forgotten are pruned by who lists them |
//! | `{pN}:ev` | stream, about 1,000 entries | none | whatever changes presence | watches | presence events: `e` kind, `d` DEV, `i` session, `n` node, `t` time, `k` `r` `w` as above |
//! | `{nodes}:o:<node>` | string | the lease | heartbeat | heartbeat | the incarnation that holds the name |
//! | `{nodes}:z` | sorted set | none | heartbeat, strike | nodes | `<node>#<incarnation>` by the end of its lease |
//! | `{nodes}:i:<node>#<incarnation>` | hash | 7 days | heartbeat | nodes | what the node says of itself |
//! | `{nodes}:turn:<job>` | string | the turn | turn | turn | whose turn it is |
//! | `{nodes}:shed` | string | 1 min | shed | shed | when the next device may be sent away, in µs of hub time: drains and rebalancing share one pace |
//! | `{wild}:v` | string | none | wild | wild, `wild_load` | version of the table of wildcard filters, a time in µs |
//! | `{wild}:owners` | set | none | wild | `wild_load` | nodes that have filters |
//! | `{wild}:f:<node>#<incarnation>` | set | none | wild | `wild_load` | `<len>:<tenant>:<filter>` |
//! | `meta` | hash | none | the first node | every node, at each connection | `partitions`, `layout`, and `epoch`, a random number that tells this data from later data |
//!
//! `nowhere` behind each hash tag never exists: every script names it as its second key, so that a cluster
//! refuses the script while their slot moves (`link/redirect.rs`).
//!
//! Channels: `node:<node>` for one node, `t:<len>:<tenant>:<topic>` for one topic, `wild` for changes
//! of the filter table, `presence` to ring for new events. In a cluster they are sharded channels, each
//! with the slot of its whole name.

use roost_types::{CommandId, DeviceId, DeviceKey, NodeId, Partition, TenantId, Topic};

use crate::error::StartError;

/// The version of this layout.
pub(crate) const LAYOUT: u64 = 1;

/// Builds keys and channel names.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// `<prefix>:1:`
    root: String,
}

// === impl Keys ===

impl Keys {
    pub(crate) fn new(prefix: &str) -> Result<Self, StartError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(allowed) {
            return Err(StartError::Prefix(prefix.to_owned()));
        }
        Ok(Self { root: format!("{prefix}:{LAYOUT}:") })
    }

    /// What a partition's keys start with: the `base` of its scripts.
    pub(crate) fn base(&self, partition: Partition) -> String {
        format!("{}{{{partition}}}:", self.root)
    }

    pub(crate) fn nodes(&self) -> String {
        format!("{}{{nodes}}:", self.root)
    }

    pub(crate) fn wild(&self) -> String {
        format!("{}{{wild}}:", self.root)
    }

    pub(crate) fn meta(&self) -> String {
        format!("{}meta", self.root)
    }

    pub(crate) fn events(&self, partition: Partition) -> String {
        format!("{}ev", self.base(partition))
    }

    pub(crate) fn session(&self, device: &DeviceKey) -> String {
        format!("{}s:{}", self.base(Partition::of(device)), dev(device))
    }

    pub(crate) fn unfinished(&self, device: &DeviceKey) -> String {
        format!("{}q:{}", self.base(Partition::of(device)), dev(device))
    }

    pub(crate) fn history(&self, device: &DeviceKey) -> String {
        format!("{}h:{}", self.base(Partition::of(device)), dev(device))
    }

    pub(crate) fn command(&self, device: &DeviceKey, id: &str) -> String {
        format!("{}c:{}:{id}", self.base(Partition::of(device)), dev(device))
    }

    pub(crate) fn devices(&self, partition: Partition, tenant: &TenantId) -> String {
        format!("{}d:{tenant}", self.base(partition))
    }

    pub(crate) fn timeline(&self, device: &DeviceKey) -> String {
        format!("{}y:{}", self.base(Partition::of(device)), dev(device))
    }

    pub(crate) fn dead(&self, partition: Partition, tenant: &TenantId) -> String {
        format!("{}z:{tenant}", self.base(partition))
    }

    pub(crate) fn node_channel(&self, node: &NodeId) -> String {
        format!("{}node:{node}", self.root)
    }

    pub(crate) fn topic_channel(&self, tenant: &TenantId, topic: &Topic) -> String {
        let len = tenant.as_str().len();
        format!("{}t:{len}:{tenant}:{topic}", self.root)
    }

    pub(crate) fn wild_channel(&self) -> String {
        format!("{}wild", self.root)
    }

    pub(crate) fn presence_channel(&self) -> String {
        format!("{}presence", self.root)
    }
}

/// `<len>:<tenant>:<len>:<device>`.
pub(crate) fn dev(device: &DeviceKey) -> String {
    let (tenant, device) = (device.tenant.as_str(), device.device.as_str());
    format!("{}:{tenant}:{}:{device}", tenant.len(), device.len())
}

/// Reads what [`dev`] wrote.
pub(crate) fn parse_dev(text: &str) -> Option<DeviceKey> {
    let (tenant, rest) = counted(text)?;
    let (device, rest) = counted(rest.strip_prefix(':')?)?;
    let key = DeviceKey::new(TenantId::new(tenant).ok()?, DeviceId::new(device).ok()?);
    rest.is_empty().then_some(key)
}

/// `<len>:<text>` and what follows.
pub(crate) fn counted(text: &str) -> Option<(&str, &str)> {
    let (len, rest) = text.split_once(':')?;
    let len: usize = len.parse().ok()?;
    (rest.is_char_boundary(len) && len <= rest.len()).then(|| rest.split_at(len))
}

/// Checks an id that was read from Redis.
pub(crate) fn command_id(text: &str) -> Result<CommandId, roost_cluster::StoreError> {
    CommandId::new(text).map_err(|error| crate::error::corrupt(format!("{text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(tenant: &str, device: &str) -> DeviceKey {
        DeviceKey::new(TenantId::new(tenant).unwrap(), DeviceId::new(device).unwrap())
    }

    #[test]
    fn no_id_can_forge_another_key() {
        let keys = Keys::new("roost").unwrap();
        let pairs =
            [("a:b", "c"), ("a", "b:c"), ("a", "b"), ("1:a", "b"), ("a", "1:b"), ("a:1:b", "~")];
        let mut seen = std::collections::HashSet::new();
        for (tenant, name) in pairs {
            let key = device(tenant, name);
            assert_eq!(parse_dev(&dev(&key)), Some(key.clone()));
            assert!(seen.insert(dev(&key)));
            assert!(seen.insert(keys.command(&key, "x:y")));
            assert!(seen.insert(keys.command(&key, "x")));
        }
        for bad in ["", "1:a", "1:a:1:", "9:a:1:b", "1:a:1:bc", "x:a:1:b", "1:é:1:b"] {
            assert_eq!(parse_dev(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_layout_is_pinned() {
        let keys = Keys::new("roost").unwrap();
        let key = device("default", "thermo-1");
        assert_eq!(keys.session(&key), "roost:1:{p129}:s:7:default:8:thermo-1");
        assert_eq!(keys.command(&key, "c1"), "roost:1:{p129}:c:7:default:8:thermo-1:c1");
        assert!(Keys::new("a{b}").is_err());
        assert!(Keys::new("").is_err());
    }
}
