//! Publishing and following topics.

use roost_cluster::NodeSink as _;
use roost_proto::control::v1::subscribe_response::Event;
use roost_proto::control::v1::{
    Message, PublishRequest, Qos, SubscribeRequest, SubscribeResponse, SubscriptionsConfirmed,
    TopicSubscription,
};
use tonic::{Code, Streaming};

use crate::commands::json;
use crate::hub::{Hub, OURS, THEIRS, fields, reason};
use roost_cluster::StoreSettings;

fn publication(topic: &str, text: &str) -> PublishRequest {
    PublishRequest { topic: topic.into(), payload: json(text), ..PublishRequest::default() }
}

async fn publish(hub: &Hub, topic: &str, text: &str) {
    hub.messages().publish(publication(topic, text)).await.unwrap();
}

async fn subscribe(hub: &Hub, key: &str, filters: &[&str]) -> Streaming<SubscribeResponse> {
    let subscription = |filter: &&str| TopicSubscription { topic_filter: (*filter).to_owned() };
    let request = SubscribeRequest { subscriptions: filters.iter().map(subscription).collect() };
    let answer = hub.messages_of(key).subscribe(request).await.unwrap();
    let mut stream = answer.into_inner();
    assert_eq!(next(&mut stream).await, Event::Subscribed(SubscriptionsConfirmed {}));
    stream
}

async fn next(stream: &mut Streaming<SubscribeResponse>) -> Event {
    stream.message().await.unwrap().unwrap().event.unwrap()
}

async fn message(stream: &mut Streaming<SubscribeResponse>) -> Message {
    match next(stream).await {
        Event::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_stream_gets_each_message_once_however_many_filters_match() {
    let hub = Hub::start().await;
    let mut all = subscribe(&hub, OURS, &["a/#", "a/+", "a/b", "a/b"]).await;
    let mut one = subscribe(&hub, OURS, &["a/b"]).await;
    let mut other = subscribe(&hub, THEIRS, &["#"]).await;
    for (topic, text) in [("a/b", "1"), ("a/c", "2"), ("x", "3"), ("a/b", "4")] {
        publish(&hub, topic, text).await;
    }
    for (topic, text) in [("a/b", "1"), ("a/c", "2"), ("a/b", "4")] {
        let message = message(&mut all).await;
        assert_eq!((&*message.topic, &message.payload), (topic, &json(text)));
        assert_eq!(message.from, "service:ours");
        assert_eq!(message.qos(), Qos::AtMostOnce);
    }
    assert_eq!(message(&mut one).await.payload, json("1"));
    assert_eq!(message(&mut one).await.payload, json("4"));
    let theirs = publication("a/b", "5");
    hub.messages_of(THEIRS).publish(theirs).await.unwrap();
    let first = message(&mut other).await;
    assert_eq!((first.payload, &*first.from), (json("5"), "service:theirs"));
}

#[tokio::test]
async fn a_slow_stream_is_told_how_much_it_missed() {
    let small = |config: &mut roost_control::ControlConfig| config.stream_messages = 10;
    let hub = Hub::with(StoreSettings::default(), small, |_| {}).await;
    let mut slow = subscribe(&hub, OURS, &["a"]).await;
    let text = format!("\"{}\"", "x".repeat(60_000));
    // More than the flow-control windows and the queue hold together.
    for _ in 0..60 {
        publish(&hub, "a", &text).await;
    }
    let dropped = "roost_messages_dropped_total{reason=\"queue_full\"}";
    while hub.metric(dropped) < 1 {
        publish(&hub, "a", &text).await;
    }
    publish(&hub, "a", "\"last\"").await;
    let mut missed = 0;
    while missed == 0 {
        if let Event::Gap(gap) = next(&mut slow).await {
            assert_eq!(gap.topic_filter, "");
            missed = gap.dropped_count.unwrap();
        }
    }
    assert!(missed <= hub.metric(dropped));
    assert!(hub.metric("roost_gaps_total{cause=\"dropped\"}") >= 1);
}

#[tokio::test]
async fn an_interruption_is_a_gap_in_every_stream() {
    let hub = Hub::start().await;
    let mut one = subscribe(&hub, OURS, &["a"]).await;
    let mut two = subscribe(&hub, THEIRS, &["b"]).await;
    hub.control.gap();
    for stream in [&mut one, &mut two] {
        match next(stream).await {
            Event::Gap(gap) => assert_eq!(gap.dropped_count, None),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn bad_publications_name_what_is_wrong() {
    let hub = Hub::start().await;
    let refused =
        async |request: PublishRequest| hub.messages().publish(request).await.unwrap_err();
    for topic in ["", "a//b", "a/+", "$hub/x"] {
        let status = refused(publication(topic, "1")).await;
        assert_eq!((status.code(), &*reason(&status)), (Code::InvalidArgument, "TOPIC_INVALID"));
        assert_eq!(fields(&status), ["topic"]);
    }
    let mut kept = publication("a", "1");
    kept.qos = Qos::AtLeastOnce.into();
    let status = refused(kept).await;
    assert_eq!((status.code(), &*reason(&status)), (Code::Unimplemented, "QOS_UNSUPPORTED"));
    let mut empty = publication("a", "1");
    empty.payload = None;
    let status = refused(empty).await;
    assert_eq!(fields(&status), ["payload"]);
}

#[tokio::test]
async fn bad_subscriptions_name_the_filter() {
    let hub = Hub::start().await;
    let filters = |filters: Vec<&str>| SubscribeRequest {
        subscriptions: filters
            .into_iter()
            .map(|filter| TopicSubscription { topic_filter: filter.to_owned() })
            .collect(),
    };
    let status = hub.messages().subscribe(filters(vec!["a", "#/b"])).await.unwrap_err();
    assert_eq!(fields(&status), ["subscriptions[1].topic_filter"]);
    let status = hub.messages().subscribe(filters(vec![])).await.unwrap_err();
    assert_eq!(fields(&status), ["subscriptions"]);
    let status = hub.messages().subscribe(filters(vec!["a"; 101])).await.unwrap_err();
    assert_eq!(fields(&status), ["subscriptions"]);
}
