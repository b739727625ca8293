//! A store that is out of reach for a while: sockets stay, nothing false is acknowledged, and what
//! was left undone is done when it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use roost_auth::{
    AuthError, Credential, DeviceAuthenticator, Identity, InsecureAuthenticator, LEEWAY,
};
use roost_cluster::*;
use roost_edge::EdgeConfig;
use roost_types::{
    Command, CommandId, CommandSpec, CommandState, DeviceId, DeviceKey, Message, NodeId, SessionId,
    TenantId, TopicFilter, UnixMillis,
};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::support::{TestEdge, hub, key, offer, request, upgrade_request};

/// A store with a switch. Only what edges use is cut; the test itself asks the store behind it.
#[derive(Debug)]
struct Cut {
    behind: Store,
    down: AtomicBool,
    /// How many events to other nodes are lost before one gets through.
    lose: AtomicU32,
    health: watch::Sender<StoreHealth>,
}

impl Cut {
    fn check(&self) -> Result<(), StoreError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(StoreError::NotSent("the test cut it off".into()));
        }
        Ok(())
    }

    fn set(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
        let reason = "the test cut it off".to_owned();
        self.health.send_replace(if down { StoreHealth::Down { reason } } else { StoreHealth::Up });
    }

    /// An edge on this store.
    async fn edge(hub: &Arc<MemoryHub>, name: &str) -> (Arc<Self>, TestEdge) {
        Self::edge_with(hub, name, EdgeConfig::default()).await
    }

    async fn edge_with(
        hub: &Arc<MemoryHub>,
        name: &str,
        config: EdgeConfig,
    ) -> (Arc<Self>, TestEdge) {
        let node = NodeRef::start(NodeId::new(name).unwrap());
        let health = watch::Sender::new(StoreHealth::Up);
        let cut = Arc::new(Self {
            behind: hub.node(node.clone()),
            down: AtomicBool::new(false),
            lose: AtomicU32::new(0),
            health,
        });
        let store = Store {
            sessions: Arc::clone(&cut) as _,
            mailboxes: Arc::clone(&cut) as _,
            bus: Arc::clone(&cut) as _,
            health: cut.health.subscribe(),
            ..cut.behind.clone()
        };
        let authenticator = Arc::new(InsecureAuthenticator);
        let edge = TestEdge::start_on(store, node, config, authenticator).await;
        (cut, edge)
    }
}

#[async_trait]
impl Sessions for Cut {
    async fn claim(&self, claim: &SessionClaim) -> Result<Claimed, StoreError> {
        self.check()?;
        self.behind.sessions.claim(claim).await
    }
    async fn release(&self, d: &DeviceKey, s: SessionId, c: &LastClose) -> Result<(), StoreError> {
        self.check()?;
        self.behind.sessions.release(d, s, c).await
    }
    async fn revalidate(&self, claims: &[SessionClaim]) -> Result<Vec<Revalidated>, StoreError> {
        self.check()?;
        self.behind.sessions.revalidate(claims).await
    }
    async fn get(&self, device: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        self.behind.sessions.get(device).await
    }
    async fn list(
        &self,
        t: &TenantId,
        f: &DeviceFilter,
        p: &PageRequest,
    ) -> Result<Page<DeviceRecord>, StoreError> {
        self.behind.sessions.list(t, f, p).await
    }
    async fn watch(
        &self,
        t: &TenantId,
        c: Option<&str>,
    ) -> Result<mpsc::Receiver<PresenceItem>, StoreError> {
        self.behind.sessions.watch(t, c).await
    }
    async fn end_sessions_of(&self, node: &NodeRef) -> Result<u64, StoreError> {
        self.behind.sessions.end_sessions_of(node).await
    }
    async fn history(&self, d: &DeviceKey, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        self.behind.sessions.history(d, limit).await
    }
    async fn note_refusal(
        &self,
        d: &DeviceKey,
        s: SessionId,
        r: &Refusal,
    ) -> Result<(), StoreError> {
        self.check()?;
        self.behind.sessions.note_refusal(d, s, r).await
    }
}

#[async_trait]
impl Mailboxes for Cut {
    async fn enqueue(&self, d: &DeviceKey, o: Offer<'_>) -> Result<Enqueued, StoreError> {
        self.behind.mailboxes.enqueue(d, o).await
    }
    async fn read(&self, d: &DeviceKey, s: SessionId, after: u64) -> Result<Batch, StoreError> {
        self.check()?;
        self.behind.mailboxes.read(d, s, after).await
    }
    async fn report(
        &self,
        d: &DeviceKey,
        s: SessionId,
        i: &CommandId,
        r: &Report,
    ) -> Result<Reported, StoreError> {
        self.check()?;
        self.behind.mailboxes.report(d, s, i, r).await
    }
    async fn cancel(&self, d: &DeviceKey, i: &CommandId) -> Result<Cancelled, StoreError> {
        self.behind.mailboxes.cancel(d, i).await
    }
    async fn get(
        &self,
        d: &DeviceKey,
        i: &CommandId,
        w: Option<&NodeId>,
    ) -> Result<Option<Command>, StoreError> {
        self.behind.mailboxes.get(d, i, w).await
    }
    async fn list(
        &self,
        d: &DeviceKey,
        f: &CommandFilter,
        p: &PageRequest,
    ) -> Result<Page<Command>, StoreError> {
        self.behind.mailboxes.list(d, f, p).await
    }
    async fn dead(&self, t: &TenantId, p: &PageRequest) -> Result<Page<Command>, StoreError> {
        self.behind.mailboxes.dead(t, p).await
    }
    async fn settle_dead(
        &self,
        d: &DeviceKey,
        i: &CommandId,
        r: &CommandId,
    ) -> Result<bool, StoreError> {
        self.behind.mailboxes.settle_dead(d, i, r).await
    }
    async fn sweep(&self) -> Result<Vec<SweepFinding>, StoreError> {
        self.behind.mailboxes.sweep().await
    }
}

#[async_trait]
impl Bus for Cut {
    async fn publish(&self, tenant: &TenantId, message: Arc<Message>) -> Result<(), StoreError> {
        self.check()?;
        self.behind.bus.publish(tenant, message).await
    }
    async fn declare(&self, tenant: &TenantId, filter: &TopicFilter) -> Result<(), StoreError> {
        self.check()?;
        self.behind.bus.declare(tenant, filter).await
    }
    async fn withdraw(&self, tenant: &TenantId, filter: &TopicFilter) -> Result<(), StoreError> {
        self.check()?;
        self.behind.bus.withdraw(tenant, filter).await
    }
    async fn send(&self, node: &NodeRef, event: &NodeEvent) -> Result<(), StoreError> {
        self.check()?;
        let lose = |left: u32| left.checked_sub(1);
        if self.lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok() {
            return Ok(());
        }
        self.behind.bus.send(node, event).await
    }
    async fn send_to(&self, node: &NodeId, event: &NodeEvent) -> Result<(), StoreError> {
        self.check()?;
        self.behind.bus.send_to(node, event).await
    }
    fn take_events(&self) -> Option<mpsc::Receiver<BusEvent>> {
        self.behind.bus.take_events()
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_outage_keeps_sockets_and_acknowledges_nothing() {
    let (cut, edge) = Cut::edge(&hub(), "a").await;
    let mut device = edge.device("d").await;
    device.subscribe("t").await;
    edge.send_command("d", "c1", MINUTE).await;
    device.expect("command").await;
    edge.until_state("d", "c1", CommandState::Sent).await;

    cut.set(true);
    let (_, head, _) = request(edge.address(), &upgrade_request("/v1/connect?device=x", "")).await;
    assert!(head.starts_with("http/1.1 503") && head.contains("retry-after: "), "{head}");
    let result = json!({"type": "result", "id": 1, "command_id": "c1", "status": "succeeded"});
    for message in [
        result.clone(),
        json!({"type": "publish", "id": 1, "topic": "t", "payload": 1}),
        json!({"type": "subscribe", "id": 1, "topic": "new"}),
    ] {
        device.send(message).await;
        let error = device.expect("error").await;
        assert_eq!((&error["id"], &error["retryable"]), (&json!(1), &json!(true)), "{error}");
    }
    // A command pushed before the cut is delivered; that it was sent is told later.
    edge.lease.suspend();
    device.expect_alive().await;

    cut.set(false);
    edge.handle.edge().revalidate().await.unwrap();
    edge.lease.resume();
    device.send(result).await;
    assert_eq!(device.expect("ack").await["id"], 1);
    device.subscribe("new").await;
    edge.send_command("d", "c2", MINUTE).await;
    assert_eq!(device.expect("command").await["command_id"], "c2");
}

#[tokio::test]
async fn what_an_outage_left_undone_is_done_after_it() {
    let (cut, edge) = Cut::edge(&hub(), "a").await;
    let mut device = edge.device("stays").await;
    let leaver = edge.device("leaves").await;
    cut.set(true);
    // Delivered, since the lease is valid still; the report and the release fail.
    edge.store.mailboxes.enqueue(&key("stays"), offer(&spec(&edge))).await.unwrap();
    let session = edge.store.sessions.get(&key("stays")).await.unwrap().unwrap().session.unwrap();
    let command = Box::new(edge.command("stays", "c1").await);
    let event = NodeEvent::Deliver { session: session.session, command, prev: 0 };
    cut.behind.bus.send(&edge.node, &event).await.unwrap();
    device.expect("command").await;
    drop(leaver);
    edge.until_metric("roost_ws_connections{protocol=\"json\"}", 1.0).await;
    assert_eq!(edge.command("stays", "c1").await.state, CommandState::Dispatched);

    cut.set(false);
    edge.until_state("stays", "c1", CommandState::Sent).await;
    edge.until_offline("leaves").await;
}

/// For so long a device is seen to stay. A slow machine sees less, and nothing false.
const STAYS: Duration = Duration::from_millis(500);

#[tokio::test]
async fn nobody_is_drained_while_no_node_could_take_them() {
    let (cut, edge) = Cut::edge(&hub(), "a").await;
    let mut device = edge.device("d").await;
    cut.set(true);
    let order = NodeEvent::DrainNode { over: Duration::from_millis(50) };
    cut.behind.bus.send(&edge.node, &order).await.unwrap();
    edge.until_metric("roost_drain_state", 1.0).await;
    let ordered = tokio::time::Instant::now();
    while ordered.elapsed() < STAYS {
        device.expect_alive().await;
    }
    cut.set(false);
    assert_eq!(device.expect("goaway").await["reason"], "draining");
}

#[tokio::test]
async fn an_old_connection_stays_while_no_node_could_take_it() {
    // As long as in the test of ages themselves.
    let age = Duration::from_secs(4);
    let jitter = Some(Duration::ZERO);
    let config = EdgeConfig {
        max_connection_age: Some(age),
        max_connection_age_jitter: jitter,
        ..EdgeConfig::default()
    };
    let (cut, edge) = Cut::edge_with(&hub(), "a", config).await;
    let mut device = edge.device("d").await;
    cut.set(true);
    let began = tokio::time::Instant::now();
    while began.elapsed() < age + STAYS {
        device.expect_alive().await;
    }
    cut.set(false);
    assert_eq!(device.expect("goaway").await["reason"], "connection_age");
}

fn spec(edge: &TestEdge) -> CommandSpec {
    CommandSpec::new(CommandId::new("c1").unwrap(), "x", edge.store.clock.now().plus(MINUTE))
}

#[tokio::test]
async fn a_push_from_before_the_sessions_were_confirmed_is_not_believed() {
    let (cut, edge) = Cut::edge(&hub(), "a").await;
    let mut device = edge.device("d").await;
    let shown = edge.store.sessions.get(&key("d")).await.unwrap().unwrap();
    let session = shown.session.unwrap().session;
    let close = LastClose {
        code: 1006,
        reason: "its node was silent for longer than its lease".into(),
        initiator: Initiator::Hub,
        time: edge.store.clock.now(),
    };
    cut.behind.sessions.release(&key("d"), session, &close).await.unwrap();
    let spec = spec(&edge);
    cut.behind.mailboxes.enqueue(&key("d"), offer(&spec)).await.unwrap();
    let command = Box::new(edge.command("d", "c1").await);
    cut.behind.mailboxes.cancel(&key("d"), &spec.id).await.unwrap();
    edge.handle.edge().revalidate().await.unwrap();
    // Pushes are believed again once the mailbox was read after the confirmation.
    let drain = NodeEvent::Drain { device: key("d"), session };
    cut.behind.bus.send(&edge.node, &drain).await.unwrap();
    for _ in 0..3 {
        device.expect_alive().await;
    }
    let late = NodeEvent::Deliver { session, command, prev: 0 };
    cut.behind.bus.send(&edge.node, &late).await.unwrap();
    edge.send_command("d", "c2", MINUTE).await;
    let first = device.expect("command").await;
    assert_eq!(first["command_id"], "c2", "c1 was cancelled");
}

#[tokio::test]
async fn the_old_owner_is_told_of_a_takeover_until_it_hears() {
    let hub = hub();
    let a = TestEdge::start(&hub, "a").await;
    let (cut, b) = Cut::edge(&hub, "b").await;
    let mut old = a.device("d").await;
    cut.lose.store(3, Ordering::SeqCst);
    let mut new = b.device("d").await;
    old.expect_end("REPLACED", 4409).await;
    new.expect_alive().await;
}

/// Gives everybody a credential that is about to end: each time a little later, so that a busy machine
/// comes to the end of a handshake before it.
#[derive(Debug, Default)]
struct Ending(AtomicU32);

impl DeviceAuthenticator for Ending {
    fn authenticate(&self, _: Option<&Credential>, now: UnixMillis) -> Result<Identity, AuthError> {
        let times = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Identity {
            tenant: TenantId::default(),
            device: DeviceId::new("d").unwrap(),
            expires_at: Some(now.minus(LEEWAY).plus(Duration::from_millis(300) * times * times)),
        })
    }
}

#[tokio::test]
async fn a_credential_ends_its_connection() {
    let ending = Arc::new(Ending::default());
    let edge = TestEdge::start_with(&hub(), "a", EdgeConfig::default(), ending).await;
    for _ in 0..10 {
        let mut device = edge.connect("d").await;
        device.send(json!({"type": "hello"})).await;
        let first = device.json().await;
        if first["type"] == "welcome" {
            return device.expect_end("CREDENTIAL_EXPIRED", 4401).await;
        }
        // It ended before the machine had read the hello.
        assert_eq!(first["code"], "CREDENTIAL_EXPIRED", "{first}");
    }
    panic!("no credential was long enough for this machine");
}
