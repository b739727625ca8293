//! Who of a worker's connections wants which topics. Only the worker touches it, so it needs no
//! locks. A connection that several filters bring the same message gets it once.

use std::collections::HashMap;

use roost_types::{FilterTrie, TenantId, Topic, TopicFilter};
use smallvec::SmallVec;

use super::Place;

type Hasher = foldhash::fast::RandomState;

/// Mostly one.
type Places = SmallVec<[Place; 1]>;

/// The subscribers of one worker.
#[derive(Debug, Default)]
pub(crate) struct Subscribers(HashMap<TenantId, FilterTrie<Places>, Hasher>);

// === impl Subscribers ===

impl Subscribers {
    /// Adds one; says whether it is the filter's first.
    pub(crate) fn add(&mut self, tenant: &TenantId, filter: &TopicFilter, who: Place) -> bool {
        let filters = self.0.entry(tenant.clone()).or_default();
        let subscribers = filters.get_or_insert_with(filter, SmallVec::new);
        subscribers.push(who);
        subscribers.len() == 1
    }

    /// Takes one out; says whether it was the filter's last.
    pub(crate) fn remove(&mut self, tenant: &TenantId, filter: &TopicFilter, who: Place) -> bool {
        let Some(filters) = self.0.get_mut(tenant) else {
            return false;
        };
        let last = filters.get_mut(filter).is_some_and(|subscribers| take(subscribers, who));
        if last {
            filters.remove(filter);
        }
        if filters.is_empty() {
            self.0.remove(tenant);
        }
        last
    }

    /// Puts everybody who wants a topic into `found`, each once.
    pub(crate) fn find(&self, tenant: &TenantId, topic: &Topic, found: &mut Vec<Place>) {
        found.clear();
        let mut filters = 0;
        if let Some(tenant) = self.0.get(tenant) {
            tenant.for_each_match(topic, |subscribers| {
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
fn take(subscribers: &mut Places, who: Place) -> bool {
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
        assert!(subscribers.0.is_empty());
    }
}
