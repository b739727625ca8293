//! Which workers have subscribers of a topic, so that only those are woken. Who they are, each
//! worker knows itself (`worker/subscribers.rs`); what other nodes have to know is the switchboard's
//! affair.

use std::collections::HashMap;

use dashmap::DashMap;
use parking_lot::RwLock;
use roost_types::{FilterTrie, TenantId, Topic, TopicFilter};

/// A set of workers, one bit each.
pub(crate) type Workers = u64;

/// The most workers that fit a [`Workers`].
pub(crate) const MAX_WORKERS: usize = 64;

type Hasher = foldhash::fast::RandomState;

/// The workers by filter.
#[derive(Debug, Default)]
pub(crate) struct Interests {
    exact: DashMap<(TenantId, TopicFilter), Workers, Hasher>,
    wild: RwLock<HashMap<TenantId, FilterTrie<Workers>, Hasher>>,
}

// === impl Interests ===

impl Interests {
    /// A worker has its first subscriber of a filter.
    pub(crate) fn add(&self, worker: u16, tenant: &TenantId, filter: &TopicFilter) {
        if filter.is_wildcard() {
            let mut wild = self.wild.write();
            let trie = wild.entry(tenant.clone()).or_default();
            *trie.get_or_insert_with(filter, || 0) |= bit(worker);
        } else {
            *self.exact.entry((tenant.clone(), filter.clone())).or_default() |= bit(worker);
        }
    }

    /// A worker lost its last subscriber of a filter.
    pub(crate) fn remove(&self, worker: u16, tenant: &TenantId, filter: &TopicFilter) {
        if filter.is_wildcard() {
            self.remove_wild(worker, tenant, filter);
            return;
        }
        let key = (tenant.clone(), filter.clone());
        if let Some(mut workers) = self.exact.get_mut(&key) {
            *workers &= !bit(worker);
        }
        self.exact.remove_if(&key, |_, workers| *workers == 0);
    }

    fn remove_wild(&self, worker: u16, tenant: &TenantId, filter: &TopicFilter) {
        let mut wild = self.wild.write();
        let Some(trie) = wild.get_mut(tenant) else {
            return;
        };
        let empty = trie.get_mut(filter).is_some_and(|workers| {
            *workers &= !bit(worker);
            *workers == 0
        });
        if empty {
            trie.remove(filter);
        }
        if trie.is_empty() {
            wild.remove(tenant);
        }
    }

    /// The workers that have at least one subscriber of a topic.
    pub(crate) fn workers(&self, tenant: &TenantId, topic: &Topic) -> Workers {
        let key = (tenant.clone(), TopicFilter::from(topic.clone()));
        let mut workers = self.exact.get(&key).map_or(0, |workers| *workers);
        if let Some(trie) = self.wild.read().get(tenant) {
            trie.for_each_match(topic, |more| workers |= more);
        }
        workers
    }
}

fn bit(worker: u16) -> Workers {
    1 << worker
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_workers_with_subscribers_are_named_and_nothing_stays_behind() {
        let interests = Interests::default();
        let (a, b) = (TenantId::default(), TenantId::new("other").unwrap());
        let filter = |text: &str| TopicFilter::new(text).unwrap();
        let topic = Topic::new("fleet/1/temp").unwrap();
        interests.add(0, &a, &filter("fleet/1/temp"));
        interests.add(3, &a, &filter("fleet/+/temp"));
        interests.add(5, &a, &filter("fleet/2/temp"));
        interests.add(7, &b, &filter("#"));
        assert_eq!(interests.workers(&a, &topic), 0b1001);
        assert_eq!(interests.workers(&b, &topic), 1 << 7);
        interests.remove(0, &a, &filter("fleet/1/temp"));
        interests.remove(3, &a, &filter("fleet/+/temp"));
        interests.remove(5, &a, &filter("fleet/2/temp"));
        interests.remove(7, &b, &filter("#"));
        assert_eq!(interests.workers(&a, &topic), 0);
        assert!(interests.exact.is_empty() && interests.wild.read().is_empty());
    }
}
