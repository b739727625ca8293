//! Cases for the `Nodes` seam, and for what a node's death does to its sessions.

use std::time::Duration;

use super::{Fixture, claim, device, eventually, info, next, settings, short_lease};
use crate::{NodeRef, PresenceItem, PresenceKind, StoreError, StoreSettings};
use roost_types::TenantId;

/// How many devices a second may be sent away in these cases.
const RATE: u32 = 50;

/// Lets node a fall silent while node b goes on, until a is dead for certain.
async fn let_a_die(fx: &Fixture) {
    eventually("node a is dead", || async {
        fx.store_b.nodes.heartbeat(&info(&fx.store_b, &fx.b)).await.unwrap();
        fx.store_b.nodes.dead().await.unwrap() == [fx.a.clone()]
    })
    .await;
}

pub async fn a_dead_nodes_sessions_end_once<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(short_lease()).await.joined().await;
    let sessions = &fx.store_b.sessions;
    let mut watch = sessions.watch(&TenantId::default(), None).await.unwrap();
    let keys: Vec<_> = (0..20).map(|n| device(&format!("d-{n}"))).collect();
    for key in &keys {
        fx.connect(key).await;
    }
    let_a_die(&fx).await;
    let shown = sessions.get(&keys[0]).await.unwrap().unwrap();
    assert_eq!(shown.session, None, "shown offline before any sweep");
    assert_eq!(sessions.end_sessions_of(&fx.a).await.unwrap(), 20);
    assert_eq!(sessions.end_sessions_of(&fx.a).await.unwrap(), 0);
    fx.store_b.nodes.forget(&fx.a).await.unwrap();
    assert_eq!(fx.store_b.nodes.dead().await.unwrap(), []);
    let mut ended = 0;
    while ended < 20 {
        match next(&mut watch).await {
            PresenceItem::Event(event) if event.kind == PresenceKind::Disconnected => {
                assert_eq!(event.close.unwrap().code, 1006);
                ended += 1;
            }
            PresenceItem::Event(event) => assert_eq!(event.kind, PresenceKind::Connected),
            PresenceItem::Gap => panic!("a gap where none can be"),
        }
    }
}

pub async fn a_session_that_moved_on_survives_its_old_node<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(short_lease()).await.joined().await;
    let key = device("d");
    fx.connect(&key).await;
    let moved = claim(&fx.store_b, &key, &fx.b);
    fx.store_b.sessions.claim(&moved).await.unwrap();
    let_a_die(&fx).await;
    assert_eq!(fx.store_b.sessions.end_sessions_of(&fx.a).await.unwrap(), 0);
    // Again where a busy machine took longer than b's lease for the two.
    eventually("its session on node b is live", || async {
        fx.store_b.nodes.heartbeat(&info(&fx.store_b, &fx.b)).await.unwrap();
        let shown = fx.store_b.sessions.get(&key).await.unwrap().unwrap();
        shown.session.map(|session| session.session) == Some(moved.session)
    })
    .await;
}

pub async fn a_name_belongs_to_one_incarnation<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let again = NodeRef::start(fx.a.id.clone());
    let other = info(&fx.store_b, &again);
    assert_eq!(fx.store_b.nodes.heartbeat(&other).await, Err(StoreError::Fenced));
    fx.store_a.nodes.leave(&fx.a).await.unwrap();
    assert_eq!(fx.store_b.nodes.heartbeat(&other).await, Ok(()));
    assert_eq!(
        fx.store_a.nodes.heartbeat(&info(&fx.store_a, &fx.a)).await,
        Err(StoreError::Fenced)
    );
}

pub async fn a_node_that_leaves_is_gone<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let listed = fx.store_b.nodes.list().await.unwrap();
    assert_eq!(listed.len(), 2);
    let a = listed.iter().find(|record| record.info.node == fx.a).unwrap();
    assert!(a.live);
    let said = info(&fx.store_a, &fx.a);
    assert_eq!((&a.info.version, a.info.devices), (&said.version, 7));
    assert_eq!((&a.info.address, a.info.roles), (&said.address, said.roles));
    fx.store_a.nodes.leave(&fx.a).await.unwrap();
    let listed = fx.store_b.nodes.list().await.unwrap();
    assert!(listed.iter().all(|record| record.info.node == fx.b));
    assert_eq!(fx.store_b.nodes.dead().await.unwrap(), []);
}

pub async fn one_node_takes_a_turn<F: Future<Output = Fixture>>(make: impl Fn(StoreSettings) -> F) {
    let fx = make(settings()).await.joined().await;
    let (a, b) = (&fx.store_a.nodes, &fx.store_b.nodes);
    let long = Duration::from_secs(60);
    assert!(a.take_turn("one", long).await.unwrap());
    assert!(!b.take_turn("one", long).await.unwrap());
    let short = Duration::from_millis(50);
    assert!(b.take_turn("two", short).await.unwrap());
    eventually("the turn is over", || async { a.take_turn("two", short).await.unwrap() }).await;
}

pub async fn nodes_share_what_may_be_shed<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let (a, b) = (&fx.store_a.nodes, &fx.store_b.nodes);
    assert_eq!(a.shed(0, RATE).await.unwrap(), 0);
    let began = tokio::time::Instant::now();
    let mut granted = 0;
    // Whoever asks, and for however many: together they keep the pace.
    while granted < 3 * RATE / 2 {
        granted += a.shed(100_000, RATE).await.unwrap();
        granted += b.shed(3, RATE).await.unwrap();
        // Time that passed here passed for the store too, save for a little drift.
        let most = (began.elapsed().as_secs_f64() * 1.01 + 0.25) * f64::from(RATE) + 2.0;
        assert!(f64::from(granted) <= most, "{granted} granted where {most} are due");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What nobody asks for is not saved up.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let asked = tokio::time::Instant::now();
    let at_once = a.shed(100_000, 4).await.unwrap();
    let most = 2.0 + asked.elapsed().as_secs_f64() * 4.0;
    assert!((1.0..=most).contains(&f64::from(at_once)), "{at_once} at once");
}
