//! The `Sessions` seam: claims, ends, histories. How devices are shown is in `devices.rs`, watches are in
//! `presence.rs`.

use async_trait::async_trait;
use redis::Value;
use roost_cluster::{
    CONTEST_TAKEOVERS, CONTEST_WINDOW, Claimed, DeviceFilter, DeviceRecord, HistoryEntry,
    Initiator, LastClose, NodeRef, Page, PageRequest, PresenceItem, Refusal, Revalidated,
    SessionClaim, Sessions, StoreError,
};
use roost_telemetry::metrics::labels::RedisCommand;
use roost_types::{DeviceKey, NodeId, Partition, SessionId, TenantId, UnixMillis};
use tokio::sync::mpsc;

use crate::devices::Place;
use crate::error::corrupt;
use crate::history;
use crate::presence;
use crate::reply::{Fields, Reply};
use crate::report::cut;
use crate::script::{self, Call};
use crate::store::{PARTITIONS_AT_ONCE, RedisStore, millis};

/// How many sessions of a dead node one script ends, so that none blocks Redis for long.
const END_BATCH: u64 = 50;
/// How many are ended before whoever asks looks at the node again.
const ENDED_AT_ONCE: u64 = 1_000;
/// How many sessions are confirmed by one pipeline.
const REVALIDATE_BATCH: usize = 500;
/// How many bytes of each word of a refusal are kept.
const WORDS: usize = 128;
/// How many entries of a history one answer has at the most.
const MOST_HISTORY: usize = 10_000;
/// How often a list may come back with too few items for its page and look further.
const LIST_ROUNDS: usize = 4;

#[async_trait]
impl Sessions for RedisStore {
    async fn claim(&self, claim: &SessionClaim) -> Result<Claimed, StoreError> {
        let bell = self.bell(Partition::of(&claim.device));
        let call =
            self.claim_call(claim).number(CONTEST_TAKEOVERS.into()).number(millis(CONTEST_WINDOW));
        let mut answer = self.link.run_then(&script::CLAIM, &call, Some(bell)).await?;
        let (pending, contested) = (answer.rest.number()?, answer.rest.number()? == 1);
        let replaced = match answer.rest.optional_text()? {
            Some(session) => Some((session_id(&session)?, node_ref(&mut answer.rest)?)),
            None => None,
        };
        Ok(Claimed { replaced, pending, contested })
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
            .number(millis(self.settings.device_retention))
            .number(self.settings.history.into());
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
        'rounds: while !left.is_empty() {
            let mut more = Vec::new();
            for some in left.chunks(PARTITIONS_AT_ONCE) {
                if ended >= ENDED_AT_ONCE {
                    break 'rounds;
                }
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

    async fn history(
        &self,
        device: &DeviceKey,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        let oldest = format!("-{}", limit.min(MOST_HISTORY));
        pipe.cmd("LRANGE").arg(self.link.keys.timeline(device)).arg(oldest).arg(-1);
        let found = self.link.ask(RedisCommand::Lookup, &mut pipe).await?;
        let mut found = Reply::new(Value::Array(found))?.list()?;
        let mut entries = Vec::new();
        while !found.is_done() {
            match history::read(&found.bytes()?) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    tracing::error!(%device, %error, "passed over a spoiled history entry");
                }
            }
        }
        entries.reverse();
        Ok(entries)
    }

    async fn note_refusal(
        &self,
        device: &DeviceKey,
        session: SessionId,
        refusal: &Refusal,
    ) -> Result<(), StoreError> {
        let call = self
            .call(device)
            .arg(session.to_string())
            .number(self.settings.history.into())
            .arg(cut(&refusal.what, WORDS))
            .arg(cut(&refusal.code, WORDS))
            .arg(cut(&refusal.about, WORDS));
        self.link.run(&script::NOTE, &call).await.map(drop)
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
            .number(self.settings.history.into())
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
            .number(self.settings.history.into())
    }

    /// Tells watches that a partition has a new event. Where it is lost they find it a little later.
    fn bell(&self, partition: Partition) -> redis::Cmd {
        let mut bell = redis::cmd(self.bus.verbs().publish);
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
