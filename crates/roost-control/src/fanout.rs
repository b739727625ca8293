//! Which Subscribe streams of this node get a message. What waits for one stream is in `outlet.rs`;
//! which messages come to this node at all is the `Switchboard`'s affair.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use roost_telemetry::metrics::EdgeMetrics;
use roost_telemetry::metrics::labels::DropReason;
use roost_types::{FilterTrie, Message, TenantId, TopicFilter};

use crate::ControlConfig;
use crate::outlet::{Offered, Outlet};

/// All streams, by tenant and filter.
#[derive(Debug)]
pub(crate) struct Fanout {
    streams: Mutex<Streams>,
    metrics: Arc<EdgeMetrics>,
    max_messages: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Streams {
    filters: HashMap<TenantId, FilterTrie<Vec<Stream>>>,
    all: HashMap<u64, Arc<Outlet>>,
    /// The number of the last stream.
    last_stream: u64,
    /// The number of the last message; by it an outlet knows one that it has already.
    last_message: u64,
}

#[derive(Debug)]
struct Stream {
    number: u64,
    outlet: Arc<Outlet>,
}

/// A stream among the others; it is taken out when this is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    fanout: Arc<Fanout>,
    tenant: TenantId,
    filters: Vec<TopicFilter>,
    number: u64,
    pub(crate) outlet: Arc<Outlet>,
}

// === impl Fanout ===

impl Fanout {
    pub(crate) fn new(config: &ControlConfig, metrics: Arc<EdgeMetrics>) -> Self {
        Self {
            streams: Mutex::default(),
            metrics,
            max_messages: config.stream_messages,
            max_bytes: config.stream_bytes,
        }
    }

    /// Adds a stream for these filters, which are different from each other.
    pub(crate) fn listen(
        self: &Arc<Self>,
        tenant: &TenantId,
        filters: Vec<TopicFilter>,
    ) -> Listener {
        let outlet = Arc::new(Outlet::new(self.max_messages, self.max_bytes));
        let mut streams = self.streams.lock();
        streams.last_stream += 1;
        let number = streams.last_stream;
        streams.all.insert(number, Arc::clone(&outlet));
        let trie = streams.filters.entry(tenant.clone()).or_default();
        for filter in &filters {
            let outlet = Arc::clone(&outlet);
            trie.get_or_insert_with(filter, Vec::new).push(Stream { number, outlet });
        }
        Listener { fanout: Arc::clone(self), tenant: tenant.clone(), filters, number, outlet }
    }

    /// Hands a message to each stream that wants it, once.
    pub(crate) fn message(&self, tenant: &TenantId, message: &Arc<Message>) {
        let mut streams = self.streams.lock();
        streams.last_message += 1;
        let number = streams.last_message;
        let Some(trie) = streams.filters.get(tenant) else {
            return;
        };
        trie.for_each_match(&message.topic, |wanting| {
            for stream in wanting {
                if stream.outlet.offer(number, message) == Offered::Dropped {
                    self.metrics.messages_dropped.inc(DropReason::QueueFull);
                }
            }
        });
    }

    /// Tells every stream that messages may be missing.
    pub(crate) fn gap(&self) {
        let streams = self.streams.lock();
        streams.all.values().for_each(|outlet| outlet.gap());
    }

    /// How many streams there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.streams.lock().all.len()
    }
}

// === impl Streams ===

impl Streams {
    fn remove(&mut self, tenant: &TenantId, filters: &[TopicFilter], number: u64) {
        self.all.remove(&number);
        let Some(trie) = self.filters.get_mut(tenant) else {
            return;
        };
        for filter in filters {
            let Some(wanting) = trie.get_mut(filter) else {
                continue;
            };
            wanting.retain(|stream| stream.number != number);
            if wanting.is_empty() {
                trie.remove(filter);
            }
        }
        if trie.is_empty() {
            self.filters.remove(tenant);
        }
    }
}

// === impl Listener ===

impl Drop for Listener {
    fn drop(&mut self) {
        let mut streams = self.fanout.streams.lock();
        streams.remove(&self.tenant, &self.filters, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outlet::Item;
    use roost_cluster::NodeRef;
    use roost_telemetry::Telemetry;
    use roost_types::{NodeId, Origin, Payload, Qos, Topic, UnixMillis};

    fn fanout() -> (Arc<Fanout>, Telemetry) {
        let mut config = ControlConfig::new(NodeRef::start(NodeId::new("n").unwrap()));
        config.stream_messages = 2;
        let telemetry = Telemetry::new("0.0.0");
        let fanout = Fanout::new(&config, Arc::clone(&telemetry.edge));
        (Arc::new(fanout), telemetry)
    }

    fn filters(texts: &[&str]) -> Vec<TopicFilter> {
        let filter = |text: &&str| TopicFilter::new(text).unwrap();
        texts.iter().map(filter).collect()
    }

    fn message(topic: &str) -> Arc<Message> {
        Arc::new(Message {
            topic: Topic::new(topic).unwrap(),
            payload: Payload::text("x".into()),
            headers: vec![],
            qos: Qos::BestEffort,
            time: UnixMillis(0),
            from: Origin::Service("s".into()),
            position: None,
        })
    }

    #[tokio::test]
    async fn overlapping_filters_bring_a_message_once_and_only_to_their_tenant() {
        let (fanout, _telemetry) = fanout();
        let (ours, theirs) = (TenantId::default(), TenantId::new("other").unwrap());
        let mine = fanout.listen(&ours, filters(&["a/#", "a/+", "a/b"]));
        let other = fanout.listen(&theirs, filters(&["a/#"]));
        fanout.message(&ours, &message("a/b"));
        fanout.message(&ours, &message("a/c"));
        fanout.gap();
        assert_eq!(mine.outlet.next().await, Item::Message(message("a/b")));
        assert_eq!(mine.outlet.next().await, Item::Message(message("a/c")));
        assert_eq!(mine.outlet.next().await, Item::Gap(None));
        assert_eq!(other.outlet.next().await, Item::Gap(None));
    }

    #[test]
    fn a_stream_that_is_dropped_leaves_nothing_behind() {
        let (fanout, _telemetry) = fanout();
        let tenant = TenantId::default();
        let one = fanout.listen(&tenant, filters(&["a/#", "b"]));
        let two = fanout.listen(&tenant, filters(&["a/#"]));
        drop(one);
        assert_eq!(fanout.len(), 1);
        drop(two);
        assert_eq!(fanout.len(), 0);
        assert!(fanout.streams.lock().filters.is_empty());
    }

    #[test]
    fn drops_are_counted() {
        let (fanout, telemetry) = fanout();
        let tenant = TenantId::default();
        let _slow = fanout.listen(&tenant, filters(&["#"]));
        for _ in 0..5 {
            fanout.message(&tenant, &message("a"));
        }
        let dropped = "roost_messages_dropped_total{reason=\"queue_full\"}";
        assert_eq!(telemetry.value(dropped), Some(3.0));
    }
}
