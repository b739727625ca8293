//! Publications and subscriptions.

use roost_types::{ErrorCode, Message, Origin, Qos, Topic, TopicFilter, UnixMillis};

use super::violation::Checks;
use super::{Violation, Violations, headers, headers_out, required_payload, timestamp_out};
use crate::control::v1;

/// The most filters that one stream may follow.
pub const MAX_SUBSCRIPTIONS: usize = 100;

impl From<Qos> for v1::Qos {
    fn from(qos: Qos) -> Self {
        match qos {
            Qos::BestEffort => Self::AtMostOnce,
            Qos::AtLeastOnce => Self::AtLeastOnce,
        }
    }
}

impl From<&Message> for v1::Message {
    fn from(message: &Message) -> Self {
        let position = message.position.as_ref();
        Self {
            topic: message.topic.as_str().to_owned(),
            payload: Some((&message.payload).into()),
            headers: headers_out(&message.headers),
            qos: v1::Qos::from(message.qos).into(),
            time: Some(timestamp_out(message.time)),
            from: message.from.to_string(),
            position: position.map_or_else(String::new, |at| at.as_str().to_owned()),
        }
    }
}

/// The field `qos`; unspecified is best effort.
pub fn qos(value: i32) -> Result<Qos, Violation> {
    match v1::Qos::try_from(value) {
        Ok(v1::Qos::Unspecified | v1::Qos::AtMostOnce) => Ok(Qos::BestEffort),
        Ok(v1::Qos::AtLeastOnce) => Ok(Qos::AtLeastOnce),
        Err(_) => Err(Violation::invalid(
            "qos",
            format!("has the value {value}; this hub knows AT_MOST_ONCE (1) and AT_LEAST_ONCE (2)"),
        )),
    }
}

/// The message that a request wants published by `from` at `now`. `max_payload` bounds its payload,
/// in bytes. Whether its quality of service can be had is not decided here.
pub fn publication(
    request: v1::PublishRequest,
    from: Origin,
    now: UnixMillis,
    max_payload: usize,
) -> Result<Message, Violations> {
    let mut checks = Checks::default();
    let topic = checks.take(own_topic(&request.topic));
    let payload = checks.take(required_payload(request.payload, max_payload, "payload"));
    let headers = checks.take(headers(&request.headers, "headers"));
    let qos = checks.take(qos(request.qos));
    let message = || {
        Some(Message {
            topic: topic?,
            payload: payload?,
            headers: headers?,
            qos: qos?,
            time: now,
            from,
            position: None,
        })
    };
    let message = message();
    checks.finish(message)
}

/// The filters that a request wants to follow, as given.
pub fn topic_filters(request: &v1::SubscribeRequest) -> Result<Vec<TopicFilter>, Violations> {
    let given = &request.subscriptions;
    let range = 1..=MAX_SUBSCRIPTIONS;
    if !range.contains(&given.len()) {
        let what = format!("has {} entries; it needs 1 to {MAX_SUBSCRIPTIONS}", given.len());
        return Err(Violation::invalid("subscriptions", what).into());
    }
    let mut checks = Checks::default();
    let mut filters = Vec::with_capacity(given.len());
    for (index, subscription) in given.iter().enumerate() {
        let filter = TopicFilter::new(&subscription.topic_filter).map_err(|error| {
            let field = format!("subscriptions[{index}].topic_filter");
            Violation::new(ErrorCode::TopicInvalid, field, error.to_string())
        });
        filters.extend(checks.take(filter));
    }
    checks.finish(Some(filters))
}

/// A topic that callers may publish to.
fn own_topic(text: &str) -> Result<Topic, Violation> {
    let violation = |what: String| Violation::new(ErrorCode::TopicInvalid, "topic", what);
    let topic = Topic::new(text).map_err(|error| violation(error.to_string()))?;
    if topic.is_reserved() {
        let what = "begins with `$`, which the hub keeps for its own topics".to_owned();
        return Err(violation(what));
    }
    Ok(topic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::v1::payload::Body;
    use roost_types::{DeviceId, Payload, Position};

    fn request() -> v1::PublishRequest {
        v1::PublishRequest {
            topic: "fleet/42/temp".into(),
            payload: Some(v1::Payload {
                body: Some(Body::Json("21.5".into())),
                content_type: String::new(),
            }),
            headers: [("trace".to_owned(), "1".to_owned())].into(),
            qos: 0,
        }
    }

    fn publish(request: v1::PublishRequest) -> Result<Message, Violations> {
        publication(request, Origin::Service("billing".into()), UnixMillis(1500), 64)
    }

    #[test]
    fn a_publication_becomes_the_message_that_subscribers_get() {
        let message = publish(request()).unwrap();
        assert_eq!(message.qos, Qos::BestEffort);
        assert_eq!(message.payload, Payload::json("21.5".into()));
        let out = v1::Message::from(&message);
        assert_eq!(out.topic, "fleet/42/temp");
        assert_eq!(out.payload, request().payload);
        assert_eq!(out.headers, request().headers);
        assert_eq!(out.qos(), v1::Qos::AtMostOnce);
        assert_eq!(out.from, "service:billing");
        assert_eq!(out.position, "");
        let time = prost_types::Timestamp { seconds: 1, nanos: 500_000_000 };
        assert_eq!(out.time, Some(time));
    }

    #[test]
    fn a_kept_message_of_a_device_shows_both() {
        let mut message = publish(request()).unwrap();
        message.from = Origin::Device(DeviceId::new("d1").unwrap());
        message.position = Position::parse("k3:7");
        message.qos = Qos::AtLeastOnce;
        let out = v1::Message::from(&message);
        assert_eq!((&*out.from, &*out.position), ("device:d1", "k3:7"));
        assert_eq!(qos(out.qos), Ok(Qos::AtLeastOnce));
    }

    #[test]
    fn every_bad_field_is_listed_in_order() {
        let mut bad = request();
        bad.topic = "fleet//temp".into();
        bad.payload = None;
        bad.headers.insert(String::new(), String::new());
        bad.qos = 9;
        let violations = publish(bad).unwrap_err();
        let fields: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["topic", "payload", "headers", "qos"]);
        assert_eq!(violations.code(), ErrorCode::TopicInvalid);
    }

    #[test]
    fn wildcards_and_the_hubs_own_topics_are_no_place_to_publish() {
        for topic in ["", "a/+", "a/#", "$hub/x", "a\0b"] {
            let mut bad = request();
            bad.topic = topic.into();
            let violations = publish(bad).unwrap_err();
            assert_eq!(violations.code(), ErrorCode::TopicInvalid, "{topic:?}");
        }
    }

    fn subscribe(filters: &[&str]) -> Result<Vec<TopicFilter>, Violations> {
        let subscription =
            |filter: &&str| v1::TopicSubscription { topic_filter: (*filter).to_owned() };
        let subscriptions = filters.iter().map(subscription).collect();
        topic_filters(&v1::SubscribeRequest { subscriptions })
    }

    #[test]
    fn filters_are_read_in_order_and_bad_ones_named_by_index() {
        let filters = subscribe(&["a/+/c", "#"]).unwrap();
        assert_eq!(filters[0].as_str(), "a/+/c");
        let violations = subscribe(&["a", "a//b", "b", "#/a"]).unwrap_err();
        let fields: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
        let expected = ["subscriptions[1].topic_filter", "subscriptions[3].topic_filter"];
        assert_eq!(fields, expected);
    }

    #[test]
    fn the_number_of_filters_is_bounded_on_both_sides() {
        assert!(subscribe(&[]).is_err());
        assert!(subscribe(&["a"; MAX_SUBSCRIPTIONS]).is_ok());
        assert!(subscribe(&["a"; MAX_SUBSCRIPTIONS + 1]).is_err());
    }
}
