//! Keeps this node alive in the store: heartbeats, fencing after a lapse, and its turn at the sweeps.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use roost_types::{CommandState, NodeId};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{Lease, NodeEvent, NodeInfo, Store, StoreError, StoreHealth, SweepFinding};

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
    on_end: Option<OnEnd>,
    /// The last heartbeat had no answer.
    failing: bool,
}

/// Told the final state of each command that a sweep ended: for counting.
type OnEnd = Box<dyn Fn(CommandState) + Send + Sync>;

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
        Self { store, info, lease, length, sweep_every, holder, on_end: None, failing: false }
    }

    /// Calls `count` with the final state of each command that this node's sweeps end.
    #[must_use]
    pub fn on_end(mut self, count: impl Fn(CommandState) + Send + Sync + 'static) -> Self {
        self.on_end = Some(Box::new(count));
        self
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
                    if *health.borrow_and_update() == StoreHealth::Up {
                        self.beat_and_log().await;
                    }
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
                if let Some(count) = &self.on_end {
                    count(command.state);
                }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use roost_types::{CommandId, CommandSpec, DeviceId, DeviceKey, SessionId, TenantId};

    use super::*;
    use crate::{
        BusEvent, Claimed, HubClock, MemoryHub, NodeRef, Roles, SessionClaim, StoreSettings,
    };

    const LEASE: Duration = Duration::from_secs(3);

    /// Counts revalidations; fails the first ones.
    #[derive(Debug, Default)]
    struct Holder {
        asked: AtomicU32,
        failures: AtomicU32,
    }

    #[async_trait]
    impl SessionHolder for Holder {
        fn devices(&self) -> u64 {
            42
        }
        fn draining(&self) -> bool {
            false
        }
        async fn revalidate(&self) -> Result<(), StoreError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let fail = |left: u32| left.checked_sub(1);
            match self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fail) {
                Ok(_) => Err(StoreError::NotSent("not yet".into())),
                Err(_) => Ok(()),
            }
        }
    }

    struct Node {
        store: Store,
        name: NodeRef,
        lease: Arc<Lease>,
        holder: Arc<Holder>,
    }

    fn hub() -> Arc<MemoryHub> {
        let settings = StoreSettings { lease: LEASE, ..StoreSettings::default() };
        MemoryHub::new(settings, Arc::new(HubClock::new()))
    }

    impl Node {
        fn of(hub: &Arc<MemoryHub>, name: &str) -> Self {
            let node = NodeRef::start(NodeId::new(name).unwrap());
            Self {
                store: hub.node(node.clone()),
                name: node,
                lease: Arc::default(),
                holder: Arc::default(),
            }
        }

        fn keeper(&self) -> Keeper {
            let info = NodeInfo {
                node: self.name.clone(),
                roles: Roles { edge: true, control: false },
                version: "1".into(),
                address: String::new(),
                started: self.store.clock.now(),
                devices: 0,
                draining: false,
            };
            let holder = Arc::clone(&self.holder) as _;
            Keeper::new(self.store.clone(), info, Arc::clone(&self.lease), LEASE, Some(holder))
        }

        async fn claim(&self, device: &DeviceKey) -> Claimed {
            let claim = SessionClaim {
                device: device.clone(),
                session: SessionId::random(),
                node: self.name.clone(),
                protocol: "test".into(),
                address: "".into(),
                claimed_at: self.store.clock.now(),
            };
            self.store.sessions.claim(&claim).await.unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_resumes_only_once_the_sessions_are_confirmed() {
        let node = Node::of(&hub(), "a");
        node.holder.failures.store(1, Ordering::SeqCst);
        let mut keeper = node.keeper();
        assert!(keeper.join().await.is_err());
        assert!(!node.lease.is_valid(), "renewed, but nobody confirmed the sessions");
        keeper.join().await.unwrap();
        assert!(node.lease.is_valid());
        keeper.join().await.unwrap();
        assert_eq!(node.holder.asked.load(Ordering::SeqCst), 2, "asked only after a lapse");
        tokio::time::advance(LEASE).await;
        assert!(!node.lease.is_valid(), "a paused node is fenced by time alone");
        let stop = CancellationToken::new();
        let running = tokio::time::timeout(LEASE * 10, keeper.run(stop.clone()));
        assert!(running.await.is_err());
        assert!(node.lease.is_valid());
        assert_eq!(node.holder.asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_living_end_what_the_dead_left_and_what_is_over() {
        let hub = hub();
        let (dead, living) = (Node::of(&hub, "a"), Node::of(&hub, "b"));
        let device = DeviceKey::new(TenantId::default(), DeviceId::new("d").unwrap());
        dead.keeper().join().await.unwrap();
        dead.claim(&device).await;
        let mut events = living.store.bus.take_events().unwrap();
        let spec = CommandSpec {
            id: CommandId::new("c").unwrap(),
            name: "reboot".into(),
            payload: None,
            headers: vec![],
            expires: living.store.clock.now().plus(LEASE * 2),
        };
        let waiting = Some(&living.name.id);
        living.store.mailboxes.enqueue(&device, &spec, waiting).await.unwrap();
        let mut keeper = living.keeper();
        keeper.join().await.unwrap();
        let stop = CancellationToken::new();
        let update = async {
            let event = events.recv().await.unwrap();
            stop.cancel();
            event
        };
        let ((), event) = tokio::join!(keeper.run(stop.clone()), update);
        let BusEvent::Node(event) = event else { panic!("{event:?}") };
        assert!(matches!(*event, NodeEvent::CommandUpdate(c) if c.state == CommandState::Expired));
        let shown = living.store.sessions.get(&device).await.unwrap().unwrap();
        assert_eq!(shown.session, None);
        assert_eq!(shown.last_close.unwrap().code, 1006);
        assert_eq!(living.store.nodes.list().await.unwrap(), [], "one died, the other left");
    }
}
