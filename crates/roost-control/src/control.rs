//! A control node put together: what every service shares, and what the bus brings. The services are
//! in `commands.rs`, `devices.rs`, `messages.rs` and `cluster.rs`; the port in `server.rs`.

use std::future::Future;
use std::sync::Arc;

use roost_auth::ApiKeys;
use roost_cluster::{NodeEvent, NodeSink, Store, StoreError, Switchboard};
use roost_telemetry::Telemetry;
use roost_telemetry::metrics::{ControlMetrics, EdgeMetrics};
use roost_telemetry::trace::{self, Tracer};
use roost_types::{ErrorCode, Message, TenantId};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ControlConfig;
use crate::fanout::Fanout;
use crate::refusal::Refusal;
use crate::waiters::Waiters;

/// The control role of one node.
pub struct Control {
    pub(crate) config: ControlConfig,
    pub(crate) store: Store,
    pub(crate) switchboard: Arc<Switchboard>,
    pub(crate) keys: Arc<ApiKeys>,
    pub(crate) metrics: Arc<ControlMetrics>,
    /// Messages and gaps are counted alike for devices and streams.
    pub(crate) edge_metrics: Arc<EdgeMetrics>,
    /// Makes the spans of calls.
    pub(crate) tracer: Tracer,
    /// Callers that wait for commands.
    pub(crate) waiters: Arc<Waiters>,
    /// Streams that follow topics.
    pub(crate) fanout: Arc<Fanout>,
    /// What must come to its end although its caller has gone: acceptances and subscriptions.
    pub(crate) tasks: TaskTracker,
    /// Cancelled first in a shutdown: streams end.
    pub(crate) stopping: CancellationToken,
    /// Cancelled half way through a shutdown: waits for commands end.
    pub(crate) hurry: CancellationToken,
}

// === impl Control ===

impl Control {
    /// The control role over a store. To be attached to `switchboard` as a sink before that runs.
    pub fn new(
        config: ControlConfig,
        store: Store,
        switchboard: Arc<Switchboard>,
        keys: ApiKeys,
        telemetry: &Telemetry,
    ) -> Arc<Self> {
        let fanout = Fanout::new(&config, Arc::clone(&telemetry.edge));
        Arc::new(Self {
            config,
            store,
            switchboard,
            keys: Arc::new(keys),
            metrics: Arc::clone(&telemetry.control),
            edge_metrics: Arc::clone(&telemetry.edge),
            tracer: telemetry.tracer.clone(),
            waiters: Arc::default(),
            fanout: Arc::new(fanout),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            hurry: CancellationToken::new(),
        })
    }

    /// Asks the store for a change. No answer in time means that it may have been made.
    pub(crate) async fn change<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Refusal> {
        Ok(self.in_time(operation).await?)
    }

    /// Asks the store for what it has.
    pub(crate) async fn read<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Refusal> {
        let answer = self.in_time(operation).await;
        answer.map_err(|error| Refusal::of_read(&error))
    }

    async fn in_time<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = self.config.store_deadline;
        let answer = timeout(limit, operation).await;
        answer.unwrap_or_else(|_| {
            let waited = format!("no answer within {} ms", limit.as_millis());
            Err(StoreError::Indeterminate(waited))
        })
    }

    /// Runs what must not be left half done in a task of its own: it goes on when the caller goes away.
    pub(crate) async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.tasks.spawn(trace::in_current(work)).await.unwrap_or_else(|error| {
            tracing::error!(%error, "a call's work broke off");
            Err(Refusal::new(ErrorCode::Internal, "the hub made a mistake; its log has more"))
        })
    }

    /// Tells a node something that it can do without: what gets lost is found by a sweep, or read by
    /// whoever waits for it.
    pub(crate) async fn nudge(&self, sent: impl Future<Output = Result<(), StoreError>>) {
        if let Err(error) = self.in_time(sent).await {
            tracing::warn!(%error, "could not tell a node; the sweep will find what is due");
        }
    }
}

/// What a stream is told when this node goes away, or the stream is old enough.
pub(crate) fn draining() -> Refusal {
    Refusal::new(
        ErrorCode::Draining,
        "this node ends the stream in order; open it again, on another node if need be",
    )
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Control({})", self.config.node)
    }
}

impl NodeSink for Control {
    fn message(&self, tenant: &TenantId, message: &Arc<Message>) {
        self.fanout.message(tenant, message);
    }

    fn gap(&self) {
        self.fanout.gap();
    }

    fn node_event(&self, event: &NodeEvent) {
        if let NodeEvent::CommandUpdate(command) = event {
            self.waiters.update(command);
        }
    }

    fn resubscribed(&self) {
        self.waiters.interrupted();
    }
}
