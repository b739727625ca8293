//! Devices as `Sessions::get` and `list` show them: what is known of each, and walking a tenant's through
//! the partitions.

use std::collections::HashSet;

use redis::Value;
use roost_cluster::{Clock, DeviceRecord, NodeRef, SessionInfo, StoreError};
use roost_telemetry::metrics::labels::RedisCommand;
use roost_types::{DeviceId, DeviceKey, Partition, TenantId, UnixMillis};

use crate::error::corrupt;
use crate::reply::{Fields, Reply};
use crate::script::{self, Call};
use crate::sessions::{last_close, parse_node, session_id};
use crate::store::RedisStore;

/// How far a list has come: this partition up to this device.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    partition: Partition,
    after: Option<DeviceId>,
}

// === impl Place ===

impl Place {
    pub(crate) fn parse(token: Option<&str>) -> Result<Self, StoreError> {
        let Some(token) = token else {
            return Ok(Self { partition: Partition::new(0), after: None });
        };
        let parts = token.split_once('.').and_then(|(partition, device)| {
            let after = (!device.is_empty()).then(|| DeviceId::new(device));
            Some((partition.parse().ok()?, after.transpose().ok()?))
        });
        let (partition, after) = parts.ok_or_else(|| {
            StoreError::Invalid("this page token is not one of this hub's".into())
        })?;
        Ok(Self { partition: Partition::new(partition), after })
    }

    pub(crate) fn token(&self) -> String {
        let after = self.after.as_ref().map_or("", |device| device.as_str());
        format!("{}.{after}", self.partition.number())
    }
}

impl RedisStore {
    /// Up to `wanted` devices of a tenant from a place on, and the place after them.
    pub(crate) async fn walk(
        &self,
        tenant: &TenantId,
        place: Place,
        wanted: usize,
    ) -> Result<(Vec<DeviceKey>, Option<Place>), StoreError> {
        let counts = self.counts(tenant, place.partition).await?;
        let mut pipe = redis::pipe();
        let (mut asked, mut expected, mut rest) = (Vec::new(), 0, None);
        for (partition, count) in counts {
            let here = partition == place.partition;
            if expected > wanted {
                rest = Some(Place { partition, after: None });
                break;
            }
            if count == 0 {
                continue;
            }
            let from = match &place.after {
                Some(after) if here => format!("({after}"),
                _ => "-".into(),
            };
            pipe.cmd("ZRANGEBYLEX").arg(self.link.keys.devices(partition, tenant));
            pipe.arg(from).arg("+").arg("LIMIT").arg(0).arg(wanted + 1);
            asked.push(partition);
            // How many of the first partition are behind is not known; of the others all are ahead.
            expected += if here && place.after.is_some() { 0 } else { count };
        }
        let found = self.link.ask(RedisCommand::List, &mut pipe).await?;
        let mut walked: Vec<(Partition, DeviceKey)> = Vec::new();
        for (partition, members) in asked.into_iter().zip(found) {
            let mut members = Reply::new(members)?;
            while !members.is_done() {
                let device = DeviceId::new(members.text()?).map_err(corrupt)?;
                walked.push((partition, DeviceKey::new(tenant.clone(), device)));
            }
        }
        let more = walked.len() > wanted;
        walked.truncate(wanted);
        let last = walked.last().filter(|_| more).map(|(partition, key)| Place {
            partition: *partition,
            after: Some(key.device.clone()),
        });
        // Without `last` some vanished since they were counted; the walk goes on behind them.
        Ok((walked.into_iter().map(|(_, key)| key).collect(), last.or(rest)))
    }

    async fn counts(
        &self,
        tenant: &TenantId,
        from: Partition,
    ) -> Result<Vec<(Partition, usize)>, StoreError> {
        let partitions: Vec<_> = Partition::all().filter(|p| *p >= from).collect();
        let mut pipe = redis::pipe();
        for partition in &partitions {
            pipe.cmd("ZCARD").arg(self.link.keys.devices(*partition, tenant));
        }
        let found = self.link.ask(RedisCommand::List, &mut pipe).await?;
        let mut found = Reply::new(Value::Array(found))?;
        let count = |partition| {
            let count = found.number()?;
            Ok((partition, usize::try_from(count).unwrap_or(usize::MAX)))
        };
        partitions.into_iter().map(count).collect()
    }

    /// Takes devices that are known no more out of their tenant's list. Failing is harmless.
    pub(crate) async fn prune(&self, keys: &[DeviceKey], records: &[Option<DeviceRecord>]) {
        let stale = keys.iter().zip(records).filter(|(_, record)| record.is_none());
        let call = |key: &DeviceKey| {
            let base = self.link.keys.base(Partition::of(key));
            Call::new(self.link.keys.session(key), &base, self.link.not_after())
                .arg(key.tenant.as_str())
                .arg(key.device.as_str())
        };
        let calls: Vec<Call> = stale.map(|(key, _)| call(key)).collect();
        if let Err(error) = self.link.run_all(&script::PRUNE, &calls).await {
            tracing::debug!(%error, "could not prune forgotten devices");
        }
    }

    /// What is known of devices, in their order.
    pub(crate) async fn records(
        &self,
        keys: Vec<DeviceKey>,
    ) -> Result<Vec<Option<DeviceRecord>>, StoreError> {
        let mut pipe = redis::pipe();
        for key in &keys {
            pipe.cmd("HGETALL").arg(self.link.keys.session(key));
            pipe.cmd("ZCARD").arg(self.link.keys.unfinished(key));
        }
        let mut found = self.link.ask(RedisCommand::Lookup, &mut pipe).await?.into_iter();
        let mut records = Vec::with_capacity(keys.len());
        for key in keys {
            let (Some(fields), Some(pending)) = (found.next(), found.next()) else {
                return Err(corrupt("Redis answered too little"));
            };
            let pending = Reply::new(Value::Array(vec![pending]))?.number()?;
            records.push(record(key, Fields::new(fields)?, pending)?);
        }
        self.judge_liveness(&mut records).await?;
        Ok(records)
    }

    /// Takes out sessions whose node's lease is over.
    async fn judge_liveness(&self, records: &mut [Option<DeviceRecord>]) -> Result<(), StoreError> {
        let now = self.link.clock.now();
        let node =
            |record: &Option<DeviceRecord>| Some(record.as_ref()?.session.as_ref()?.node.clone());
        let nodes: HashSet<NodeRef> = records.iter().filter_map(node).collect();
        if nodes.is_empty() {
            return Ok(());
        }
        let mut live = self.liveness(false).await?;
        if !nodes.iter().all(|node| live.is_live(node, now)) {
            // It may have joined, or renewed, since the last look.
            live = self.liveness(true).await?;
        }
        for record in records.iter_mut().flatten() {
            let gone = record.session.take_if(|session| !live.is_live(&session.node, now));
            if record.session.is_some() {
                record.last_seen = now;
            } else if let Some(gone) = gone {
                record.last_seen = record.last_seen.max(gone.connected_at);
            }
        }
        Ok(())
    }
}

fn record(
    device: DeviceKey,
    mut fields: Fields,
    pending: u64,
) -> Result<Option<DeviceRecord>, StoreError> {
    if fields.is_empty() {
        return Ok(None);
    }
    let session = session(&mut fields)?;
    let ended: Option<u64> = fields.parse("l")?;
    let last_close = match ended {
        Some(time) => Some(last_close(&mut fields, UnixMillis(time))?),
        None => None,
    };
    let last_seen = UnixMillis(ended.unwrap_or_default());
    Ok(Some(DeviceRecord { device, session, last_seen, last_close, pending }))
}

fn session(fields: &mut Fields) -> Result<Option<SessionInfo>, StoreError> {
    let Some(id) = fields.text("i")? else {
        return Ok(None);
    };
    let node = fields.needed_text("n")?;
    Ok(Some(SessionInfo {
        session: session_id(&id)?,
        node: parse_node(node, &fields.needed_text("g")?)?,
        protocol: fields.needed_text("p")?.into(),
        address: fields.needed_text("a")?.into(),
        connected_at: UnixMillis(fields.needed("c")?),
    }))
}
