//! The table of wildcard filters that every node has a copy of, and how it is changed. The original is
//! in Redis with a version; each change is announced with the versions before and after it, and a node
//! that finds a hole reads the whole table.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use redis::Value;
use roost_cluster::{NodeRef, StoreError};
use roost_proto::internal::v1::node_envelope::Kind;
use roost_proto::internal::v1::{FilterAck, FilterChange};
use roost_telemetry::metrics::labels::RedisCommand;
use roost_types::{FilterTrie, NodeId, TenantId, Topic, TopicFilter};
use tokio::sync::watch;

use crate::codec;
use crate::error::corrupt;
use crate::keys::counted;
use crate::reply::Reply;
use crate::script::{self, Call};
use crate::sessions::parse_node;

use super::{ACK_PATIENCE, BusNode};

/// Whose wildcard filters match what.
#[derive(Debug, Default)]
pub(super) struct WildTable {
    version: u64,
    tenants: HashMap<TenantId, FilterTrie<Vec<NodeRef>>>,
}

/// What a change that was heard asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The table has it.
    Done,
    /// Something before it is missing: read the whole table.
    Hole,
}

// === impl WildTable ===

impl WildTable {
    /// The nodes with a filter that matches, each once.
    pub(super) fn nodes_for(&self, tenant: &TenantId, topic: &Topic) -> BTreeSet<NodeId> {
        let mut found = BTreeSet::new();
        if let Some(filters) = self.tenants.get(tenant) {
            filters.for_each_match(topic, |nodes| {
                found.extend(nodes.iter().map(|node| node.id.clone()));
            });
        }
        found
    }

    fn add(&mut self, tenant: &TenantId, filter: &TopicFilter, node: NodeRef) {
        let filters = self.tenants.entry(tenant.clone()).or_default();
        let nodes = filters.get_or_insert_with(filter, Vec::new);
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }

    fn remove(&mut self, tenant: &TenantId, filter: &TopicFilter, node: &NodeRef) {
        let Some(filters) = self.tenants.get_mut(tenant) else {
            return;
        };
        if let Some(nodes) = filters.get_mut(filter) {
            nodes.retain(|one| one != node);
            if nodes.is_empty() {
                filters.remove(filter);
            }
        }
        if filters.is_empty() {
            self.tenants.remove(tenant);
        }
    }

    /// Takes in a change that was announced.
    pub(super) fn hear(&mut self, change: &FilterChange) -> Result<Heard, StoreError> {
        if change.version <= self.version {
            return Ok(Heard::Done);
        }
        if change.prev != self.version || change.filter.is_empty() {
            return Ok(Heard::Hole);
        }
        let owner = parse_owner(&change.owner)?;
        let tenant = TenantId::new(&change.tenant).map_err(corrupt)?;
        let filter = TopicFilter::new(&change.filter).map_err(corrupt)?;
        if change.gone {
            self.remove(&tenant, &filter, &owner);
        } else {
            self.add(&tenant, &filter, owner);
        }
        self.version = change.version;
        Ok(Heard::Done)
    }

    fn read(mut answer: Reply) -> Result<Self, StoreError> {
        let mut table = Self { version: answer.number()?, ..Self::default() };
        while !answer.is_done() {
            let mut row = answer.list()?;
            let owner = parse_owner(&row.text()?)?;
            let mut members = row.list()?;
            while !members.is_done() {
                let member = members.text()?;
                let Some((tenant, filter)) = parse_member(&member) else {
                    tracing::error!(member, "passed over a wildcard filter that is none");
                    continue;
                };
                table.add(&tenant, &filter, owner.clone());
            }
        }
        Ok(table)
    }
}

fn parse_owner(text: &str) -> Result<NodeRef, StoreError> {
    let (id, incarnation) =
        text.rsplit_once('#').ok_or_else(|| corrupt(format!("{text:?} is no node")))?;
    parse_node(id.to_owned(), incarnation)
}

fn member(tenant: &TenantId, filter: &TopicFilter) -> String {
    format!("{}:{tenant}:{filter}", tenant.as_str().len())
}

fn parse_member(text: &str) -> Option<(TenantId, TopicFilter)> {
    let (tenant, rest) = counted(text)?;
    let filter = TopicFilter::new(rest.strip_prefix(':')?).ok()?;
    Some((TenantId::new(tenant).ok()?, filter))
}

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
        let bytes = codec::seal(0, Kind::FilterChange(change));
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
            if tokio::time::timeout(ACK_PATIENCE, all).await.is_err() {
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
        let answer = self.link.run(&script::WILD_LOAD, &call).await?;
        *self.table.write() = WildTable::read(answer.rest)?;
        Ok(())
    }

    /// Reads the table if a change was missed.
    pub(super) async fn check_table(&self) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        pipe.cmd("GET").arg(format!("{}v", self.link.keys.wild()));
        let found = self.link.ask(RedisCommand::Interest, &mut pipe).await?;
        let mut found = Reply::new(Value::Array(found))?;
        let version: u64 = match found.optional_text()? {
            Some(text) => crate::reply::parse(&text)?,
            None => 0,
        };
        if version == self.table.read().version {
            return Ok(());
        }
        self.read_table().await
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
        let bytes = codec::seal(0, Kind::FilterAck(FilterAck { version }));
        self.send_bytes(&[self.link.keys.node_channel(&node)], &bytes).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(prev: u64, version: u64, filter: &str, gone: bool) -> FilterChange {
        FilterChange {
            prev,
            version,
            owner: "n#1f".into(),
            tenant: "t".into(),
            filter: filter.into(),
            gone,
            reply_to: String::new(),
        }
    }

    #[test]
    fn changes_apply_in_order_and_holes_are_found() {
        let mut table = WildTable::default();
        let tenant = TenantId::new("t").unwrap();
        let topic = Topic::new("a/b").unwrap();
        assert_eq!(table.hear(&change(0, 10, "a/#", false)).unwrap(), Heard::Done);
        assert_eq!(table.hear(&change(10, 20, "+/b", false)).unwrap(), Heard::Done);
        assert_eq!(table.nodes_for(&tenant, &topic).len(), 1, "one node, whatever matches");
        assert_eq!(table.hear(&change(20, 30, "a/#", true)).unwrap(), Heard::Done);
        assert_eq!(table.nodes_for(&tenant, &topic).len(), 1);
        assert_eq!(table.hear(&change(20, 30, "+/b", true)).unwrap(), Heard::Done, "an old one");
        assert_eq!(table.hear(&change(40, 50, "x/#", false)).unwrap(), Heard::Hole);
        assert_eq!(table.hear(&change(30, 50, "", false)).unwrap(), Heard::Hole);
        assert!(table.hear(&change(30, 50, "a/#/b", false)).is_err());
        assert_eq!(table.hear(&change(30, 40, "+/b", true)).unwrap(), Heard::Done);
        assert!(table.tenants.is_empty());
    }

    #[test]
    fn members_cannot_forge_each_other() {
        for (tenant, filter) in [("a", "b:c/#"), ("a:1:b", "+"), ("a:b", "c/#")] {
            let key = (TenantId::new(tenant).unwrap(), TopicFilter::new(filter).unwrap());
            assert_eq!(parse_member(&member(&key.0, &key.1)), Some(key));
        }
        assert_eq!(parse_member("9:a:b"), None);
    }
}
