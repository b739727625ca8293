//! Many filters asked at once which of them match a topic.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::{Topic, TopicFilter};

type Hasher = foldhash::fast::RandomState;
type Children<V> = HashMap<Box<str>, Node<V>, Hasher>;

/// A map from filters to values that finds the values of all filters that match a topic.
///
/// Costs one look-up for all filters without wildcards, and for the others one step a level and
/// wildcard branch, however many there are. A filter that is removed leaves nothing behind.
#[derive(Debug)]
pub struct FilterTrie<V> {
    /// Filters without wildcards. Flat, since most are, and a node for each level of each would take
    /// half a kilobyte.
    exact: HashMap<TopicFilter, V, Hasher>,
    wild: Node<V>,
    wild_len: usize,
}

#[derive(Debug)]
struct Node<V> {
    value: Option<V>,
    children: Children<V>,
}

// === impl FilterTrie ===

impl<V> Default for FilterTrie<V> {
    fn default() -> Self {
        Self { exact: HashMap::default(), wild: Node::default(), wild_len: 0 }
    }
}

impl<V> FilterTrie<V> {
    /// A trie without filters.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many filters have a value.
    pub fn len(&self) -> usize {
        self.exact.len() + self.wild_len
    }

    /// Whether no filter has a value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a filter, made by `default` where it has none yet.
    pub fn get_or_insert_with(
        &mut self,
        filter: &TopicFilter,
        default: impl FnOnce() -> V,
    ) -> &mut V {
        if !filter.is_wildcard() {
            return self.exact.entry(filter.clone()).or_insert_with(default);
        }
        let levels = filter.as_str().split('/');
        let node = levels.fold(&mut self.wild, |node, level| node.child(level));
        self.wild_len += usize::from(node.value.is_none());
        node.value.get_or_insert_with(default)
    }

    /// The value of exactly this filter.
    pub fn get_mut(&mut self, filter: &TopicFilter) -> Option<&mut V> {
        if !filter.is_wildcard() {
            return self.exact.get_mut(filter);
        }
        let mut node = &mut self.wild;
        for level in filter.as_str().split('/') {
            node = node.children.get_mut(level)?;
        }
        node.value.as_mut()
    }

    /// Takes a filter out and gives its value back.
    pub fn remove(&mut self, filter: &TopicFilter) -> Option<V> {
        if !filter.is_wildcard() {
            return self.exact.remove(filter);
        }
        let value = self.wild.remove(&mut filter.as_str().split('/'));
        self.wild_len -= usize::from(value.is_some());
        value
    }

    /// Calls `found` with the value of each filter that matches the topic.
    pub fn for_each_match<'a>(&'a self, topic: &Topic, mut found: impl FnMut(&'a V)) {
        self.exact.get(topic.as_str()).into_iter().for_each(&mut found);
        if self.wild_len > 0 {
            let levels: smallvec::SmallVec<[&str; 16]> = topic.as_str().split('/').collect();
            self.wild.visit(&levels, topic.is_reserved(), &mut found);
        }
    }

    /// Whether any filter matches the topic.
    pub fn matches_any(&self, topic: &Topic) -> bool {
        let mut any = false;
        self.for_each_match(topic, |_| any = true);
        any
    }
}

// === impl Node ===

impl<V> Default for Node<V> {
    fn default() -> Self {
        Self { value: None, children: HashMap::default() }
    }
}

impl<V> Node<V> {
    fn child(&mut self, level: &str) -> &mut Self {
        self.children.entry(level.into()).or_default()
    }

    fn is_unused(&self) -> bool {
        self.value.is_none() && self.children.is_empty()
    }

    fn remove<'a>(&mut self, levels: &mut impl Iterator<Item = &'a str>) -> Option<V> {
        let Some(level) = levels.next() else {
            return self.value.take();
        };
        let Entry::Occupied(mut child) = self.children.entry(level.into()) else {
            return None;
        };
        let value = child.get_mut().remove(levels);
        if child.get().is_unused() {
            child.remove();
        }
        value
    }

    /// `reserved` holds while a wildcard must not match: in the first level of a `$` topic.
    fn visit<'a>(&'a self, levels: &[&str], reserved: bool, found: &mut impl FnMut(&'a V)) {
        if !reserved && let Some(rest) = self.children.get("#") {
            rest.value.iter().for_each(&mut *found);
        }
        let Some((level, deeper)) = levels.split_first() else {
            self.value.iter().for_each(found);
            return;
        };
        if !reserved && let Some(any) = self.children.get("+") {
            any.visit(deeper, false, found);
        }
        if let Some(exact) = self.children.get(*level) {
            exact.visit(deeper, false, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text).unwrap()
    }

    #[test]
    fn what_is_removed_leaves_nothing_behind() {
        let mut trie = FilterTrie::new();
        *trie.get_or_insert_with(&filter("a/+/c"), || 0) += 1;
        *trie.get_or_insert_with(&filter("a"), || 0) += 1;
        *trie.get_or_insert_with(&filter("a/#"), || 0) += 1;
        assert_eq!(trie.remove(&filter("a/+")), None);
        assert_eq!(trie.remove(&filter("a/+/c")), Some(1));
        assert_eq!(trie.len(), 2);
        assert_eq!(trie.remove(&filter("a")), Some(1));
        assert_eq!(trie.remove(&filter("a/#")), Some(1));
        assert!(trie.is_empty() && trie.wild.is_unused());
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "$s", "+", "#"])
    }

    proptest! {
        #[test]
        fn the_trie_finds_what_each_filter_says(
            filters in prop::collection::vec(prop::collection::vec(level(), 1..4), 0..20),
            topic in prop::collection::vec(prop::sample::select(vec!["a", "b", "$s"]), 1..5),
        ) {
            let topic = Topic::new(&topic.join("/")).unwrap();
            let mut filters: Vec<_> =
                filters.iter().filter_map(|levels| TopicFilter::new(&levels.join("/")).ok()).collect();
            filters.sort();
            filters.dedup();
            let mut trie = FilterTrie::new();
            for filter in &filters {
                trie.get_or_insert_with(filter, || filter.clone());
            }
            let mut found = Vec::new();
            trie.for_each_match(&topic, |filter| found.push(filter.clone()));
            found.sort();
            filters.retain(|filter| filter.matches(&topic));
            prop_assert_eq!(found, filters);
        }
    }
}
