//! A running edge, as whoever started it holds it: where it listens, and how it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use roost_telemetry::metrics::DrainState;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::edge::Edge;
use crate::lifecycle::Phase;
use crate::shed::{self, Plan, Why};
use crate::worker::Job;

/// A running edge. Dropping it ends its workers at once and without a word to the devices; to end
/// it well, [`EdgeHandle::drain`].
#[derive(Debug)]
pub struct EdgeHandle {
    edge: Arc<Edge>,
    /// Without TLS, and with it.
    addresses: [Option<SocketAddr>; 2],
    threads: Vec<JoinHandle<()>>,
    _stop: DropGuard,
    _closing: DropGuard,
}

/// How an edge is drained before its process ends.
#[derive(Debug, Clone, Default)]
pub struct DrainPlan {
    /// Over how long its devices are sent away, if the hub as a whole may shed them so fast; zero for all
    /// at once.
    pub over: Duration,
    /// After so much the rest is sent away at once; `None` for as long as it takes.
    pub most: Option<Duration>,
    /// Once cancelled, the rest is sent away at once.
    pub hurry: CancellationToken,
}

/// What a drain came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// How many connections were closed by force, since their peers did not answer in time.
    pub forced: u64,
}

// === impl EdgeHandle ===

impl EdgeHandle {
    pub(crate) fn new(
        edge: Arc<Edge>,
        addresses: [Option<SocketAddr>; 2],
        stop: CancellationToken,
    ) -> Self {
        let closing = edge.closing.clone().drop_guard();
        let threads = Vec::new();
        Self { edge, addresses, threads, _stop: stop.drop_guard(), _closing: closing }
    }

    pub(crate) fn add(&mut self, thread: JoinHandle<()>) {
        self.threads.push(thread);
    }

    /// Where devices connect; without TLS, where there is such a port.
    pub fn address(&self) -> SocketAddr {
        let [plain, tls] = self.addresses;
        plain.or(tls).expect("an edge has a listener")
    }

    /// The edge itself.
    pub fn edge(&self) -> &Arc<Edge> {
        &self.edge
    }

    /// Stops letting devices in: from now on they are answered 503. Those connected stay.
    pub fn stop_admitting(&self) {
        self.edge.lifecycle.advance(Phase::Draining);
        self.edge.telemetry.node.set_drain_state(DrainState::Draining);
    }

    /// Sends every device away over about that time: `goaway`, what waits for the socket, the session's
    /// release, close 1012; shuffled and paced. Then waits for the peers' close frames (see
    /// [`crate::Timeouts::close`]), forces the rest, closes the listeners and ends the workers.
    ///
    /// Not cancel safe: dropped half way it ends the workers at once.
    pub async fn drain(self, over: Duration) -> Drained {
        self.drain_as(DrainPlan { over, ..DrainPlan::default() }).await
    }

    /// The same, with more to say.
    pub async fn drain_as(self, plan: DrainPlan) -> Drained {
        self.stop_admitting();
        self.edge.end_orders();
        let forced = self.edge.forced.load(Ordering::Relaxed);
        let DrainPlan { over, most, hurry } = plan;
        tracing::info!(connections = self.edge.connections(), ?over, "draining the edge");
        let until = most.map(|most| Instant::now() + most);
        let plan = Plan { until, hurry, ..Plan::new(Why::Draining, over) };
        shed::run(&self.edge, &plan).await;
        let mut ends = Vec::new();
        for inbox in self.edge.inboxes() {
            let (done, end) = oneshot::channel();
            if inbox.send(Job::Finish(done)).await {
                ends.push(end);
            }
        }
        for end in ends {
            // A worker that has ended has nobody left.
            end.await.unwrap_or_default();
        }
        let forced = self.edge.forced.load(Ordering::Relaxed) - forced;
        self.stop().await;
        Drained { forced }
    }

    /// [`EdgeHandle::drain`] without pacing.
    pub async fn shutdown(self) -> Drained {
        self.drain(Duration::ZERO).await
    }

    async fn stop(self) {
        let Self { edge, threads, _stop: stop, _closing: closing, .. } = self;
        edge.lifecycle.advance(Phase::Closing);
        drop(closing);
        drop(stop);
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().filter_map(|thread| thread.join().err()).count()
        });
        match joined.await {
            Ok(0) => {}
            Ok(failed) => tracing::error!(failed, "workers of the edge panicked"),
            Err(error) => tracing::error!(%error, "could not wait for the edge's workers"),
        }
        edge.telemetry.node.set_drain_state(DrainState::Drained);
        edge.lifecycle.advance(Phase::Stopped);
    }
}
