//! A running edge, as whoever started it holds it: where it listens, and how it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use roost_telemetry::metrics::DrainState;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::edge::Edge;
use crate::lifecycle::Phase;
use crate::worker::Job;

/// A running edge. Dropping it ends its workers at once and without a word to the devices; to end
/// it well, [`EdgeHandle::drain`].
#[derive(Debug)]
pub struct EdgeHandle {
    edge: Arc<Edge>,
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
    _stop: DropGuard,
    _closing: DropGuard,
}

/// What a drain came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// How many connections were closed by force, since their peers did not answer in time.
    pub forced: u64,
}

// === impl EdgeHandle ===

impl EdgeHandle {
    pub(crate) fn new(edge: Arc<Edge>, address: SocketAddr, stop: CancellationToken) -> Self {
        let closing = edge.closing.clone().drop_guard();
        let threads = Vec::new();
        Self { edge, address, threads, _stop: stop.drop_guard(), _closing: closing }
    }

    pub(crate) fn add(&mut self, thread: JoinHandle<()>) {
        self.threads.push(thread);
    }

    /// Where devices connect.
    pub fn address(&self) -> SocketAddr {
        self.address
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

    /// Sends every device away within `within`: `goaway` and close 1012, shuffled and paced, each
    /// session released; then waits for the peers' close frames (see
    /// [`crate::Timeouts::close`]), forces the rest, closes the listeners and ends the workers.
    ///
    /// Not cancel safe: dropped half way it ends the workers at once.
    pub async fn drain(self, within: Duration) -> Drained {
        self.stop_admitting();
        tracing::info!(connections = self.edge.connections(), ?within, "draining the edge");
        let mut ends = Vec::new();
        for inbox in self.edge.inboxes() {
            let (done, end) = oneshot::channel();
            if inbox.send(Job::Drain(within, done)).await {
                ends.push(end);
            }
        }
        let mut forced = 0;
        for end in ends {
            forced += end.await.unwrap_or(0);
        }
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
