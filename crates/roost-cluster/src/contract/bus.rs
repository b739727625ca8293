//! Cases for the `Bus` seam.

use std::sync::Arc;

use bytes::Bytes;
use roost_types::{
    DeviceId, Message, Origin, Payload, Position, Qos, SessionId, TenantId, Text, Topic,
    TopicFilter, UnixMillis,
};
use tokio::sync::mpsc;

use super::{Fixture, MINUTE, command_id, device, next, settings, spec, tenant};
use crate::{BusEvent, Enqueued, NodeEvent, NodeRef, Store, StoreSettings};

fn message(topic: &str, text: &str) -> Arc<Message> {
    Arc::new(Message {
        topic: Topic::new(topic).unwrap(),
        payload: Payload::text(Text::from(text)),
        headers: vec![],
        qos: Qos::BestEffort,
        time: UnixMillis(1_795_176_000_000),
        from: Origin::Device(DeviceId::new("d").unwrap()),
        position: None,
    })
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).unwrap()
}

fn home() -> TenantId {
    TenantId::default()
}

async fn declare(store: &Store, filters: &[&str]) {
    for text in filters {
        store.bus.declare(&home(), &filter(text)).await.unwrap();
    }
}

async fn publish(store: &Store, topic: &str, text: &str) {
    store.bus.publish(&home(), message(topic, text)).await.unwrap();
}

/// The next publication's text; other events are passed over.
async fn text(events: &mut mpsc::Receiver<BusEvent>) -> String {
    loop {
        if let BusEvent::Message { message, .. } = next(events).await {
            return message.payload.as_str().unwrap().to_owned();
        }
    }
}

pub async fn a_publication_reaches_each_interested_node_once<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let (mut a, mut b) = fx.events();
    declare(&fx.store_a, &["t/1", "t/end"]).await;
    declare(&fx.store_a, &["t/1"]).await;
    declare(&fx.store_b, &["t/1", "t/2", "t/end"]).await;
    fx.store_b.bus.publish(&tenant("other"), message("t/1", "foreign")).await.unwrap();
    publish(&fx.store_a, "t/1", "one").await;
    publish(&fx.store_a, "t/2", "two").await;
    publish(&fx.store_a, "t/end", "end").await;
    assert_eq!([text(&mut a).await, text(&mut a).await], ["one", "end"]);
    let mut at_b = [text(&mut b).await, text(&mut b).await, text(&mut b).await];
    at_b.sort();
    assert_eq!(at_b, ["end", "one", "two"]);
}

pub async fn wildcards_and_exact_filters_overlap_without_repeats<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let (mut a, mut b) = fx.events();
    declare(&fx.store_a, &["fleet/#", "fleet/+/temp", "fleet/1/temp", "end"]).await;
    declare(&fx.store_b, &["fleet/1/temp", "+/1/#", "end"]).await;
    for (topic, text) in [
        ("fleet/1/temp", "both"),
        ("fleet/2/temp", "a only"),
        ("boat/1/x", "b only"),
        ("boat/2", "nobody"),
        ("end", "end"),
    ] {
        publish(&fx.store_b, topic, text).await;
    }
    // Anything that came twice would stand before "end" or before "last".
    publish(&fx.store_a, "end", "last").await;
    for (events, own) in [(&mut a, "a only"), (&mut b, "b only")] {
        let found =
            [text(events).await, text(events).await, text(events).await, text(events).await];
        assert_eq!(found, ["both", own, "end", "last"]);
    }
}

pub async fn a_withdrawn_filter_brings_nothing<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let (mut a, _b) = fx.events();
    declare(&fx.store_a, &["t/1", "w/#", "end"]).await;
    for gone in ["t/1", "w/#", "never/declared"] {
        fx.store_a.bus.withdraw(&home(), &filter(gone)).await.unwrap();
    }
    publish(&fx.store_a, "t/1", "exact").await;
    publish(&fx.store_a, "w/1", "wildcard").await;
    publish(&fx.store_a, "end", "end").await;
    assert_eq!(text(&mut a).await, "end");
    declare(&fx.store_a, &["t/1"]).await;
    publish(&fx.store_b, "t/1", "again").await;
    assert_eq!(text(&mut a).await, "again");
}

pub async fn publications_keep_their_order<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let (mut a, mut b) = fx.events();
    declare(&fx.store_a, &["t"]).await;
    declare(&fx.store_b, &["#"]).await;
    for n in 0..1_000 {
        publish(&fx.store_a, "t", &n.to_string()).await;
    }
    for n in 0..1_000 {
        assert_eq!(text(&mut a).await, n.to_string());
        assert_eq!(text(&mut b).await, n.to_string());
    }
}

/// The next event for the node itself; publications and repairs are passed over.
async fn node_event(events: &mut mpsc::Receiver<BusEvent>) -> NodeEvent {
    loop {
        if let BusEvent::Node(event) = next(events).await {
            return *event;
        }
    }
}

pub async fn node_events_arrive_as_sent<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let (_a, mut b) = fx.events();
    let key = device("d");
    let session = SessionId::random();
    fx.connect(&key).await;
    let spec = spec(&fx.store_a, "c", MINUTE);
    let enqueued = fx.store_a.mailboxes.enqueue(&key, crate::Offer::new(&spec)).await.unwrap();
    let Enqueued::Accepted { command, .. } = enqueued else {
        panic!("{enqueued:?}");
    };
    for event in [
        NodeEvent::Deliver { session, command: command.clone(), prev: 41 },
        NodeEvent::Drain { device: key.clone(), session },
        NodeEvent::Cancel { device: key.clone(), session, command: command_id("c") },
        NodeEvent::Replaced { device: key.clone(), session, by: fx.a.id.clone() },
        NodeEvent::ReplacedDone { session },
        NodeEvent::Disconnect { device: key.clone(), session, reason: "bye".into() },
        NodeEvent::CommandUpdate(command),
        NodeEvent::DrainNode { over: MINUTE },
        NodeEvent::UndrainNode,
        NodeEvent::Rebalance { surplus: 7, over: MINUTE },
    ] {
        fx.store_a.bus.send(&fx.b, &event).await.unwrap();
        assert_eq!(node_event(&mut b).await, event);
    }
}

pub async fn an_event_for_another_incarnation_is_dropped<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let (_a, mut b) = fx.events();
    let done = |n: u8| NodeEvent::ReplacedDone { session: SessionId::from_bytes([n; 16]) };
    let former = NodeRef::start(fx.b.id.clone());
    fx.store_a.bus.send(&former, &done(1)).await.unwrap();
    fx.store_a.bus.send(&NodeRef::start(Fixture::node_id("nobody")), &done(2)).await.unwrap();
    fx.store_a.bus.send_to(&fx.b.id, &done(3)).await.unwrap();
    fx.store_a.bus.send(&fx.b, &done(4)).await.unwrap();
    assert_eq!([node_event(&mut b).await, node_event(&mut b).await], [done(3), done(4)]);
}

pub async fn messages_pass_unchanged<F: Future<Output = Fixture>>(
    make: impl Fn(StoreSettings) -> F,
) {
    let fx = make(settings()).await.joined().await;
    let (_a, mut b) = fx.events();
    declare(&fx.store_b, &["größe/#"]).await;
    let base = Message::clone(&message("größe/1", ""));
    let json = Payload::json(Text::from("{ \"a\":1.0 ,\"b\" : [ ] }"));
    for (payload, from, position) in [
        (json, base.from.clone(), None),
        (
            Payload::text("<x>é</x>".into()).with_content_type(Some("application/xml")),
            base.from.clone(),
            Position::parse("k3:7"),
        ),
        (
            Payload::binary(Bytes::from((0..=255).collect::<Vec<u8>>())),
            Origin::Service("billing".into()),
            None,
        ),
        (Payload::binary(Bytes::new()), base.from.clone(), None),
    ] {
        let headers = vec![("k".into(), "v".into()), ("é".into(), "".into())];
        let sent = Message { payload, from, position, headers, ..base.clone() };
        fx.store_a.bus.publish(&home(), Arc::new(sent.clone())).await.unwrap();
        let BusEvent::Message { tenant, message } = next(&mut b).await else {
            panic!("a publication was to come");
        };
        assert_eq!((tenant, &*message), (home(), &sent));
    }
}
