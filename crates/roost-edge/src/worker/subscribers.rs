//! Who of a worker's connections wants which topics. Only the worker touches it, so it needs no
//! locks. A connection that several filters bring the same message gets it once.

use std::collections::HashMap;

use roost_types::{FilterTrie, TenantId, Topic, TopicFilter};
use smallvec::SmallVec;

use super::Place;

type Hasher = foldhash::fast::RandomState;

/// The subscribers of one worker.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    exact: HashMap<(TenantId, TopicFilter), SmallVec<[Place; 1]>, Hasher>,
    wild: HashMap<TenantId, FilterTrie<SmallVec<[Place; 1]>>, Hasher>,
}

// === impl Subscribers ===

impl Subscribers {
    /// Adds one; says whether it is the filter's first.
    pub(crate) fn add(&mut self, tenant: &TenantId, filter: &TopicFilter, who: Place) -> bool {
        let subscribers = if filter.is_wildcard() {
            let trie = self.wild.entry(tenant.clone()).or_default();
            trie.get_or_insert_with(filter, SmallVec::new)
        } else {
            self.exact.entry((tenant.clone(), filter.clone())).or_default()
        };
        subscribers.push(who);
        subscribers.len() == 1
    }

    /// Takes one out; says whether it was the filter's last.
    pub(crate) fn remove(&mut self, tenant: &TenantId, filter: &TopicFilter, who: Place) -> bool {
        if filter.is_wildcard() {
            return self.remove_wild(tenant, filter, who);
        }
        let key = (tenant.clone(), filter.clone());
        let last = self.exact.get_mut(&key).is_some_and(|subscribers| take(subscribers, who));
        if last {
            self.exact.remove(&key);
        }
        last
    }

    fn remove_wild(&mut self, tenant: &TenantId, filter: &TopicFilter, who: Place) -> bool {
        let Some(trie) = self.wild.get_mut(tenant) else {
            return false;
        };
        let last = trie.get_mut(filter).is_some_and(|subscribers| take(subscribers, who));
        if last {
            trie.remove(filter);
        }
        if trie.is_empty() {
            self.wild.remove(tenant);
        }
        last
    }

    /// Puts everybody who wants a topic into `found`, each once.
    pub(crate) fn find(&self, tenant: &TenantId, topic: &Topic, found: &mut Vec<Place>) {
        found.clear();
        let mut filters = 0;
        let key = (tenant.clone(), TopicFilter::from(topic.clone()));
        if let Some(subscribers) = self.exact.get(&key) {
            found.extend_from_slice(subscribers);
            filters += 1;
        }
        if let Some(trie) = self.wild.get(tenant) {
            trie.for_each_match(topic, |subscribers| {
                found.extend_from_slice(subscribers);
                filters += 1;
            });
        }
        if filters > 1 {
            found.sort_unstable();
            found.dedup();
        }
    }
}

/// Takes `who` out; says whether nobody is left where somebody was.
fn take(subscribers: &mut SmallVec<[Place; 1]>, who: Place) -> bool {
    let Some(at) = subscribers.iter().position(|known| *known == who) else {
        return false;
    };
    subscribers.swap_remove(at);
    subscribers.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(index: u32) -> Place {
        Place { worker: 0, index, generation: 1 }
    }

    #[test]
    fn each_connection_is_found_once_and_only_in_its_tenant() {
        let mut subscribers = Subscribers::default();
        let (a, b) = (TenantId::default(), TenantId::new("other").unwrap());
        let filter = |text: &str| TopicFilter::new(text).unwrap();
        let topic = Topic::new("fleet/1").unwrap();
        assert!(subscribers.add(&a, &filter("fleet/1"), place(1)));
        assert!(!subscribers.add(&a, &filter("fleet/1"), place(2)));
        assert!(subscribers.add(&a, &filter("fleet/+"), place(1)));
        assert!(subscribers.add(&a, &filter("#"), place(1)));
        assert!(subscribers.add(&b, &filter("#"), place(9)));
        let mut found = Vec::new();
        subscribers.find(&a, &topic, &mut found);
        assert_eq!(found, [place(1), place(2)]);
        subscribers.find(&b, &topic, &mut found);
        assert_eq!(found, [place(9)]);

        assert!(!subscribers.remove(&a, &filter("fleet/1"), place(1)));
        assert!(!subscribers.remove(&a, &filter("fleet/1"), place(1)), "it is gone already");
        assert!(subscribers.remove(&a, &filter("fleet/1"), place(2)));
        assert!(subscribers.remove(&a, &filter("fleet/+"), place(1)));
        assert!(subscribers.remove(&a, &filter("#"), place(1)));
        assert!(subscribers.remove(&b, &filter("#"), place(9)));
        assert!(subscribers.exact.is_empty() && subscribers.wild.is_empty());
    }
}
