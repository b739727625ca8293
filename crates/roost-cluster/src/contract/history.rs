//! Cases for a device's history, and for devices that fight over one identity.

use roost_types::{CommandState as S, SessionId};

use super::mailboxes::{report, send, succeeded};
use super::{Fixture, claim, close, command_id, device, next, settings, tenant};
use crate::{
    CONTEST_TAKEOVERS, HistoryEvent, PresenceItem, PresenceKind, Refusal, Revalidated, StoreError,
    StoreSettings,
};

async fn events(fx: &Fixture, name: &str, limit: usize) -> Vec<HistoryEvent> {
    let found = fx.store_b.sessions.history(&device(name), limit).await.unwrap();
    assert!(found.is_sorted_by(|a, b| a.time >= b.time), "newest first");
    found.into_iter().rev().map(|entry| entry.event).collect()
}

fn refusal() -> Refusal {
    Refusal { what: "publish".into(), code: "TOPIC_FORBIDDEN".into(), about: "$sys|x, y".into() }
}

pub async fn a_history_tells_what_happened_in_order<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    assert_eq!(events(&fx, "d", 10).await, []);
    let (one, two) = (claim(&fx.store_a, &key, &fx.a), claim(&fx.store_b, &key, &fx.b));
    fx.store_a.sessions.claim(&one).await.unwrap();
    fx.store_a.sessions.claim(&one).await.unwrap();
    send(&fx, &key, "c1").await;
    fx.store_b.sessions.claim(&two).await.unwrap();
    report(&fx, &key, two.session, "c1", &succeeded()).await;
    fx.store_b.sessions.note_refusal(&key, two.session, &refusal()).await.unwrap();
    let stale = fx.store_a.sessions.note_refusal(&key, one.session, &refusal()).await;
    assert_eq!(stale, Err(StoreError::Fenced));
    let close = close(&fx.store_b);
    fx.store_b.sessions.release(&key, two.session, &close).await.unwrap();
    let command = |state, session| HistoryEvent::Command { id: command_id("c1"), state, session };
    let expected = [
        HistoryEvent::Connected {
            session: one.session,
            node: fx.a.clone(),
            protocol: one.protocol.clone(),
            address: one.address.clone(),
        },
        command(S::Queued, None),
        command(S::Dispatched, Some(one.session)),
        HistoryEvent::TakenOver {
            session: two.session,
            node: fx.b.clone(),
            protocol: two.protocol.clone(),
            address: two.address.clone(),
            replaced: one.session,
        },
        command(S::Succeeded, Some(two.session)),
        HistoryEvent::Refused { session: two.session, refusal: refusal() },
        HistoryEvent::Disconnected { session: two.session, close },
    ];
    assert_eq!(events(&fx, "d", 10).await, expected);
    assert_eq!(events(&fx, "d", 2).await, expected[5..]);
    assert_eq!(events(&fx, "other", 10).await, []);
}

pub async fn a_history_is_bounded<F: Future<Output = Fixture>>(make: impl Fn(StoreSettings) -> F) {
    let fx = make(StoreSettings { history: 5, ..settings() }).await.joined().await;
    let key = device("d");
    let session = fx.connect(&key).await;
    for _ in 0..20 {
        fx.store_a.sessions.note_refusal(&key, session, &refusal()).await.unwrap();
    }
    let kept = events(&fx, "d", 100).await;
    assert_eq!(kept, vec![HistoryEvent::Refused { session, refusal: refusal() }; 5]);
}

pub async fn a_reclaim_is_told_as_one<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let mine = claim(&fx.store_a, &key, &fx.a);
    let found = fx.store_a.sessions.revalidate(std::slice::from_ref(&mine)).await.unwrap();
    assert_eq!(found, [Revalidated::Reclaimed]);
    let (session, node) = (mine.session, fx.a.clone());
    let expected = HistoryEvent::Reclaimed { session, node, replaced: None };
    assert_eq!(events(&fx, "d", 10).await, [expected]);
}

pub async fn a_fight_over_an_identity_is_told<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let mut watch = fx.store_b.sessions.watch(&tenant("default"), None).await.unwrap();
    let mut last = SessionId::random();
    let mut contested = Vec::new();
    for n in 0..=2 * CONTEST_TAKEOVERS {
        let claim = claim(&fx.store_a, &key, &fx.a);
        let claimed = fx.store_a.sessions.claim(&claim).await.unwrap();
        last = claim.session;
        // The first one replaces nobody.
        if claimed.contested {
            contested.push(n);
        }
        let again = fx.store_a.sessions.claim(&claim).await.unwrap();
        assert!(!again.contested, "a repeated claim takes nothing over");
    }
    assert_eq!(contested, [CONTEST_TAKEOVERS, 2 * CONTEST_TAKEOVERS]);
    let mut told = 0;
    while told < 2 {
        match next(&mut watch).await {
            PresenceItem::Event(event) if event.kind == PresenceKind::Contested => {
                told += 1;
                assert_eq!(event.device, key);
                assert!(told < 2 || event.session == last);
            }
            PresenceItem::Event(_) => {}
            PresenceItem::Gap => panic!("a gap where none can be"),
        }
    }
}
