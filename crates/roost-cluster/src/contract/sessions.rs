//! Cases for the `Sessions` seam.

use std::collections::BTreeSet;

use roost_types::{DeviceId, DeviceKey, SessionId, TenantId};

use super::{Fixture, PATIENCE, claim, close, device, next, settings, tenant};
use crate::{
    CommandFilter, DeviceFilter, PageRequest, PresenceItem, PresenceKind, Report, Revalidated as R,
    StoreError, StoreSettings,
};

pub async fn a_claim_names_the_session_it_replaces<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let first = claim(&fx.store_a, &key, &fx.a);
    let claimed = fx.store_a.sessions.claim(&first).await.unwrap();
    assert_eq!((claimed.replaced, claimed.pending), (None, 0));
    let second = claim(&fx.store_b, &key, &fx.b);
    let claimed = fx.store_b.sessions.claim(&second).await.unwrap();
    assert_eq!(claimed.replaced, Some((first.session, fx.a.clone())));
    let repeated = fx.store_b.sessions.claim(&second).await.unwrap();
    assert_eq!(repeated.replaced, None, "its first answer may have been lost");
    let found = fx.store_a.sessions.get(&key).await.unwrap().unwrap();
    let session = found.session.unwrap();
    assert_eq!((session.session, session.node), (second.session, fx.b.clone()));
}

pub async fn a_stale_session_is_fenced<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let stale = fx.connect(&key).await;
    let current = fx.connect(&key).await;
    let sessions = &fx.store_a.sessions;
    let mail = &fx.store_a.mailboxes;
    let id = super::command_id("c");
    for nobody in [stale, SessionId::random()] {
        assert_eq!(
            sessions.release(&key, nobody, &close(&fx.store_a)).await,
            Err(StoreError::Fenced)
        );
        assert_eq!(mail.read(&key, nobody, 0).await, Err(StoreError::Fenced));
        assert_eq!(
            mail.report(&key, nobody, &id, &Report::Received).await,
            Err(StoreError::Fenced)
        );
    }
    let unknown = device("never-seen");
    assert_eq!(mail.read(&unknown, current, 0).await, Err(StoreError::Fenced));
    assert_eq!(sessions.release(&key, current, &close(&fx.store_a)).await, Ok(()));
    assert_eq!(sessions.release(&key, current, &close(&fx.store_a)).await, Err(StoreError::Fenced));
}

pub async fn a_device_is_shown_with_its_session_and_its_last_close<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let sessions = &fx.store_b.sessions;
    assert_eq!(sessions.get(&key).await.unwrap(), None);
    let claimed = claim(&fx.store_a, &key, &fx.a);
    fx.store_a.sessions.claim(&claimed).await.unwrap();
    let shown = sessions.get(&key).await.unwrap().unwrap();
    let session = shown.session.unwrap();
    assert_eq!(session.session, claimed.session);
    assert_eq!((&*session.protocol, &*session.address), ("roost.v1.json", "127.0.0.1:4711"));
    assert_eq!(session.connected_at, claimed.claimed_at);
    assert_eq!(shown.last_close, None);
    let end = close(&fx.store_a);
    fx.store_a.sessions.release(&key, claimed.session, &end).await.unwrap();
    let shown = sessions.get(&key).await.unwrap().unwrap();
    assert_eq!(shown.session, None);
    assert_eq!(shown.last_seen, end.time);
    assert_eq!(shown.last_close, Some(end));
}

pub async fn listing_pages_show_each_device_once<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let names: BTreeSet<String> = (0..50).map(|n| format!("device-{n}")).collect();
    for name in &names {
        fx.connect(&device(name)).await;
    }
    let foreign = DeviceKey::new(tenant("other"), DeviceId::new("device-0").unwrap());
    fx.connect(&foreign).await;
    let mut page = PageRequest { size: 7, token: None };
    let mut seen = Vec::new();
    loop {
        let filter = DeviceFilter::default();
        let found = fx.store_b.sessions.list(&home(), &filter, &page).await.unwrap();
        assert!(found.items.len() <= 7);
        seen.extend(found.items.iter().map(|record| record.device.device.to_string()));
        page.token = found.next;
        if page.token.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 50, "each once: {seen:?}");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), names);
}

fn home() -> TenantId {
    TenantId::default()
}

pub async fn listing_filters_by_presence_and_node<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    fx.connect(&device("on-a")).await;
    let on_b = claim(&fx.store_b, &device("on-b"), &fx.b);
    fx.store_b.sessions.claim(&on_b).await.unwrap();
    let gone = fx.connect(&device("gone")).await;
    fx.store_a.sessions.release(&device("gone"), gone, &close(&fx.store_a)).await.unwrap();
    for (online, node, expected) in [
        (Some(true), None, vec!["on-a", "on-b"]),
        (Some(false), None, vec!["gone"]),
        (None, Some(&fx.b), vec!["on-b"]),
        (Some(false), Some(&fx.b), vec![]),
        (None, None, vec!["gone", "on-a", "on-b"]),
    ] {
        let node = node.map(|node| node.id.clone());
        let filter = DeviceFilter { online, node };
        let mut found = Vec::new();
        let mut page = PageRequest { size: 100, token: None };
        loop {
            let part = fx.store_a.sessions.list(&home(), &filter, &page).await.unwrap();
            found.extend(part.items.into_iter().map(|record| record.device.device.to_string()));
            page.token = part.next;
            if page.token.is_none() {
                break;
            }
        }
        found.sort();
        assert_eq!(found, expected, "{filter:?}");
    }
}

pub async fn a_foreign_page_token_is_refused<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let page = PageRequest { size: 1, token: Some("no token / of ours".into()) };
    let listed = fx.store_a.sessions.list(&home(), &DeviceFilter::default(), &page).await;
    assert!(matches!(listed, Err(StoreError::Invalid(_))), "{listed:?}");
    let listed = fx.store_a.mailboxes.list(&device("d"), &CommandFilter::default(), &page).await;
    assert!(matches!(listed, Err(StoreError::Invalid(_))), "{listed:?}");
}

pub async fn ids_that_look_alike_are_kept_apart<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = |t: &str, d: &str| DeviceKey::new(tenant(t), DeviceId::new(d).unwrap());
    let keys = [
        key("a", "b:c"),
        key("a:b", "c"),
        key("a", "b"),
        key("a:1:b", "c"),
        key("a", "1:b:c"),
        key("1:a", "b"),
        key("~", ":"),
        key(":", "~"),
        key("a.b", "c"),
        key("a", ".b.c"),
    ];
    let mut sessions = Vec::new();
    for key in &keys {
        let claim = claim(&fx.store_a, key, &fx.a);
        let claimed = fx.store_a.sessions.claim(&claim).await.unwrap();
        assert_eq!(claimed.replaced, None, "{key}");
        sessions.push(claim.session);
    }
    for (key, session) in keys.iter().zip(sessions) {
        let shown = fx.store_b.sessions.get(key).await.unwrap().unwrap();
        assert_eq!(shown.session.unwrap().session, session, "{key}");
    }
}

pub async fn revalidation_keeps_reclaims_or_loses<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let sessions = &fx.store_a.sessions;
    let kept = claim(&fx.store_a, &device("kept"), &fx.a);
    let ended = claim(&fx.store_a, &device("ended"), &fx.a);
    let unheard = claim(&fx.store_a, &device("unheard"), &fx.a);
    let mut lost = claim(&fx.store_a, &device("lost"), &fx.a);
    let mut newer = claim(&fx.store_a, &device("newer"), &fx.a);
    for claim in [&kept, &ended] {
        sessions.claim(claim).await.unwrap();
    }
    sessions.release(&ended.device, ended.session, &close(&fx.store_a)).await.unwrap();
    for (one, off) in [(&mut lost, 1_000i64), (&mut newer, -1_000)] {
        let winner = claim(&fx.store_b, &one.device, &fx.b);
        fx.store_b.sessions.claim(&winner).await.unwrap();
        one.claimed_at.0 = one.claimed_at.0.saturating_add_signed(-off);
    }
    let claims = [kept, ended, unheard, lost, newer.clone()];
    let found = sessions.revalidate(&claims).await.unwrap();
    assert_eq!(found, [R::Kept, R::Reclaimed, R::Reclaimed, R::Lost, R::Reclaimed]);
    let shown = sessions.get(&newer.device).await.unwrap().unwrap();
    assert_eq!(shown.session.unwrap().session, newer.session);
    assert_eq!(sessions.revalidate(&claims[..3]).await.unwrap(), [R::Kept; 3]);
    assert_eq!(sessions.revalidate(&[]).await.unwrap(), []);
}

async fn event(watch: &mut tokio::sync::mpsc::Receiver<PresenceItem>) -> crate::PresenceEvent {
    match next(watch).await {
        PresenceItem::Event(event) => event,
        PresenceItem::Gap => panic!("a gap where none can be"),
    }
}

pub async fn presence_is_watched_in_order_and_per_tenant<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let mut watch = fx.store_b.sessions.watch(&home(), None).await.unwrap();
    fx.connect(&DeviceKey::new(tenant("other"), DeviceId::new("d").unwrap())).await;
    let key = device("d");
    let first = fx.connect(&key).await;
    let second = fx.connect(&key).await;
    let end = close(&fx.store_a);
    fx.store_a.sessions.release(&key, second, &end).await.unwrap();
    let mut ids = BTreeSet::new();
    for (kind, session, closed) in [
        (PresenceKind::Connected, first, None),
        (PresenceKind::TakenOver, second, None),
        (PresenceKind::Disconnected, second, Some(end)),
    ] {
        let event = event(&mut watch).await;
        assert_eq!((event.kind, event.session), (kind, session));
        assert_eq!((&event.device, &event.node), (&key, &fx.a.id));
        assert_eq!(event.close, closed);
        assert!(ids.insert(event.id), "every event has an id of its own");
    }
}

pub async fn a_watch_resumes_after_its_cursor<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let mut watch = fx.store_a.sessions.watch(&home(), None).await.unwrap();
    let mut cursor = String::new();
    for n in 0..10 {
        fx.connect(&device(&format!("d-{n}"))).await;
        let event = event(&mut watch).await;
        assert_eq!(event.device.device.as_str(), format!("d-{n}"));
        if n == 4 {
            cursor = event.cursor;
        }
    }
    drop(watch);
    let mut watch = fx.store_b.sessions.watch(&home(), Some(&cursor)).await.unwrap();
    let mut missed: BTreeSet<String> = (5..10).map(|n| format!("d-{n}")).collect();
    while !missed.is_empty() {
        // At least once: some from before the cursor may come again.
        missed.remove(event(&mut watch).await.device.device.as_str());
    }
}

pub async fn a_foreign_cursor_is_refused<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let watch = fx.store_a.sessions.watch(&home(), Some("no cursor")).await;
    assert!(matches!(watch, Err(StoreError::Invalid(_))), "{watch:?}");
}

pub async fn fifty_claims_at_once_leave_one_session<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let key = device("d");
    let claims: Vec<_> = (0..50).map(|_| claim(&fx.store_a, &key, &fx.a)).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for claim in claims.clone() {
        let sessions = fx.store_a.sessions.clone();
        tasks.spawn(async move { sessions.claim(&claim).await.unwrap().replaced });
    }
    let replaced = tokio::time::timeout(PATIENCE, tasks.join_all()).await.unwrap();
    let replaced: BTreeSet<_> =
        replaced.into_iter().flatten().map(|(session, _)| session).collect();
    assert_eq!(replaced.len(), 49, "each but the last was replaced by one other");
    let shown = fx.store_a.sessions.get(&key).await.unwrap().unwrap();
    let winner = shown.session.unwrap().session;
    assert!(!replaced.contains(&winner) && claims.iter().any(|claim| claim.session == winner));
}
