//! This node's turn at the sweeps: ending what is over, hub-wide, and telling whoever has to know. That
//! the node itself stays alive meanwhile is `keeper.rs`.

use std::sync::Arc;
use std::time::Duration;

use roost_types::CommandState;
use tokio::time::MissedTickBehavior;

use crate::{Lease, NodeEvent, NodeRef, Store, StoreError, SweepFinding, Tally};

/// Told the final state of each command that a sweep ended: for counting.
pub(crate) type OnEnd = Box<dyn Fn(CommandState) + Send + Sync>;

/// Told what waits hub-wide, and how long the oldest of it has: for showing.
pub(crate) type OnTally = Box<dyn Fn(Tally, Duration) + Send + Sync>;

/// How often *some* node counts what waits.
const TALLY_EVERY: Duration = Duration::from_secs(30);
/// For how long no other node does: shorter, so that the one who counted last has its turn again when it
/// is time.
const TALLY_TURN: Duration = Duration::from_secs(24);

/// Sweeps now and then, if it is this node's turn.
pub(crate) struct Sweeper {
    pub(crate) store: Store,
    /// A fenced node judges nobody.
    pub(crate) lease: Arc<Lease>,
    /// How often *some* node sweeps.
    pub(crate) every: Duration,
    pub(crate) on_end: Option<OnEnd>,
    pub(crate) on_tally: Option<OnTally>,
}

// === impl Sweeper ===

impl Sweeper {
    /// Sweeps for ever, and counts.
    pub(crate) async fn run(&self) {
        tokio::join!(self.keep_sweeping(), self.keep_counting());
    }

    async fn keep_counting(&self) {
        let Some(on_tally) = &self.on_tally else {
            return;
        };
        let mut tick = tokio::time::interval(TALLY_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Err(error) = self.count(on_tally).await {
                tracing::debug!(%error, "could not count what waits; the next turn will");
            }
        }
    }

    async fn count(&self, on_tally: &OnTally) -> Result<(), StoreError> {
        if !self.lease.is_valid() || !self.store.nodes.take_turn("tally", TALLY_TURN).await? {
            return Ok(());
        }
        let tally = self.store.mailboxes.tally().await?;
        let now = self.store.clock.now();
        on_tally(tally, tally.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest)));
        Ok(())
    }

    async fn keep_sweeping(&self) {
        let mut tick = tokio::time::interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Err(error) = self.sweep().await {
                tracing::debug!(%error, "a sweep was cut short; the next one goes on");
            }
        }
    }

    async fn sweep(&self) -> Result<(), StoreError> {
        let nodes = &self.store.nodes;
        if !self.lease.is_valid() || !nodes.take_turn("sweep", self.every).await? {
            return Ok(());
        }
        for node in nodes.dead().await? {
            // What cannot be ended now must not hold up the mailboxes.
            if let Err(error) = self.bury(&node).await {
                tracing::warn!(%node, %error, "could not end the sessions of a dead node; will try again");
            }
        }
        loop {
            let findings = self.store.mailboxes.sweep().await?;
            if findings.is_empty() {
                return Ok(());
            }
            for finding in findings {
                self.act_on(finding).await;
            }
        }
    }

    /// Ends what a dead node left, for as long as it is dead: one that was only paused, or cut off, may come
    /// back half way, and keeps what it still has.
    async fn bury(&self, node: &NodeRef) -> Result<(), StoreError> {
        let (sessions, nodes) = (&self.store.sessions, &self.store.nodes);
        let mut ended = 0;
        loop {
            if !nodes.dead().await?.contains(node) {
                tracing::info!(%node, ended, "a node came back while its sessions were ended; the others are left to it");
                return Ok(());
            }
            match sessions.end_sessions_of(node).await? {
                0 => break,
                some => ended += some,
            }
        }
        nodes.forget(node).await?;
        tracing::info!(%node, ended, "ended the sessions of a dead node");
        Ok(())
    }

    async fn act_on(&self, finding: SweepFinding) {
        let bus = &self.store.bus;
        match finding {
            SweepFinding::Expired { command, waiting } => {
                if let Some(count) = &self.on_end {
                    count(command.state);
                }
                let event = NodeEvent::CommandUpdate(command);
                for node in &waiting {
                    told(bus.send_to(node, &event).await);
                }
            }
            SweepFinding::Undelivered { device, session, node } => {
                let event = NodeEvent::Drain { device, session };
                told(bus.send(&node, &event).await);
            }
        }
    }
}

/// One node that could not be told is no reason to leave out the others: who waits looks at the end of
/// the command's time, and what is undelivered is found again.
fn told(sent: Result<(), StoreError>) {
    if let Err(error) = sent {
        tracing::debug!(%error, "could not tell a node what a sweep found");
    }
}
