//! Messages of devices as the protocol's description has them, and batches.

use roost_types::{Payload, Position, ResultStatus, TraceContext};

use super::*;
use crate::device::{HelloSubscription, Token};

#[test]
fn the_examples_of_the_description() {
    let hello = read(
        r#"{"type":"hello","keepalive_ms":60000,"subscriptions":[{"topic":"fleet/42/#","qos":1,"position":"k3:118"}]}"#,
    );
    let subscription = HelloSubscription {
        topic: filter("fleet/42/#"),
        qos: Qos::AtLeastOnce,
        position: Position::parse("k3:118"),
    };
    assert_eq!(
        hello,
        Ok(FromDevice::Hello {
            id: None,
            keepalive_ms: Some(60_000),
            token: None,
            subscriptions: vec![subscription],
            features: vec![],
        })
    );
    assert_eq!(
        read(r#"{"type":"subscribe","id":1,"topic":"fleet/42/config","qos":1}"#),
        Ok(FromDevice::Subscribe {
            id: Some(1),
            topic: filter("fleet/42/config"),
            qos: Qos::AtLeastOnce,
            position: None,
        })
    );
    assert_eq!(
        read(
            r#"{"type":"publish","id":2,"topic":"fleet/42/temp","payload":{"celsius":21.5},"qos":1}"#
        ),
        Ok(FromDevice::Publish {
            id: Some(2),
            topic: topic("fleet/42/temp"),
            payload: Payload::json(Text::from(r#"{"celsius":21.5}"#)),
            qos: Qos::AtLeastOnce,
            headers: vec![],
        })
    );
    assert_eq!(read(r#"{"type":"ping","id":5}"#), Ok(FromDevice::Ping { id: Some(5) }));
}

#[test]
fn what_a_device_says_of_a_command() {
    assert_eq!(
        read(r#"{"type":"received","command_id":"01J"}"#),
        Ok(FromDevice::Received { id: None, command_id: command_id("01J") })
    );
    assert_eq!(
        read(r#"{"type":"progress","command_id":"01J","percent":40,"note":"flushing"}"#),
        Ok(FromDevice::Progress {
            id: None,
            command_id: command_id("01J"),
            percent: Some(40),
            note: Some("flushing".into()),
        })
    );
    assert_eq!(
        read(
            r#"{"type":"result","id":3,"command_id":"01J","status":"succeeded","payload":{"uptime_s":3}}"#
        ),
        Ok(FromDevice::Result {
            id: Some(3),
            command_id: command_id("01J"),
            status: ResultStatus::Succeeded,
            payload: Some(Payload::json(Text::from(r#"{"uptime_s":3}"#))),
            error: None,
            trace: None,
        })
    );
    let failed = read(r#"{"type":"result","command_id":"01J","status":"failed","error":"no"}"#);
    assert!(matches!(
        failed,
        Ok(FromDevice::Result { status: ResultStatus::Failed, payload: None, error: Some(e), .. })
            if &*e == "no"
    ));
}

#[test]
fn a_result_may_name_its_span_and_loses_nothing_by_naming_none() {
    let result = |traceparent: &str| {
        let text = r#"{"type":"result","command_id":"01J","status":"succeeded","traceparent":"#;
        match read(&format!("{text}{traceparent}}}")) {
            Ok(FromDevice::Result { trace, .. }) => Ok(trace),
            Ok(other) => panic!("{other:?}"),
            Err(reject) => Err(reject.field),
        }
    };
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(result(&format!("{good:?}")), Ok(TraceContext::parse(good)));
    for ignored in ["null", "\"\"", "\"00-4bf9\""] {
        assert_eq!(result(ignored), Ok(None), "{ignored}");
    }
    assert_eq!(result("7"), Err(Some("traceparent".into())));
}

#[test]
fn defaults_nulls_and_unknown_fields() {
    assert_eq!(read(r#"{"type":"hello"}"#), Ok(FromDevice::default_hello()));
    let nulls = r#"{"type":"hello","id":null,"keepalive_ms":null,"token":null,"subscriptions":null,"features":null}"#;
    assert_eq!(read(nulls), Ok(FromDevice::default_hello()));
    let unknown = " { \"new\" : [ { } ] , \"t\\u0079pe\" : \"ping\" , \"new\":1 }\n";
    assert_eq!(read(unknown), Ok(FromDevice::Ping { id: None }));
    let unsubscribe = read(r#"{"topic":"a\/+","type":"unsubscribe"}"#);
    assert_eq!(unsubscribe, Ok(FromDevice::Unsubscribe { id: None, topic: filter("a/+") }));
}

#[test]
fn a_token_is_read_and_never_shown() {
    let hello = read(r#"{"type":"hello","token":"s3cret","features":["gzip"]}"#).unwrap();
    assert!(!format!("{hello:?}").contains("s3cret"));
    assert!(matches!(
        hello,
        FromDevice::Hello { token: Some(Token(t)), features, .. }
            if t == "s3cret" && features == ["gzip"]
    ));
}

#[test]
fn headers_keep_their_order() {
    let publish = r#"{"type":"publish","topic":"a","text":"","headers":{"z":"1","a":"\u00e9"}}"#;
    let Ok(FromDevice::Publish { headers, .. }) = read(publish) else {
        panic!("a publish");
    };
    assert_eq!(headers, [("z".into(), "1".into()), ("a".into(), "é".into())]);
}

#[test]
fn good_and_bad_messages_of_a_batch_stand_side_by_side() {
    let batch = r#"[{"type":"ping","id":1},{"type":"pong","id":2},{"type":"ping","id":3}]"#;
    let messages = decode(batch, &LIMITS);
    assert_eq!(messages.len(), 3);
    assert_eq!(messages[0], Ok(FromDevice::Ping { id: Some(1) }));
    let reject = messages[1].clone().unwrap_err();
    assert_eq!((reject.id, reject.code), (Some(2), ErrorCode::UnknownType));
    assert_eq!(messages[2], Ok(FromDevice::Ping { id: Some(3) }));
}

#[test]
fn a_batch_has_at_most_64_messages() {
    let batch = |count| format!("[{}]", vec![r#"{"type":"ping"}"#; count].join(","));
    assert_eq!(decode("[]", &LIMITS), []);
    assert_eq!(decode(&batch(64), &LIMITS).len(), 64);
    let reject = refused(&batch(70));
    assert_eq!(reject.code, ErrorCode::LimitExceeded);
    assert_eq!(
        reject.message,
        "the batch has 70 messages, none of which was done; at most 64 are taken"
    );
}
