//! What is refused, with which code, field and words, and what ends the connection.

use super::*;

/// Checks a refusal's code and field, and that its words contain `words`.
fn check(text: &str, code: ErrorCode, field: &str, words: &str) {
    let reject = refused(text);
    assert_eq!((reject.code, reject.field.as_deref()), (code, Some(field)), "{text}");
    assert!(reject.message.contains(words), "{text}: {}", reject.message);
}

#[test]
fn types_and_missing_fields() {
    use ErrorCode::{FieldInvalid, FieldMissing, UnknownType};
    check("{}", FieldMissing, "type", "it must be hello, subscribe");
    check(r#"{"type":7}"#, FieldInvalid, "type", "type is 7; it must be a string");
    check(r#"{"type":"x"}"#, UnknownType, "type", r#"the type "x" is not known"#);
    let missing = [
        (r#"{"type":"subscribe"}"#, "topic"),
        (r#"{"type":"unsubscribe","topic":null}"#, "topic"),
        (r#"{"type":"publish","text":"x"}"#, "topic"),
        (r#"{"type":"publish","topic":"a"}"#, "payload"),
        (r#"{"type":"received"}"#, "command_id"),
        (r#"{"type":"progress"}"#, "command_id"),
        (r#"{"type":"result","status":"failed"}"#, "command_id"),
        (r#"{"type":"result","command_id":"c"}"#, "status"),
    ];
    for (text, field) in missing {
        check(text, FieldMissing, field, "is missing");
    }
}

#[test]
fn values_that_cannot_be() {
    let cases = [
        (
            r#"{"type":"ping","id":-1}"#,
            "id",
            "id is -1; it must be an integer from 0 to 4294967295",
        ),
        (r#"{"type":"ping","id":4294967296}"#, "id", "id is 4294967296"),
        (r#"{"type":"ping","id":1.5}"#, "id", "id is 1.5"),
        (r#"{"type":"ping","id":"1"}"#, "id", r#"id is "1""#),
        (r#"{"type":"ping","id":{}}"#, "id", "id is an object"),
        (r#"{"type":"hello","keepalive_ms":1e5}"#, "keepalive_ms", "an integer from 0 to"),
        (r#"{"type":"hello","token":[1]}"#, "token", "token is an array; it must be a string"),
        (r#"{"type":"hello","features":"x"}"#, "features", "it must be an array"),
        (r#"{"type":"hello","features":[1]}"#, "features", "strings of at most 128 bytes"),
        (r#"{"type":"hello","subscriptions":{}}"#, "subscriptions", "it must be an array"),
        (r#"{"type":"subscribe","topic":"a","qos":2}"#, "qos", "qos is 2; it must be 0 or 1"),
        (r#"{"type":"subscribe","topic":"a","position":""}"#, "position", "as the hub gave it"),
        (r#"{"type":"subscribe","topic":"\ud800"}"#, "topic", "half a character"),
        (r#"{"type":"progress","command_id":"c","percent":101}"#, "percent", "from 0 to 100"),
        (r#"{"type":"progress","command_id":"c","note":1}"#, "note", "it must be a string"),
        (r#"{"type":"result","command_id":"c","status":"done"}"#, "status", r#"status is "done""#),
        (r#"{"type":"ping","id":1,"id":2}"#, "id", "given twice"),
    ];
    for (text, field, words) in cases {
        check(text, ErrorCode::FieldInvalid, field, words);
    }
    let long = format!(r#"{{"type":"progress","command_id":"c","note":"{}"}}"#, "x".repeat(1025));
    check(
        &long,
        ErrorCode::FieldInvalid,
        "note",
        "note is 1025 bytes long; it must be at most 1024",
    );
}

#[test]
fn topics_and_ids_keep_their_rules() {
    use ErrorCode::{IdInvalid, TopicInvalid};
    let publish = r#"{"type":"publish","topic":"fleet//temp","text":""}"#;
    check(publish, TopicInvalid, "topic", r#"level 2 is empty in "fleet//temp""#);
    check(r#"{"type":"publish","topic":"a/#","text":""}"#, TopicInvalid, "topic", "wildcard");
    check(r#"{"type":"subscribe","topic":"a/#/b"}"#, TopicInvalid, "topic", "last level");
    let hello = r#"{"type":"hello","subscriptions":[{"topic":"a"},{"topic":""}]}"#;
    check(hello, TopicInvalid, "subscriptions[1].topic", "the topic is empty");
    let hello = r#"{"type":"hello","subscriptions":["a"]}"#;
    check(hello, ErrorCode::FieldInvalid, "subscriptions[0]", "must be an object with a topic");
    check(r#"{"type":"received","command_id":"a b"}"#, IdInvalid, "command_id", "' ' at byte 1");
}

#[test]
fn a_refusal_repeats_the_id_and_the_command() {
    let reject = refused(r#"{"type":"result","command_id":"c1","id":9,"status":0}"#);
    assert_eq!(reject.id, Some(9));
    assert_eq!(reject.command_id, Some(command_id("c1")));
    assert_eq!(
        String::from_utf8(encode(&reject.into_error())).unwrap(),
        r#"{"type":"error","id":9,"command_id":"c1","code":"FIELD_INVALID","message":"status is 0; it must be a string","field":"status","retryable":false}"#
    );
}

#[test]
fn headers_are_bounded_strings() {
    let publish = |headers: &str| {
        format!(r#"{{"type":"publish","topic":"a","text":"","headers":{headers}}}"#)
    };
    let many: Vec<String> = (0..33).map(|i| format!(r#""h{i}":"""#)).collect();
    let cases = [
        ("[]".to_owned(), "headers is an array; it must be an object of strings"),
        (r#"{"a":1}"#.to_owned(), r#"the header "a" is 1; it must be a string"#),
        (r#"{"":"x"}"#.to_owned(), "named in 1 to 128 bytes"),
        (r#"{"a":"x","a":"y"}"#.to_owned(), "given twice"),
        (format!(r#"{{"a":"{}"}}"#, "x".repeat(1025)), "1025 bytes long"),
        (format!("{{{}}}", many.join(",")), "more than 32 headers"),
    ];
    for (headers, words) in cases {
        check(&publish(&headers), ErrorCode::FieldInvalid, "headers", words);
    }
}

#[test]
fn what_is_no_message_at_all_ends_the_connection() {
    let cases = [
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("hello", "neither an object nor an array"),
        ("\"hello\"", "neither an object nor an array"),
        ("7", "neither an object nor an array"),
        (r#"{"type":"ping""#, "line 1 column"),
        (r#"{"type":"ping"} x"#, "trailing characters"),
        (r#"{type:"ping"}"#, "key must be a string"),
        (r#"[{"type":"ping"},"#, "line 1 column"),
        (r#"[{"type":"ping"},7]"#, "element 2 of the array is not an object"),
        (r#"[{"type":"ping"},{"type":}]"#, "expected value"),
        (r#"[[{"type":"ping"}]]"#, "element 1 of the array is not an object"),
    ];
    for (text, words) in cases {
        let reject = read(text).expect_err(text);
        assert!(reject.fatal, "{text}");
        assert_eq!(reject.code.close_code(), Some(4400));
        assert!(reject.message.contains(words), "{text}: {}", reject.message);
        assert!(reject.message.contains("an array of up to 64"), "{text}");
    }
}

#[test]
fn deep_json_is_refused_wherever_it_stands() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let limits = PayloadLimits::new(usize::MAX);
    let publish =
        |depth| format!(r#"{{"type":"publish","topic":"a","payload":{}}}"#, nested(depth));
    assert!(decode(&publish(128), &limits)[0].is_ok());
    for depth in [129, 10_000, 1_000_000] {
        let reject = decode(&publish(depth), &limits).remove(0).unwrap_err();
        assert_eq!((reject.code, reject.fatal), (ErrorCode::FieldInvalid, false));
        let words = format!("its value is nested {depth} levels deep; at most 128 are taken");
        assert!(reject.message.contains(&words), "{}", reject.message);
        assert_eq!(reject.field.as_deref(), Some("payload"));
        for field in ["x", "subscriptions", "type", "headers"] {
            let text = format!(r#"{{"id":1,"{field}":{}}}"#, nested(depth));
            let reject = decode(&text, &limits).remove(0).unwrap_err();
            assert_eq!(reject.field.as_deref(), Some(field));
            assert!(!reject.fatal && reject.message.contains(&words));
        }
        let reject = decode(&nested(depth), &limits).remove(0).unwrap_err();
        assert!(reject.fatal);
        let objects = r#"{"a":"#.repeat(depth);
        assert!(decode(&objects, &limits).remove(0).unwrap_err().fatal);
        assert!(json_payload(&nested(depth), &limits).is_err());
    }
    // Brackets in strings are no depth.
    let brackets = format!(r#"{{"type":"publish","topic":"a","text":"{}\""}}"#, "[".repeat(500));
    assert!(decode(&brackets, &limits)[0].is_ok());
}
