//! The edge of one node: what its workers share, and what the rest of the node sees of it.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use roost_auth::DeviceAuthenticator;
use roost_cluster::{
    Lease, NodeEvent, NodeRef, NodeSink, SessionHolder, Store, StoreError, StoreHealth, Switchboard,
};
use roost_telemetry::Telemetry;
use roost_telemetry::metrics::EdgeMetrics;
use roost_telemetry::metrics::labels::{Direction, DropReason};
use roost_types::{Message, NodeId, SessionId, TenantId, UnixMillis};
use roost_wire::device::{PayloadLimits, SUBPROTOCOL_JSON};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::adapter;
use crate::admission::{Admission, Bucket};
use crate::config::EdgeConfig;
use crate::handle::EdgeHandle;
use crate::interests::Interests;
use crate::lifecycle::{Lifecycle, Phase};
use crate::listen::Listeners;
use crate::orders::Order;
use crate::registry::Registry;
use crate::session::Takeovers;
use crate::worker::{self, Inbox, Job, Place, Publication};

/// So many sessions are confirmed with the store in one request.
const CONFIRMED_AT_ONCE: usize = 500;
/// How far this node's hub time may lag behind the store's. Within it after a confirmation commands are
/// read from the mailbox instead of believed from pushes.
const CONFIRMED_SLACK: Duration = Duration::from_millis(100);

/// What an edge is made of.
#[derive(Debug)]
pub struct EdgeParts {
    /// How it behaves.
    pub config: EdgeConfig,
    /// Which node it is.
    pub node: NodeRef,
    /// What it shares with other nodes.
    pub store: Store,
    /// What brings it publications; the edge is to be attached to it as a sink.
    pub switchboard: Arc<Switchboard>,
    /// Whether it may act for its sessions.
    pub lease: Arc<Lease>,
    /// Who its devices are.
    pub authenticator: Arc<dyn DeviceAuthenticator>,
    /// What it counts into.
    pub telemetry: Telemetry,
}

/// The edge of one node. Attach it to the switchboard, give it to the keeper, then
/// [`Edge::serve`].
pub struct Edge {
    pub(crate) config: EdgeConfig,
    pub(crate) node: NodeRef,
    pub(crate) store: Store,
    pub(crate) switchboard: Arc<Switchboard>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) authenticator: Arc<dyn DeviceAuthenticator>,
    pub(crate) telemetry: Telemetry,
    /// The subprotocol's name, shared by all claims.
    pub(crate) protocol: Arc<str>,
    pub(crate) admission: Arc<Admission>,
    /// How fast connections are let in; `None` for no limit.
    pub(crate) bucket: Option<Bucket>,
    pub(crate) registry: Registry,
    pub(crate) interests: Interests,
    pub(crate) takeovers: Takeovers,
    /// Hub time in ms of the last confirmation of all sessions, 0 before the first. A command that
    /// was handed out before it may have been taken back since.
    confirmed_at: AtomicU64,
    pub(crate) lifecycle: Lifecycle,
    /// Whether an operator has drained this node, and it stays.
    pub(crate) drained_by_operator: watch::Sender<bool>,
    /// What an operator asked of this node last.
    pub(crate) orders: watch::Sender<Order>,
    pub(crate) orders_given: AtomicU64,
    /// How many connections of devices that were sent away had to be cut.
    pub(crate) forced: AtomicU64,
    /// Set when the listeners are to close.
    pub(crate) closing: CancellationToken,
    /// One per worker, by its index.
    pub(crate) inboxes: OnceLock<Box<[Inbox]>>,
}

// === impl Edge ===

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Edge({}, {:?})", self.node, self.phase())
    }
}

impl Edge {
    /// When all sessions were confirmed last, by hub time.
    pub(crate) fn confirmed_at(&self) -> UnixMillis {
        UnixMillis(self.confirmed_at.load(Ordering::Acquire))
    }

    /// An edge that does not listen yet.
    pub fn new(parts: EdgeParts) -> Arc<Self> {
        parts.telemetry.edge.set_connections_limit(parts.config.max_connections);
        Arc::new(Self {
            bucket: parts.config.connect_rate.map(Bucket::new),
            config: parts.config,
            node: parts.node,
            store: parts.store,
            switchboard: parts.switchboard,
            lease: parts.lease,
            authenticator: parts.authenticator,
            telemetry: parts.telemetry,
            protocol: SUBPROTOCOL_JSON.into(),
            admission: Arc::default(),
            registry: Registry::default(),
            interests: Interests::default(),
            takeovers: Takeovers::default(),
            confirmed_at: AtomicU64::new(0),
            lifecycle: Lifecycle::new(),
            drained_by_operator: watch::Sender::new(false),
            orders: watch::Sender::default(),
            orders_given: AtomicU64::new(0),
            forced: AtomicU64::new(0),
            closing: CancellationToken::new(),
            inboxes: OnceLock::new(),
        })
    }

    /// Starts one worker per listener of a port (see [`crate::bind_workers`]) and lets devices in.
    ///
    /// An error where a thread cannot be started, or where this edge serves already.
    pub fn serve(self: &Arc<Self>, listeners: impl Into<Listeners>) -> io::Result<EdgeHandle> {
        let listeners = listeners.into();
        let addresses = listeners.addresses()?;
        let listeners = listeners.by_worker()?;
        let (inboxes, received): (Vec<_>, Vec<_>) =
            listeners.iter().map(|_| worker::inbox()).unzip();
        self.inboxes
            .set(inboxes.into())
            .map_err(|_| io::Error::other("this edge serves already"))?;
        let stop = CancellationToken::new();
        // From here on, since workers that were started end with it where a later one cannot be.
        let mut handle = EdgeHandle::new(Arc::clone(self), addresses, stop.clone());
        for (index, (listener, received)) in (0u16..).zip(listeners.into_iter().zip(received)) {
            let edge = Arc::clone(self);
            handle.add(worker::start(edge, index, listener, received, stop.clone())?);
        }
        self.lifecycle.advance(Phase::Ready);
        Ok(handle)
    }

    /// Where this edge stands.
    pub fn phase(&self) -> Phase {
        self.lifecycle.now()
    }

    /// Follows the phase.
    pub fn watch_phase(&self) -> watch::Receiver<Phase> {
        self.lifecycle.watch()
    }

    /// How many connections there are, handshakes included.
    pub fn connections(&self) -> u64 {
        self.admission.connections()
    }

    /// Whether the store can be reached, as far as is known.
    pub(crate) fn store_is_up(&self) -> bool {
        *self.store.health.borrow() == StoreHealth::Up
    }

    /// A connection was cut, since its device did not answer the close frame of a drain.
    pub(crate) fn closed_by_force(&self) {
        self.forced.fetch_add(1, Ordering::Relaxed);
        self.telemetry.node.drain_forced(1);
    }

    pub(crate) fn metrics(&self) -> &Arc<EdgeMetrics> {
        &self.telemetry.edge
    }

    pub(crate) fn payload_limits(&self) -> PayloadLimits {
        PayloadLimits::new(self.config.limits.payload_bytes)
    }

    /// The inboxes of all workers; none before [`Edge::serve`].
    pub(crate) fn inboxes(&self) -> &[Inbox] {
        self.inboxes.get().map_or(&[], |inboxes| inboxes)
    }

    /// Has a session of this node that was replaced closed.
    pub(crate) fn close_replaced(&self, session: SessionId) {
        self.post(session, Job::Replaced);
    }

    /// Posts a job for a session's connection; nothing happens where it is gone.
    fn post(&self, session: SessionId, job: impl FnOnce(Place) -> Job) {
        if let Some(place) = self.registry.find(session)
            && let Some(inbox) = self.inboxes().get(usize::from(place.worker))
        {
            inbox.post(job(place));
        }
    }

    fn post_all(&self, job: impl Fn() -> Job) {
        for inbox in self.inboxes() {
            inbox.post(job());
        }
    }

    /// A session of this node lost its device to a session of the node `by`.
    fn on_replaced(&self, session: SessionId, by: &NodeId) {
        self.close_replaced(session);
        // Also where the session is unknown here: gone is as good as closing.
        let by = by.clone();
        if let Some(inbox) = self.inboxes().first() {
            inbox.post(Job::ConfirmReplaced { session, by });
        }
    }
}

impl NodeSink for Edge {
    fn message(&self, tenant: &TenantId, message: &Arc<Message>) {
        let workers = self.interests.workers(tenant, &message.topic);
        if workers == 0 {
            return;
        }
        let publication = Publication {
            tenant: tenant.clone(),
            topic: message.topic.clone(),
            frame: adapter::encode_publication(message),
            time: message.time,
        };
        self.metrics().message_sized(Direction::Out, publication.frame.len());
        for (index, inbox) in self.inboxes().iter().enumerate() {
            if workers & (1 << index) != 0 && !inbox.publish(publication.clone()) {
                self.metrics().messages_dropped.inc(DropReason::Internal);
            }
        }
    }

    fn gap(&self) {
        self.inboxes().iter().for_each(Inbox::gap);
    }

    fn node_event(&self, event: &NodeEvent) {
        match event {
            NodeEvent::Deliver { session, command, prev } => self.post(*session, |place| {
                let (command, prev) = (command.clone(), *prev);
                Job::Deliver { place, command, prev }
            }),
            NodeEvent::Drain { session, .. } => self.post(*session, Job::ReadMail),
            NodeEvent::Cancel { session, command, .. } => {
                self.post(*session, |place| Job::Cancel(place, command.clone()));
            }
            NodeEvent::Replaced { session, by, .. } => self.on_replaced(*session, by),
            NodeEvent::ReplacedDone { session } => {
                if let Some(waiting) = self.takeovers.get(session) {
                    waiting.notify_one();
                }
            }
            NodeEvent::Disconnect { session, reason, .. } => {
                self.post(*session, |place| Job::Disconnect(place, Arc::clone(reason)));
            }
            NodeEvent::DrainNode { over } => self.drain_ordered(*over),
            NodeEvent::UndrainNode => self.undrain_ordered(),
            NodeEvent::Rebalance { surplus, over } => self.rebalance_ordered(*surplus, *over),
            NodeEvent::CommandUpdate(_) => {}
        }
    }

    fn resubscribed(&self) {
        self.post_all(|| Job::ReadAllMail);
    }
}

#[async_trait]
impl SessionHolder for Edge {
    fn devices(&self) -> u64 {
        self.registry.len() as u64
    }

    fn draining(&self) -> bool {
        !self.admits()
    }

    fn watch_draining(&self) -> Option<watch::Receiver<bool>> {
        Some(self.watch_drained_by_operator())
    }

    async fn revalidate(&self) -> Result<(), StoreError> {
        for inbox in self.inboxes() {
            let (answer, claims) = oneshot::channel();
            // A worker that has ended has no sessions.
            let claims = if inbox.send(Job::Claims(answer)).await {
                claims.await.unwrap_or_default()
            } else {
                Vec::new()
            };
            for some in claims.chunks(CONFIRMED_AT_ONCE) {
                let (places, claims): (Vec<_>, Vec<_>) = some.iter().cloned().unzip();
                let outcomes = self.store.sessions.revalidate(&claims).await?;
                let confirmed = places.into_iter().zip(outcomes).collect();
                inbox.send(Job::Confirmed(confirmed)).await;
            }
        }
        let now = self.store.clock.now().plus(CONFIRMED_SLACK);
        self.confirmed_at.store(now.0, Ordering::Release);
        Ok(())
    }
}
