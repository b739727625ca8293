//! The table of wildcard filters that every node has a copy of, and how it is changed. The original is
//! in Redis with a version; each change is announced with the versions before and after it, and a node
//! that finds a hole reads the whole table.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::Value;
use roost_cluster::{NodeRef, StoreError};
use roost_proto::internal::v1::node_envelope::Kind;
use roost_proto::internal::v1::{FilterAck, FilterChange};
use roost_telemetry::metrics::labels::RedisCommand;
use roost_types::{NodeId, TenantId, TopicFilter};
use tokio::sync::watch;

use crate::error::corrupt;
use crate::reply::Reply;
use crate::script::{self, Call};

use super::BusNode;
use super::envelope;
use super::table::{WildTable, member};

// === impl BusNode: its part in the table ===

impl BusNode {
    fn wild_call(&self, op: &str, owner: &NodeRef) -> Call {
        let base = self.link.keys.wild();
        Call::new(base.clone(), &base, self.link.not_after()).arg(op).arg(owner.to_string())
    }

    async fn change(&self, call: &Call) -> Result<(u64, u64), StoreError> {
        let mut answer = self.link.run(&script::WILD, call).await?;
        Ok((answer.rest.number()?, answer.rest.number()?))
    }

    async fn announce(&self, change: FilterChange) -> Result<u64, StoreError> {
        let bytes = envelope::seal(0, Kind::FilterChange(change));
        self.send_bytes(&[self.link.keys.wild_channel()], &bytes).await
    }

    pub(super) async fn declare_wild(
        &self,
        tenant: &TenantId,
        filter: &TopicFilter,
    ) -> Result<(), StoreError> {
        let call = self.wild_call("add", &self.node).arg(member(tenant, filter));
        let (prev, version) = self.change(&call).await?;
        let mut acks = self.await_acks(version);
        let announced = self
            .announce(FilterChange {
                prev,
                version,
                owner: self.node.to_string(),
                tenant: tenant.to_string(),
                filter: filter.to_string(),
                gone: false,
                reply_to: self.node.id.to_string(),
            })
            .await;
        if let Ok(listeners) = announced {
            let all = acks.wait_for(|acks| *acks >= listeners);
            if tokio::time::timeout(self.link.wildcard_timeout(), all).await.is_err() {
                tracing::debug!(%filter, "a node is late with a wildcard filter");
            }
        }
        drop(acks);
        self.acks.lock().retain(|_, waiters| waiters.receiver_count() > 0);
        announced.map(drop)
    }

    fn await_acks(&self, version: u64) -> watch::Receiver<u64> {
        let mut acks = self.acks.lock();
        acks.entry(version).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// A node has the table at this version.
    pub(super) fn note_ack(&self, version: u64) {
        if let Some(waiting) = self.acks.lock().get(&version) {
            waiting.send_modify(|acks| *acks += 1);
        }
    }

    pub(super) async fn withdraw_wild(
        &self,
        tenant: &TenantId,
        filter: &TopicFilter,
    ) -> Result<(), StoreError> {
        let call = self.wild_call("del", &self.node).arg(member(tenant, filter));
        let (prev, version) = self.change(&call).await?;
        let change = FilterChange {
            prev,
            version,
            owner: self.node.to_string(),
            tenant: tenant.to_string(),
            filter: filter.to_string(),
            gone: true,
            reply_to: String::new(),
        };
        self.announce(change).await.map(drop)
    }

    /// Strikes a node's filters off the table.
    pub(crate) async fn drop_filters_of(&self, node: &NodeRef) -> Result<(), StoreError> {
        if *node == self.node {
            // They are not to be put back.
            self.left.store(true, Ordering::Release);
        }
        let (prev, version) = self.change(&self.wild_call("drop", node)).await?;
        if prev == version {
            return Ok(());
        }
        let change = FilterChange { prev, version, owner: node.to_string(), ..Default::default() };
        self.announce(change).await.map(drop)
    }

    /// Puts this node's filters into the table, as they are now, and reads the whole of it.
    pub(super) async fn join_table(&self) -> Result<(), StoreError> {
        let mut call = self.wild_call("set", &self.node);
        let own: Vec<String> = self.own_wild.lock().iter().map(|(t, f)| member(t, f)).collect();
        for member in &own {
            call = call.arg(member);
        }
        if !own.is_empty() {
            let (prev, version) = self.change(&call).await?;
            let owner = self.node.to_string();
            self.announce(FilterChange { prev, version, owner, ..Default::default() }).await?;
        }
        self.read_table().await
    }

    pub(super) async fn read_table(&self) -> Result<(), StoreError> {
        let base = self.link.keys.wild();
        let call = Call::new(base.clone(), &base, 0);
        loop {
            let known = self.table.read().version;
            let answer = self.link.run(&script::WILD_LOAD, &call).await?;
            let read = WildTable::read(answer.rest)?;
            if self.table.write().take_over(read, known) {
                return Ok(());
            }
        }
    }

    /// Reads the whole table. Should this node's filters be gone from it, because others took the node for
    /// dead, they are put back; gives whether they were.
    pub(super) async fn read_again(&self) -> Result<bool, StoreError> {
        self.read_table().await?;
        let gone = !self.left.load(Ordering::Acquire)
            && !self.own_wild.lock().is_empty()
            && !self.table.read().had_filters_of(&self.node);
        if gone {
            tracing::warn!("this node was taken for dead; its wildcard filters are put back");
            self.struck.store(true, Ordering::Release);
        }
        let struck = self.struck.load(Ordering::Acquire);
        if struck {
            self.join_table().await?;
            self.struck.store(false, Ordering::Release);
        }
        Ok(struck)
    }

    /// Reads the table if a change was missed; gives whether this node's filters had to be put back.
    pub(super) async fn check_table(&self) -> Result<bool, StoreError> {
        let mut pipe = redis::pipe();
        pipe.cmd("GET").arg(format!("{}v", self.link.keys.wild()));
        let found = self.link.ask(RedisCommand::Interest, &mut pipe).await?;
        let mut found = Reply::new(Value::Array(found))?;
        let version: u64 = match found.optional_text()? {
            Some(text) => crate::reply::parse(&text)?,
            None => 0,
        };
        if version == self.table.read().version && !self.struck.load(Ordering::Acquire) {
            return Ok(false);
        }
        self.read_again().await
    }

    /// Tells the node that waits that this one has the table at `version`.
    pub(super) async fn acknowledge(
        self: Arc<Self>,
        reply_to: String,
        version: u64,
    ) -> Result<(), StoreError> {
        let node = NodeId::new(reply_to).map_err(corrupt)?;
        if node == self.node.id {
            self.note_ack(version);
            return Ok(());
        }
        let bytes = envelope::seal(0, Kind::FilterAck(FilterAck { version }));
        self.send_bytes(&[self.link.keys.node_channel(&node)], &bytes).await.map(drop)
    }
}
