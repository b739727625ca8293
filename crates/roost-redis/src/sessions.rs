//! The `Sessions` seam: claims, look-ups, lists. Watches are in `presence.rs`.

use std::collections::HashSet;

use async_trait::async_trait;
use redis::Value;
use roost_cluster::{
    Claimed, Clock, DeviceFilter, DeviceRecord, Initiator, LastClose, NodeRef, Page, PageRequest,
    PresenceItem, Revalidated, SessionClaim, SessionInfo, Sessions, StoreError,
};
use roost_telemetry::metrics::labels::RedisCommand;
use roost_types::{DeviceKey, NodeId, Partition, SessionId, TenantId, UnixMillis};
use tokio::sync::mpsc;

use crate::devices::Place;
use crate::error::corrupt;
use crate::presence;
use crate::reply::{Fields, Reply};
use crate::script::{self, Call};
use crate::store::{PARTITIONS_AT_ONCE, RedisStore, millis};

/// How many sessions of a dead node one script ends, so that none blocks Redis for long.
const END_BATCH: u64 = 50;
/// How many sessions are confirmed by one pipeline.
const REVALIDATE_BATCH: usize = 500;
/// How often a list may come back with too few items for its page and look further.
const LIST_ROUNDS: usize = 4;

#[async_trait]
impl Sessions for RedisStore {
    async fn claim(&self, claim: &SessionClaim) -> Result<Claimed, StoreError> {
        let bell = self.bell(Partition::of(&claim.device));
        let call = self.claim_call(claim);
        let mut answer = self.link.run_then(&script::CLAIM, &call, Some(bell)).await?;
        let pending = answer.rest.number()?;
        let replaced = match answer.rest.optional_text()? {
            Some(session) => Some((session_id(&session)?, node_ref(&mut answer.rest)?)),
            None => None,
        };
        Ok(Claimed { replaced, pending })
    }

    async fn release(
        &self,
        device: &DeviceKey,
        session: SessionId,
        close: &LastClose,
    ) -> Result<(), StoreError> {
        let call = self
            .call(device)
            .arg(session.to_string())
            .number(close.time.0)
            .number(u64::from(close.code))
            .arg(&*close.reason)
            .arg(close.initiator.as_str())
            .number(millis(self.settings.device_retention));
        let bell = self.bell(Partition::of(device));
        self.link.run_then(&script::RELEASE, &call, Some(bell)).await.map(drop)
    }

    async fn revalidate(&self, claims: &[SessionClaim]) -> Result<Vec<Revalidated>, StoreError> {
        let mut found = Vec::with_capacity(claims.len());
        for batch in claims.chunks(REVALIDATE_BATCH) {
            let calls: Vec<Call> = batch.iter().map(|claim| self.claim_call(claim)).collect();
            for answer in self.link.run_all(&script::REVALIDATE, &calls).await? {
                found.push(match answer?.tag.as_str() {
                    "KEPT" => Revalidated::Kept,
                    "RECLAIMED" => Revalidated::Reclaimed,
                    "LOST" => Revalidated::Lost,
                    other => return Err(corrupt(format!("revalidate answered {other:?}"))),
                });
            }
        }
        if found.contains(&Revalidated::Reclaimed) {
            self.ring().await;
        }
        Ok(found)
    }

    async fn get(&self, device: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        let mut found = self.records(vec![device.clone()]).await?;
        Ok(found.pop().flatten())
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &DeviceFilter,
        page: &PageRequest,
    ) -> Result<Page<DeviceRecord>, StoreError> {
        let mut place = Place::parse(page.token.as_deref())?;
        let mut items = Vec::new();
        let size = page.size.max(1);
        for _ in 0..LIST_ROUNDS {
            let wanted = size - items.len();
            let (keys, next) = self.walk(tenant, place, wanted).await?;
            let records = self.records(keys.clone()).await?;
            self.prune(&keys, &records).await;
            items.extend(records.into_iter().flatten().filter(|record| filter.accepts(record)));
            let Some(next) = next else {
                return Ok(Page { items, next: None });
            };
            place = next;
            if items.len() >= size {
                break;
            }
        }
        Ok(Page { items, next: Some(place.token()) })
    }

    async fn watch(
        &self,
        tenant: &TenantId,
        cursor: Option<&str>,
    ) -> Result<mpsc::Receiver<PresenceItem>, StoreError> {
        presence::watch(&self.watches, tenant, cursor).await
    }

    async fn end_sessions_of(&self, node: &NodeRef) -> Result<u64, StoreError> {
        let mut left: Vec<Partition> = Partition::all().collect();
        let mut ended = 0;
        while !left.is_empty() {
            let mut more = Vec::new();
            for some in left.chunks(PARTITIONS_AT_ONCE) {
                let calls: Vec<Call> = some.iter().map(|p| self.end_call(*p, node)).collect();
                let answers = self.link.run_all(&script::END_NODE, &calls).await?;
                for (partition, answer) in some.iter().zip(answers) {
                    let mut answer = answer?;
                    ended += answer.rest.number()?;
                    if answer.rest.number()? > 0 {
                        more.push(*partition);
                    }
                }
            }
            left = more;
        }
        if ended > 0 {
            self.ring().await;
        }
        Ok(ended)
    }
}

impl RedisStore {
    fn claim_call(&self, claim: &SessionClaim) -> Call {
        self.call(&claim.device)
            .arg(claim.session.to_string())
            .arg(claim.node.id.as_str())
            .arg(format!("{:x}", claim.node.incarnation))
            .arg(&*claim.protocol)
            .arg(&*claim.address)
            .number(claim.claimed_at.0)
            .arg(claim.device.tenant.as_str())
            .arg(claim.device.device.as_str())
    }

    fn end_call(&self, partition: Partition, node: &NodeRef) -> Call {
        let base = self.link.keys.base(partition);
        let inc = format!("{:x}", node.incarnation);
        Call::new(format!("{base}n:{}:{inc}", node.id), &base, self.link.not_after())
            .arg(node.id.as_str())
            .arg(inc)
            .arg("the node that held the connection is gone")
            .number(millis(self.settings.device_retention))
            .number(END_BATCH)
    }

    /// Tells watches that a partition has a new event. Where it is lost they find it a little later.
    fn bell(&self, partition: Partition) -> redis::Cmd {
        let mut bell = redis::cmd("PUBLISH");
        bell.arg(self.link.keys.presence_channel()).arg(partition.number().to_string());
        bell
    }

    async fn ring(&self) {
        let mut pipe = redis::pipe();
        pipe.add_command(self.bell(Partition::new(0)));
        if let Err(error) = self.link.ask(RedisCommand::Publish, &mut pipe).await {
            tracing::debug!(%error, "could not ring for presence events; watches look by themselves");
        }
    }

    /// What is known of devices, in their order.
    async fn records(&self, keys: Vec<DeviceKey>) -> Result<Vec<Option<DeviceRecord>>, StoreError> {
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

pub(crate) fn session_id(text: &str) -> Result<SessionId, StoreError> {
    text.parse().map_err(|error| corrupt(format!("{text:?}: {error}")))
}

/// A node and its incarnation, as they stand behind each other in answers.
pub(crate) fn node_ref(reply: &mut Reply) -> Result<NodeRef, StoreError> {
    parse_node(reply.text()?, &reply.text()?)
}

pub(crate) fn parse_node(id: String, incarnation: &str) -> Result<NodeRef, StoreError> {
    let id = NodeId::new(id).map_err(corrupt)?;
    let incarnation = u64::from_str_radix(incarnation, 16)
        .map_err(|_| corrupt(format!("{incarnation:?} is no incarnation")))?;
    Ok(NodeRef { id, incarnation })
}

/// How a connection ended, out of a record or an event.
pub(crate) fn last_close(fields: &mut Fields, time: UnixMillis) -> Result<LastClose, StoreError> {
    let who = fields.needed_text("w")?;
    Ok(LastClose {
        code: fields.needed("k")?,
        reason: fields.needed_text("r")?.into(),
        initiator: Initiator::parse(&who)
            .ok_or_else(|| corrupt(format!("{who:?} is no initiator")))?,
        time,
    })
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
