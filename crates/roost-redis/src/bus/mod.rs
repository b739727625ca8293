//! The `Bus` seam: publications and events over Redis pub/sub.
//!
//! Every node listens to its own channel, to the channel `wild`, and to the channel of each topic
//! that it declared exactly. Wildcard filters have no channels: they stand in a table that every node
//! has a copy of (`wild.rs`). A publication goes to its topic's channel, and to the own channel of each
//! node with a matching wildcard; the copy on the topic's channel names those nodes, and they ignore
//! it. So each node gets it once. `subscriber/` keeps the connections, `feed/` is one; `inbox.rs` queues what they bring. In a cluster the
//! channels are sharded: each lives with the slot of its name, and a publication goes to that master only.

mod envelope;
mod feed;
mod inbox;
mod subscriber;
mod table;
mod wild;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use redis::Value;
use roost_cluster::{Bus, BusEvent, NodeEvent, NodeRef, StoreError};
use roost_proto::internal::v1::node_envelope::Kind;
use roost_telemetry::metrics::labels::RedisCommand;
use roost_types::{FilterTrie, Message, NodeId, TenantId, Topic, TopicFilter};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::error::StartError;
use crate::link::Link;
use crate::store::RedisStore;

use feed::{PLAIN, SHARDED, Verbs};
use inbox::Inbox;
pub(crate) use subscriber::BusTask;
use table::WildTable;

/// How many changes of channels may wait for the subscriber. Beyond it their makers wait.
const REQUESTS: usize = 1_024;

/// Asks the subscriber to change its channels.
enum Request {
    Subscribe(String, oneshot::Sender<Result<(), StoreError>>),
    Unsubscribe(String),
}

/// A node's side of the bus.
pub(crate) struct BusNode {
    link: Arc<Link>,
    node: NodeRef,
    /// All nodes' wildcard filters.
    table: RwLock<WildTable>,
    /// What this node declared, exact and wildcard.
    own: RwLock<HashMap<TenantId, FilterTrie<()>>>,
    /// The wildcards among them, to be put into the table again after an interruption.
    own_wild: Mutex<HashSet<(TenantId, TopicFilter)>>,
    requests: mpsc::Sender<Request>,
    /// How many nodes have each version of the table that a declaration here waits for.
    acks: Mutex<HashMap<u64, watch::Sender<u64>>>,
    /// Whether the channels are subscribed and the table is whole.
    ready: AtomicBool,
    /// This node left the hub: its filters stay out of the table.
    left: AtomicBool,
    /// Others struck this node's filters off the table, and they are not back yet.
    struck: AtomicBool,
    events: Mutex<Option<mpsc::Receiver<BusEvent>>>,
    /// Rung when presence events may be there to read.
    pub(crate) bell: Notify,
}

// === impl BusNode ===

impl std::fmt::Debug for BusNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BusNode({})", self.node)
    }
}

impl BusNode {
    /// Subscribes for the first time. The task has to be run for anything to arrive.
    pub(crate) async fn open(
        link: Arc<Link>,
        node: NodeRef,
    ) -> Result<(Arc<Self>, BusTask), StartError> {
        let (requests, asked) = mpsc::channel(REQUESTS);
        let (inbox, events) = Inbox::new();
        let bus = Arc::new(Self {
            link,
            node,
            table: RwLock::default(),
            own: RwLock::default(),
            own_wild: Mutex::default(),
            requests,
            acks: Mutex::default(),
            ready: AtomicBool::new(false),
            left: AtomicBool::new(false),
            struck: AtomicBool::new(false),
            events: Mutex::new(Some(events)),
            bell: Notify::new(),
        });
        let task = BusTask::start(Arc::clone(&bus), asked, inbox).await?;
        Ok((bus, task))
    }

    /// Whether something here wants this topic.
    fn wants(&self, tenant: &TenantId, topic: &Topic) -> bool {
        self.own.read().get(tenant).is_some_and(|filters| filters.matches_any(topic))
    }

    fn note_own(&self, tenant: &TenantId, filter: &TopicFilter) {
        self.own.write().entry(tenant.clone()).or_default().get_or_insert_with(filter, || ());
        if filter.is_wildcard() {
            self.own_wild.lock().insert((tenant.clone(), filter.clone()));
        }
    }

    fn drop_own(&self, tenant: &TenantId, filter: &TopicFilter) {
        self.own_wild.lock().remove(&(tenant.clone(), filter.clone()));
        let mut own = self.own.write();
        if let Some(filters) = own.get_mut(tenant) {
            filters.remove(filter);
            if filters.is_empty() {
                own.remove(tenant);
            }
        }
    }

    /// Subscribes to one channel; returns when Redis has confirmed it.
    pub(crate) async fn subscribe(&self, channel: String) -> Result<(), StoreError> {
        let gone = || StoreError::NotSent("the subscriber has stopped".into());
        let (done, answer) = oneshot::channel();
        let request = Request::Subscribe(channel, done);
        self.requests.send(request).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    pub(crate) async fn unsubscribe(&self, channel: String) {
        if self.requests.send(Request::Unsubscribe(channel)).await.is_err() {
            tracing::debug!("the subscriber has stopped; its channels went with it");
        }
    }

    /// How this Redis' channels are called.
    pub(crate) fn verbs(&self) -> &'static Verbs {
        if self.link.target().is_cluster() { &SHARDED } else { &PLAIN }
    }

    /// Publishes bytes on channels, all on one way. Gives how many listened to the first.
    async fn send_bytes(&self, channels: &[String], bytes: &[u8]) -> Result<u64, StoreError> {
        let mut pipe = redis::pipe();
        for channel in channels {
            pipe.cmd(self.verbs().publish).arg(channel).arg(bytes);
        }
        let found = self.link.ask(RedisCommand::Publish, &mut pipe).await?;
        match found.first() {
            Some(Value::Int(listeners)) => Ok(u64::try_from(*listeners).unwrap_or_default()),
            _ => Ok(0),
        }
    }

    async fn send_event(
        &self,
        node: &NodeId,
        incarnation: u64,
        event: &NodeEvent,
    ) -> Result<(), StoreError> {
        let bytes = envelope::seal(incarnation, envelope::event(event));
        self.send_bytes(&[self.link.keys.node_channel(node)], &bytes).await.map(drop)
    }

    async fn publish(&self, tenant: &TenantId, message: &Message) -> Result<(), StoreError> {
        if !self.ready.load(Ordering::Acquire) {
            // The table may lack filters: nodes would be left out in silence.
            return Err(StoreError::NotSent("the subscriptions are being restored".into()));
        }
        let nodes = self.table.read().nodes_for(tenant, &message.topic);
        let also = nodes.iter().map(ToString::to_string).collect();
        let mut channels = vec![self.link.keys.topic_channel(tenant, &message.topic)];
        channels.extend(nodes.iter().map(|node| self.link.keys.node_channel(node)));
        let publication = envelope::publication(tenant, message, also);
        let bytes = envelope::seal(0, Kind::Publication(publication));
        self.send_bytes(&channels, &bytes).await.map(drop)
    }

    async fn declare(&self, tenant: &TenantId, filter: &TopicFilter) -> Result<(), StoreError> {
        self.note_own(tenant, filter);
        let done = match filter.as_topic() {
            Some(topic) => self.subscribe(self.link.keys.topic_channel(tenant, &topic)).await,
            None if self.ready.load(Ordering::Acquire) => self.declare_wild(tenant, filter).await,
            None => Err(StoreError::NotSent("the subscriptions are being restored".into())),
        };
        if done.is_err() {
            self.drop_own(tenant, filter);
            if let Some(topic) = filter.as_topic() {
                // It may be subscribed after all, or would be after the next interruption.
                self.unsubscribe(self.link.keys.topic_channel(tenant, &topic)).await;
            }
        }
        done
    }

    async fn withdraw(&self, tenant: &TenantId, filter: &TopicFilter) -> Result<(), StoreError> {
        self.drop_own(tenant, filter);
        match filter.as_topic() {
            Some(topic) => {
                self.unsubscribe(self.link.keys.topic_channel(tenant, &topic)).await;
                Ok(())
            }
            None => self.withdraw_wild(tenant, filter).await,
        }
    }
}

#[async_trait]
impl Bus for RedisStore {
    async fn publish(&self, tenant: &TenantId, message: Arc<Message>) -> Result<(), StoreError> {
        self.bus.publish(tenant, &message).await
    }

    async fn declare(&self, tenant: &TenantId, filter: &TopicFilter) -> Result<(), StoreError> {
        self.bus.declare(tenant, filter).await
    }

    async fn withdraw(&self, tenant: &TenantId, filter: &TopicFilter) -> Result<(), StoreError> {
        self.bus.withdraw(tenant, filter).await
    }

    async fn send(&self, node: &NodeRef, event: &NodeEvent) -> Result<(), StoreError> {
        self.bus.send_event(&node.id, node.incarnation, event).await
    }

    async fn send_to(&self, node: &NodeId, event: &NodeEvent) -> Result<(), StoreError> {
        self.bus.send_event(node, 0, event).await
    }

    fn take_events(&self) -> Option<mpsc::Receiver<BusEvent>> {
        self.bus.events.lock().take()
    }
}
