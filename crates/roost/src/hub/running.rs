//! A node that runs, and how it goes away: not ready → devices sent away, paced → gRPC → lease and
//! store → admin, all under one deadline.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use roost_cluster::{NodeRef, StoreHealth};
use roost_control::ServeError;
use roost_edge::{DrainPlan, EdgeHandle};
use roost_redis::RedisRuntime;
use roost_telemetry::Telemetry;
use roost_telemetry::trace::SpanExport;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Addresses;
use super::Phase;
use super::health::Checks;
use crate::config::ShutdownConfig;
use roost_edge::Lifecycle;

/// What is left of `shutdown.grace` when devices that are still there are sent away at once: for their
/// closes, for gRPC calls and for the rest.
const AFTER_DRAIN: Duration = Duration::from_secs(10);
/// How long the last spans may take to their collector.
const LAST_SPANS: Duration = Duration::from_secs(1);

/// A node that serves. Dropping it ends its tasks at once, as a crash would; [`RunningHub::shutdown`]
/// ends it in order.
pub struct RunningHub {
    parts: Parts,
    tasks: Tasks,
    lifecycle: Lifecycle,
    hurry: CancellationToken,
    /// Keeps a node without an edge from counting as drained.
    never_drained: watch::Sender<bool>,
    /// Dropped last of all: the checks fail then.
    health: JoinSet<()>,
}

/// What a node is made of, once started.
pub(super) struct Parts {
    pub(super) addresses: Addresses,
    pub(super) node: NodeRef,
    pub(super) telemetry: Telemetry,
    pub(super) shutdown: ShutdownConfig,
    pub(super) redis: Option<RedisRuntime>,
    pub(super) spans: Option<SpanExport>,
    pub(super) edge: Option<EdgeHandle>,
    /// Asks for a look at the certificates; `None` where there are none.
    pub(super) certificates: Option<Arc<Notify>>,
}

/// The node's tasks, each with a name and a way to be told to end.
pub(super) struct Tasks {
    /// Ends gRPC.
    pub(super) grpc_stop: CancellationToken,
    /// Ends what both roles need: the bus, the lease.
    pub(super) core_stop: CancellationToken,
    /// Ends the admin server.
    pub(super) admin_stop: CancellationToken,
    grpc: JoinSet<Result<(), ServeError>>,
    last: JoinSet<&'static str>,
}

// === impl Tasks ===

impl Tasks {
    pub(super) fn new() -> Self {
        Self {
            grpc_stop: CancellationToken::new(),
            core_stop: CancellationToken::new(),
            admin_stop: CancellationToken::new(),
            grpc: JoinSet::new(),
            last: JoinSet::new(),
        }
    }

    /// Runs a task that ends only when it is told to.
    pub(super) fn last(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.last.spawn(async move {
            task.await;
            name
        });
    }

    /// Runs the gRPC server.
    pub(super) fn grpc(
        &mut self,
        server: impl Future<Output = Result<(), ServeError>> + Send + 'static,
    ) {
        self.grpc.spawn(server);
    }

    /// Which task ended though nobody told it to, and how. Waits for as long as all is well.
    async fn failed(&mut self) -> String {
        tokio::select! {
            Some(ended) = self.grpc.join_next() => match ended {
                Ok(Ok(())) => "the gRPC server ended by itself".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(error) => format!("the gRPC server broke: {error}"),
            },
            Some(ended) = self.last.join_next() => match ended {
                Ok(name) => format!("{name} ended by itself"),
                Err(error) => format!("a task of the node broke: {error}"),
            },
        }
    }
}

// === impl RunningHub ===

impl fmt::Debug for RunningHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunningHub({}, {:?})", self.parts.node, self.parts.addresses)
    }
}

impl RunningHub {
    pub(super) fn new(parts: Parts, tasks: Tasks) -> Self {
        Self {
            parts,
            tasks,
            lifecycle: Lifecycle::new(),
            hurry: CancellationToken::new(),
            never_drained: watch::Sender::new(false),
            health: JoinSet::new(),
        }
    }

    pub(super) fn follow_health(&mut self, checks: Checks, store: watch::Receiver<StoreHealth>) {
        // At once, and not when the task comes round to it: a node that says that it listens is ready.
        let edge = self.parts.edge.as_ref().map(|edge| edge.edge().watch_drained_by_operator());
        // A node without devices is never drained.
        let drained = edge.unwrap_or_else(|| self.never_drained.subscribe());
        checks.show(self.lifecycle.now(), *drained.borrow(), &store.borrow());
        self.health.spawn(checks.follow(self.lifecycle.watch(), drained, store));
    }

    pub(super) fn advance(&self, next: Phase) {
        self.lifecycle.advance(next);
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.parts.addresses
    }

    /// Who it is, in this life of it.
    pub fn node(&self) -> &NodeRef {
        &self.parts.node
    }

    /// What it counts.
    pub fn telemetry(&self) -> &Telemetry {
        &self.parts.telemetry
    }

    /// Follows its phase.
    pub fn watch_phase(&self) -> watch::Receiver<Phase> {
        self.lifecycle.watch()
    }

    /// Looks at once whether the certificates have changed, which happens every few seconds anyway.
    pub fn reload_certificates(&self) {
        if let Some(watch) = &self.parts.certificates {
            watch.notify_one();
        }
    }

    /// Once cancelled, a shutdown skips its waits.
    pub fn hurry(&self) -> CancellationToken {
        self.hurry.clone()
    }

    /// Why a part of it ended though nobody told it to. Waits for as long as all is well.
    ///
    /// Cancel safe.
    pub async fn failed(&mut self) -> String {
        self.tasks.failed().await
    }

    /// Ends in order, within `shutdown.grace`: what is not done by then is dropped.
    pub async fn shutdown(mut self) {
        let grace = self.parts.shutdown.grace;
        let lifecycle = self.lifecycle.watch();
        if tokio::time::timeout(grace, self.end()).await.is_err() {
            let phase = *lifecycle.borrow();
            tracing::warn!(
                ?phase,
                "the shutdown took longer than {} s and was cut short",
                grace.as_secs()
            );
        }
        self.advance(Phase::Stopped);
    }

    async fn end(&mut self) {
        self.advance(Phase::Draining);
        tracing::info!("draining");
        unless(&self.hurry, tokio::time::sleep(self.parts.shutdown.delay)).await;
        if let Some(edge) = self.parts.edge.take() {
            let ShutdownConfig { drain, delay, grace, .. } = self.parts.shutdown;
            let most = grace.saturating_sub(delay + AFTER_DRAIN).max(drain);
            let hurry = self.hurry.clone();
            // A second signal skips the pace, not the word to each device.
            let drained = edge.drain_as(DrainPlan { over: drain, most: Some(most), hurry }).await;
            if drained.forced > 0 {
                tracing::info!(
                    drained.forced,
                    "some devices did not answer the close and were cut"
                );
            }
        }
        self.advance(Phase::Closing);
        self.tasks.grpc_stop.cancel();
        unless(&self.hurry, async { while self.tasks.grpc.join_next().await.is_some() {} }).await;
        self.tasks.grpc.shutdown().await;
        self.tasks.core_stop.cancel();
        self.tasks.admin_stop.cancel();
        while self.tasks.last.join_next().await.is_some() {}
        if let Some(redis) = self.parts.redis.take() {
            redis.stop().await;
        }
        if let Some(spans) = self.parts.spans.take() {
            unless(&self.hurry, spans.finish(LAST_SPANS)).await;
        }
        tracing::info!("stopped");
    }
}

/// Waits for a step of the shutdown, unless it is hurried.
async fn unless(hurry: &CancellationToken, step: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        // A second signal skips ahead.
        () = hurry.cancelled() => {}
        () = step => {}
    }
}
