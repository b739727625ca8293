//! A node's copy of the table of wildcard filters. How it is kept like the original is in `wild.rs`.

use std::collections::{BTreeSet, HashMap, HashSet};

use roost_cluster::{NodeRef, StoreError};
use roost_proto::internal::v1::FilterChange;
use roost_types::{FilterTrie, NodeId, TenantId, Topic, TopicFilter};

use crate::error::corrupt;
use crate::keys::counted;
use crate::reply::Reply;
use crate::sessions::parse_node;

/// Whose wildcard filters match what.
#[derive(Debug, Default)]
pub(super) struct WildTable {
    pub(super) version: u64,
    tenants: HashMap<TenantId, FilterTrie<Vec<NodeRef>>>,
    /// Who had filters when the whole table was read last.
    owners: HashSet<NodeRef>,
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

    /// Whether a node had filters when the whole table was read last.
    pub(super) fn had_filters_of(&self, node: &NodeRef) -> bool {
        self.owners.contains(node)
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

    /// Takes in the whole table as it was read, and gives whether it did; `known` is the version that
    /// stood here when it was asked for.
    ///
    /// A change that was heard meanwhile may be newer than what was read, and is not to be lost again.
    /// Without one the version may go back: then the table in Redis was lost.
    #[must_use]
    pub(super) fn take_over(&mut self, read: Self, known: u64) -> bool {
        let takes = self.version == known || self.version <= read.version;
        if takes {
            *self = read;
        }
        takes
    }

    pub(super) fn read(mut answer: Reply) -> Result<Self, StoreError> {
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
            table.owners.insert(owner);
        }
        Ok(table)
    }
}

fn parse_owner(text: &str) -> Result<NodeRef, StoreError> {
    let (id, incarnation) =
        text.rsplit_once('#').ok_or_else(|| corrupt(format!("{text:?} is no node")))?;
    parse_node(id.to_owned(), incarnation)
}

pub(super) fn member(tenant: &TenantId, filter: &TopicFilter) -> String {
    format!("{}:{tenant}:{filter}", tenant.as_str().len())
}

fn parse_member(text: &str) -> Option<(TenantId, TopicFilter)> {
    let (tenant, rest) = counted(text)?;
    let filter = TopicFilter::new(rest.strip_prefix(':')?).ok()?;
    Some((TenantId::new(tenant).ok()?, filter))
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
    fn a_slow_reading_does_not_undo_a_change_that_was_heard_meanwhile() {
        let at = |version| WildTable { version, ..WildTable::default() };
        let mut table = at(20);
        assert!(!table.take_over(at(10), 10), "it was 10 when asked, 20 was heard since");
        assert_eq!(table.version, 20);
        assert!(table.take_over(at(30), 10), "what was read is newer still");
        assert!(table.take_over(at(0), 30), "nothing was heard: the table was lost");
        assert_eq!(table.version, 0);
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
