//! Keeps this node alive in the store: heartbeats, fencing after a lapse, and its turn at the sweeps.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use roost_types::NodeId;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{Lease, NodeEvent, NodeInfo, Store, StoreError, SweepFinding};

/// Whoever on this node holds sessions: the edge.
#[async_trait]
pub trait SessionHolder: Send + Sync {
    /// How many devices are connected.
    fn devices(&self) -> u64;
    /// Whether no new devices are taken.
    fn draining(&self) -> bool;
    /// Confirms every session with the store after an interruption, closes those that were lost,
    /// and reads the mailboxes of the others. An error means: ask again.
    async fn revalidate(&self) -> Result<(), StoreError>;
}

/// The loop that keeps a node's lease.
pub struct Keeper {
    store: Store,
    info: NodeInfo,
    lease: Arc<Lease>,
    length: Duration,
    sweep_every: Duration,
    holder: Option<Arc<dyn SessionHolder>>,
}

// === impl Keeper ===

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keeper({})", self.info.node)
    }
}

impl Keeper {
    /// A keeper for this node. `length` is the lease's, `sweep_every` how often *some* node sweeps.
    pub fn new(
        store: Store,
        info: NodeInfo,
        lease: Arc<Lease>,
        length: Duration,
        holder: Option<Arc<dyn SessionHolder>>,
    ) -> Self {
        let sweep_every = (length / 5).clamp(Duration::from_millis(100), Duration::from_secs(5));
        Self { store, info, lease, length, sweep_every, holder }
    }

    /// The first heartbeat, before anything is served: an error says why this node cannot join.
    pub async fn join(&mut self) -> Result<(), StoreError> {
        self.beat().await
    }

    /// Beats and sweeps until told to stop, then gives the lease up.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut beat = tokio::time::interval(self.length / 3);
        let mut sweep = tokio::time::interval(self.sweep_every);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut health = self.store.health.clone();
        let mut health_ends = false;
        loop {
            tokio::select! {
                biased;
                // Stopping comes first.
                () = stop.cancelled() => break,
                // A store that came back is told at once that this node lives.
                changed = health.changed(), if !health_ends => {
                    health_ends = changed.is_err();
                    self.beat_and_log().await;
                }
                // Before the sweep: staying alive matters more than others' ends.
                _ = beat.tick() => self.beat_and_log().await,
                _ = sweep.tick() => {
                    if let Err(error) = self.sweep().await {
                        tracing::debug!(%error, "a sweep was cut short; the next one goes on");
                    }
                }
            }
        }
        if let Err(error) = self.store.nodes.leave(&self.info.node).await {
            tracing::warn!(%error, "could not give the lease up; it ends by itself");
        }
    }

    async fn beat_and_log(&mut self) {
        let was_valid = self.lease.is_valid();
        match self.beat().await {
            Ok(()) if !was_valid && self.lease.is_valid() => {
                tracing::info!(node = %self.info.node, "the lease runs again and the sessions are confirmed");
            }
            Ok(()) => {}
            Err(error) => tracing::warn!(node = %self.info.node, %error, "heartbeat failed"),
        }
    }

    async fn beat(&mut self) -> Result<(), StoreError> {
        if let Some(holder) = &self.holder {
            self.info.devices = holder.devices();
            self.info.draining = holder.draining();
        }
        let sent = Instant::now();
        self.store.nodes.heartbeat(&self.info).await?;
        if self.lease.renew(sent, self.length) {
            if let Some(holder) = &self.holder {
                holder.revalidate().await?;
            }
            self.lease.resume();
        }
        Ok(())
    }

    /// Ends what is over, hub-wide, if it is this node's turn.
    async fn sweep(&self) -> Result<(), StoreError> {
        if !self.lease.is_valid() {
            return Ok(());
        }
        let nodes = &self.store.nodes;
        if !nodes.take_turn("sweep", self.sweep_every).await? {
            return Ok(());
        }
        for node in nodes.dead().await? {
            let ended = self.store.sessions.end_sessions_of(&node).await?;
            nodes.forget(&node).await?;
            tracing::info!(%node, ended, "ended the sessions of a dead node");
        }
        for finding in self.store.mailboxes.sweep().await? {
            self.act_on(finding).await?;
        }
        Ok(())
    }

    async fn act_on(&self, finding: SweepFinding) -> Result<(), StoreError> {
        match finding {
            SweepFinding::Expired { command, waiting } => {
                let event = NodeEvent::CommandUpdate(command);
                tell(&self.store, &waiting, &event).await
            }
            SweepFinding::Undelivered { device, session, node } => {
                let event = NodeEvent::Drain { device, session };
                self.store.bus.send(&node, &event).await
            }
        }
    }
}

async fn tell(store: &Store, nodes: &[NodeId], event: &NodeEvent) -> Result<(), StoreError> {
    for node in nodes {
        store.bus.send_to(node, event).await?;
    }
    Ok(())
}
