//! The keeper against the embedded store, on a paused clock.

use std::sync::atomic::{AtomicU32, Ordering};

use roost_types::{
    Command, CommandId, CommandSpec, DeviceId, DeviceKey, NodeId, SessionId, TenantId,
};

use tokio::sync::watch;

use super::*;
use crate::{
    Batch, BusEvent, Cancelled, Claimed, CommandFilter, Enqueued, HubClock, Mailboxes, MemoryHub,
    NodeEvent, NodeRecord, NodeRef, Nodes, Offer, Page, PageRequest, Report, Reported, Roles,
    SessionClaim, StoreSettings, SweepFinding,
};

const LEASE: Duration = Duration::from_secs(3);

/// Counts revalidations; fails the first ones.
#[derive(Debug, Default)]
struct Holder {
    asked: AtomicU32,
    failures: AtomicU32,
    takes: parking_lot::Mutex<Duration>,
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
        let takes = *self.takes.lock();
        tokio::time::sleep(takes).await;
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
async fn sessions_that_were_confirmed_before_an_interruption_are_confirmed_again() {
    let mut node = Node::of(&hub(), "a");
    let (tell, health) = watch::channel(StoreHealth::Up);
    node.store.health = health;
    *node.holder.takes.lock() = LEASE / 10;
    let mut keeper = node.keeper();
    let interruption = async {
        tokio::time::sleep(LEASE / 20).await;
        tell.send_replace(StoreHealth::Down { reason: "a failover".into() });
        tell.send_replace(StoreHealth::Up);
    };
    let (joined, ()) = tokio::join!(keeper.join(), interruption);
    joined.unwrap();
    assert!(!node.lease.is_valid(), "what was confirmed may be lost again");
    let running = tokio::time::timeout(LEASE, keeper.run(CancellationToken::new()));
    assert!(running.await.is_err());
    assert!(node.lease.is_valid());
    assert_eq!(node.holder.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn the_living_end_what_the_dead_left_and_what_is_over() {
    let hub = hub();
    let (dead, living) = (Node::of(&hub, "a"), Node::of(&hub, "b"));
    let device = DeviceKey::new(TenantId::default(), DeviceId::new("d").unwrap());
    dead.keeper().join().await.unwrap();
    dead.claim(&device).await;
    let mut events = living.store.bus.take_events().unwrap();
    let spec = CommandSpec::new(
        CommandId::new("c").unwrap(),
        "reboot",
        living.store.clock.now().plus(LEASE * 2),
    );
    let waiting = Some(&living.name.id);
    let offer = Offer { waiting, ..Offer::new(&spec) };
    living.store.mailboxes.enqueue(&device, offer).await.unwrap();
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

#[tokio::test(start_paused = true)]
async fn a_node_that_was_killed_gets_its_name_back_when_its_lease_is_over() {
    let hub = hub();
    let (killed, again) = (Node::of(&hub, "a"), Node::of(&hub, "a"));
    killed.keeper().join().await.unwrap();
    let asked = Instant::now();
    again.keeper().join().await.unwrap();
    assert!(asked.elapsed() >= LEASE && again.lease.is_valid());
    // While the other lives, and renews, the name stays taken.
    let third = Node::of(&hub, "a");
    let (stop, mut joining) = (CancellationToken::new(), third.keeper());
    tokio::select! {
        () = again.keeper().run(stop.clone()) => panic!("nobody stopped it"),
        joined = joining.join() => assert_eq!(joined, Err(StoreError::Fenced)),
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_away_is_trusted_only_once_the_sessions_are_confirmed() {
    let mut node = Node::of(&hub(), "a");
    let (health, seen) = watch::channel(StoreHealth::Up);
    node.store.health = seen;
    let mut keeper = node.keeper();
    keeper.join().await.unwrap();
    assert_eq!(node.holder.asked.load(Ordering::SeqCst), 1);
    let stop = CancellationToken::new();
    let blip = async {
        tokio::time::sleep(LEASE / 10).await;
        health.send_replace(StoreHealth::Down { reason: "gone".into() });
        tokio::time::sleep(LEASE / 10).await;
        assert!(!node.lease.is_valid(), "what the store will know is not known");
        health.send_replace(StoreHealth::Up);
        tokio::time::sleep(LEASE / 10).await;
        assert!(node.lease.is_valid());
        stop.cancel();
    };
    tokio::join!(keeper.run(stop.clone()), blip);
    assert_eq!(node.holder.asked.load(Ordering::SeqCst), 2, "the lease never lapsed, and yet");
}

#[tokio::test(start_paused = true)]
async fn the_lease_outlives_a_confirmation_that_takes_longer() {
    let node = Node::of(&hub(), "a");
    *node.holder.takes.lock() = LEASE * 3;
    node.keeper().join().await.unwrap();
    assert!(node.lease.is_valid());
    assert_eq!(node.store.nodes.dead().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_leaves_no_session_behind() {
    let hub = hub();
    let (node, other) = (Node::of(&hub, "a"), Node::of(&hub, "b"));
    let device = DeviceKey::new(TenantId::default(), DeviceId::new("d").unwrap());
    let mut keeper = node.keeper();
    keeper.join().await.unwrap();
    node.claim(&device).await;
    let stop = CancellationToken::new();
    stop.cancel();
    keeper.run(stop).await;
    let shown = other.store.sessions.get(&device).await.unwrap().unwrap();
    assert_eq!(shown.session, None);
    assert!(shown.last_close.is_some(), "its end was told");
}

/// Mailboxes whose sweep never ends.
#[derive(Debug)]
struct EndlessSweep(Arc<dyn Mailboxes>);

#[async_trait]
impl Mailboxes for EndlessSweep {
    async fn enqueue(&self, device: &DeviceKey, offer: Offer<'_>) -> Result<Enqueued, StoreError> {
        self.0.enqueue(device, offer).await
    }
    async fn read(&self, key: &DeviceKey, of: SessionId, after: u64) -> Result<Batch, StoreError> {
        self.0.read(key, of, after).await
    }
    async fn report(
        &self,
        device: &DeviceKey,
        session: SessionId,
        id: &CommandId,
        report: &Report,
    ) -> Result<Reported, StoreError> {
        self.0.report(device, session, id, report).await
    }
    async fn cancel(&self, device: &DeviceKey, id: &CommandId) -> Result<Cancelled, StoreError> {
        self.0.cancel(device, id).await
    }
    async fn get(
        &self,
        device: &DeviceKey,
        id: &CommandId,
        waiting: Option<&NodeId>,
    ) -> Result<Option<Command>, StoreError> {
        self.0.get(device, id, waiting).await
    }
    async fn list(
        &self,
        device: &DeviceKey,
        filter: &CommandFilter,
        page: &PageRequest,
    ) -> Result<Page<Command>, StoreError> {
        self.0.list(device, filter, page).await
    }
    async fn dead(&self, of: &TenantId, page: &PageRequest) -> Result<Page<Command>, StoreError> {
        self.0.dead(of, page).await
    }
    async fn settle_dead(
        &self,
        device: &DeviceKey,
        id: &CommandId,
        redriven_as: &CommandId,
    ) -> Result<bool, StoreError> {
        self.0.settle_dead(device, id, redriven_as).await
    }
    async fn sweep(&self) -> Result<Vec<SweepFinding>, StoreError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_that_takes_for_ever_does_not_cost_the_lease() {
    let mut node = Node::of(&hub(), "a");
    node.store.mailboxes = Arc::new(EndlessSweep(Arc::clone(&node.store.mailboxes)));
    let mut keeper = node.keeper();
    keeper.join().await.unwrap();
    let running = tokio::time::timeout(LEASE * 5, keeper.run(CancellationToken::new()));
    assert!(running.await.is_err());
    assert!(node.lease.is_valid());
    assert_eq!(node.holder.asked.load(Ordering::SeqCst), 1, "it never lapsed");
}

/// Nodes of which one comes back when it was asked about for the third time: while its sessions are ended.
#[derive(Debug)]
struct ComingBack {
    nodes: Arc<dyn Nodes>,
    who: NodeInfo,
    asked: AtomicU32,
}

#[async_trait]
impl Nodes for ComingBack {
    async fn heartbeat(&self, info: &NodeInfo) -> Result<(), StoreError> {
        self.nodes.heartbeat(info).await
    }
    async fn leave(&self, node: &NodeRef) -> Result<(), StoreError> {
        self.nodes.leave(node).await
    }
    async fn list(&self) -> Result<Vec<NodeRecord>, StoreError> {
        self.nodes.list().await
    }
    async fn dead(&self) -> Result<Vec<NodeRef>, StoreError> {
        if !self.nodes.dead().await?.is_empty() && self.asked.fetch_add(1, Ordering::SeqCst) == 2 {
            self.nodes.heartbeat(&self.who).await?;
        }
        self.nodes.dead().await
    }
    async fn forget(&self, node: &NodeRef) -> Result<(), StoreError> {
        self.nodes.forget(node).await
    }
    async fn take_turn(&self, job: &str, ttl: Duration) -> Result<bool, StoreError> {
        self.nodes.take_turn(job, ttl).await
    }
    async fn shed(&self, wanted: u32, per_second: u32) -> Result<u32, StoreError> {
        self.nodes.shed(wanted, per_second).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_while_it_is_buried_keeps_what_it_still_has() {
    let hub = hub();
    let (paused, mut living) = (Node::of(&hub, "a"), Node::of(&hub, "b"));
    let mut keeper = paused.keeper();
    keeper.join().await.unwrap();
    let device = |n| DeviceKey::new(TenantId::default(), DeviceId::new(format!("d-{n}")).unwrap());
    for n in 0..2_500 {
        paused.claim(&device(n)).await;
    }
    let nodes = Arc::clone(&living.store.nodes);
    let back = ComingBack { nodes, who: keeper.info.clone(), asked: AtomicU32::new(0) };
    let back = Arc::new(back);
    living.store.nodes = Arc::clone(&back) as _;
    let mut keeper = living.keeper();
    keeper.join().await.unwrap();
    tokio::time::advance(LEASE * 2).await;
    keeper.join().await.unwrap();
    let sweeper = keeper.sweeper();
    tokio::select! {
        () = sweeper.run() => panic!("sweeps go on for ever"),
        () = tokio::time::sleep(LEASE / 3) => {}
    }
    assert!(back.asked.load(Ordering::SeqCst) >= 3, "it was looked at between two batches");
    let listed = living.store.nodes.list().await.unwrap();
    assert!(listed.iter().any(|record| record.live && record.info.node == paused.name));
    let left = living.store.sessions.end_sessions_of(&paused.name).await.unwrap();
    assert_eq!(left, 1_000, "one batch was ended, and no more");
}
