//! Keeps this node alive in the store: heartbeats, and fencing after a lapse. Its turn at the sweeps is
//! in `sweeper.rs`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use roost_types::CommandState;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::sweeper::{OnEnd, OnTally, Sweeper};
use crate::{Lease, NodeInfo, Store, StoreError, StoreHealth, Tally};

/// How often a node asks for a name that its former life holds.
const JOIN_AGAIN: Duration = Duration::from_millis(500);
/// How much longer than a lease it asks.
const JOIN_MARGIN: Duration = Duration::from_secs(2);

/// Whoever on this node holds sessions: the edge.
#[async_trait]
pub trait SessionHolder: Send + Sync {
    /// How many devices are connected.
    fn devices(&self) -> u64;
    /// Whether no new devices are taken.
    fn draining(&self) -> bool;
    /// Follows that, so that others learn of it before the next heartbeat is due.
    fn watch_draining(&self) -> Option<watch::Receiver<bool>> {
        None
    }
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
    on_end: Option<OnEnd>,
    on_tally: Option<OnTally>,
    /// The last heartbeat had no answer.
    failing: bool,
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
        let (on_end, on_tally, failing) = (None, None, false);
        Self { store, info, lease, length, sweep_every, holder, on_end, on_tally, failing }
    }

    /// Calls `count` with the final state of each command that this node's sweeps end.
    #[must_use]
    pub fn on_end(mut self, count: impl Fn(CommandState) + Send + Sync + 'static) -> Self {
        self.on_end = Some(Box::new(count));
        self
    }

    /// Calls `show` with what waits in all mailboxes and how long the oldest of it has, each time that
    /// this node counted it: twice a minute where it is the one that does.
    #[must_use]
    pub fn on_tally(mut self, show: impl Fn(Tally, Duration) + Send + Sync + 'static) -> Self {
        self.on_tally = Some(Box::new(show));
        self
    }

    /// The first heartbeat, before anything is served: an error says why this node cannot join.
    ///
    /// A node that was killed and started again under the same name finds the name held by its former
    /// life, and waits until that lease is over.
    pub async fn join(&mut self) -> Result<(), StoreError> {
        let patience = Instant::now() + self.length + JOIN_MARGIN;
        let mut said = false;
        loop {
            match self.beat().await {
                Err(StoreError::Fenced) if Instant::now() < patience => {}
                done => return done,
            }
            if !said {
                said = true;
                tracing::warn!(
                    node = %self.info.node, lease = ?self.length,
                    "another process, or a former life of this one, holds this node's name; waiting for its lease to end"
                );
            }
            tokio::time::sleep(JOIN_AGAIN).await;
        }
    }

    /// Beats and sweeps until told to stop, then ends what sessions are left and gives the lease up.
    pub async fn run(mut self, stop: CancellationToken) {
        let sweeper = self.sweeper();
        tokio::select! {
            biased;
            // Stopping comes first.
            () = stop.cancelled() => {}
            // Side by side: a sweep that takes long must not hold up the sign of life.
            () = async { tokio::join!(self.keep_beating(), sweeper.run()); } => {}
        }
        if let Err(error) = self.leave().await {
            tracing::warn!(%error, "could not give the lease up; it ends by itself");
        }
    }

    /// A node that has left is not found dead by anybody: sessions that it could not release would
    /// stay.
    async fn leave(&self) -> Result<(), StoreError> {
        let node = &self.info.node;
        if self.holder.is_some() {
            while self.store.sessions.end_sessions_of(node).await? > 0 {}
        }
        self.store.nodes.leave(node).await
    }

    async fn keep_beating(&mut self) {
        let mut beat = tokio::time::interval(self.length / 3);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut health = self.store.health.clone();
        let mut health_ends = false;
        let mut draining = self.holder.as_ref().and_then(|holder| holder.watch_draining());
        loop {
            tokio::select! {
                biased;
                // A store that came back is told at once that this node lives.
                changed = health.changed(), if !health_ends => {
                    health_ends = changed.is_err();
                    if !health_ends {
                        // It may come back without what it knew: the sessions are confirmed before
                        // anybody acts for them again.
                        self.lease.suspend();
                    }
                    if *health.borrow_and_update() == StoreHealth::Up {
                        self.beat_and_log().await;
                    }
                }
                () = changed(draining.as_mut()) => self.beat_and_log().await,
                _ = beat.tick() => self.beat_and_log().await,
            }
        }
    }

    /// Says when heartbeats begin to fail and when they are through again, not each time.
    async fn beat_and_log(&mut self) {
        let was_failing = self.failing;
        let beat = self.beat().await;
        self.failing = beat.is_err();
        match beat {
            Ok(()) if was_failing => {
                tracing::info!(node = %self.info.node, "the lease runs again and the sessions are confirmed");
            }
            Err(error) if !was_failing => {
                tracing::warn!(node = %self.info.node, %error, "heartbeats fail; without one the lease will end");
            }
            Ok(()) | Err(_) => {}
        }
    }

    async fn beat(&mut self) -> Result<(), StoreError> {
        let mut health = self.store.health.clone();
        health.mark_unchanged();
        if self.renew().await? {
            if let Some(holder) = self.holder.clone() {
                self.beat_beside(holder.revalidate()).await?;
            }
            // What was confirmed before an interruption says nothing about what is there after it: the
            // loop, which hears of the change too, has it confirmed again.
            if !health.has_changed().unwrap_or(false) {
                self.lease.resume();
            }
        }
        Ok(())
    }

    /// One heartbeat; gives whether the sessions have to be confirmed.
    async fn renew(&mut self) -> Result<bool, StoreError> {
        if let Some(holder) = &self.holder {
            self.info.devices = holder.devices();
            self.info.draining = holder.draining();
        }
        let sent = Instant::now();
        self.store.nodes.heartbeat(&self.info).await?;
        Ok(self.lease.renew(sent, self.length))
    }

    /// Goes on with the heartbeats during a work that may take longer than a lease: to confirm many
    /// sessions, say.
    async fn beat_beside(
        &mut self,
        work: impl Future<Output = Result<(), StoreError>>,
    ) -> Result<(), StoreError> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                // What is done needs no further heartbeat.
                done = &mut work => return done,
                () = tokio::time::sleep(self.length / 3) => {
                    self.renew().await?;
                }
            }
        }
    }

    fn sweeper(&mut self) -> Sweeper {
        Sweeper {
            store: self.store.clone(),
            lease: Arc::clone(&self.lease),
            every: self.sweep_every,
            on_end: self.on_end.take(),
            on_tally: self.on_tally.take(),
        }
    }
}

/// The next change of what is followed; never, where nothing is, or nobody tells any more.
async fn changed(followed: Option<&mut watch::Receiver<bool>>) {
    if let Some(followed) = followed
        && followed.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests;
