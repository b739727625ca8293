//! What holds for all messages: written and read again they are the same, and no text panics.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use roost_types::{
    DeviceId, Headers, Message, Origin, Payload, Position, ResultStatus, SessionId, TraceContext,
    UnixMillis,
};

use super::*;
use crate::device::{HelloSubscription, Token, WelcomeLimits};

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..40).prop_map(|chars| chars.into_iter().collect())
}

fn any_id() -> impl Strategy<Value = Option<u32>> {
    option::of(any::<u32>())
}

fn any_topic() -> impl Strategy<Value = Topic> {
    vec("[a-zé\"\\\\ $]{1,8}", 1..5).prop_map(|levels| topic(&levels.join("/")))
}

fn any_filter() -> impl Strategy<Value = TopicFilter> {
    prop_oneof![
        any_topic().prop_map(TopicFilter::from),
        any_topic().prop_map(|t| filter(&format!("+/{t}/#"))),
    ]
}

fn any_command_id() -> impl Strategy<Value = CommandId> {
    "[A-Za-z0-9._:~-]{1,128}".prop_map(|id| command_id(&id))
}

fn any_device_id() -> impl Strategy<Value = DeviceId> {
    "[A-Za-z0-9._:~-]{1,128}".prop_map(|id| DeviceId::new(id).unwrap())
}

fn any_position() -> impl Strategy<Value = Option<Position>> {
    option::of("[!-~]{1,64}".prop_map(|text| Position::parse(&text).unwrap()))
}

fn any_qos() -> impl Strategy<Value = Qos> {
    prop_oneof![Just(Qos::BestEffort), Just(Qos::AtLeastOnce)]
}

fn any_status() -> impl Strategy<Value = ResultStatus> {
    prop_oneof![
        Just(ResultStatus::Succeeded),
        Just(ResultStatus::Failed),
        Just(ResultStatus::Rejected),
    ]
}

fn any_headers() -> impl Strategy<Value = Headers> {
    vec(text(), 0..4).prop_map(|values| {
        let named = values.into_iter().enumerate();
        named.map(|(i, v)| (Arc::from(format!("h\"{i}")), Arc::from(v))).collect()
    })
}

fn any_payload() -> impl Strategy<Value = Payload> {
    let json = prop_oneof![
        Just("null".to_owned()),
        any::<f64>().prop_map(|n| serde_json::to_string(&n).unwrap()),
        text().prop_map(|s| serde_json::to_string(&s).unwrap()),
        vec(any::<i64>(), 0..9).prop_map(|n| serde_json::to_string_pretty(&n).unwrap()),
    ];
    let payload = prop_oneof![
        json.prop_map(|json| Payload::json(Text::from(json))),
        text().prop_map(|text| Payload::text(Text::from(text))),
        vec(any::<u8>(), 0..200).prop_map(|data| Payload::binary(data.into())),
    ];
    (payload, option::of("[ -~]{0,40}"))
        .prop_map(|(payload, content_type)| payload.with_content_type(content_type.as_deref()))
}

fn any_subscription() -> impl Strategy<Value = HelloSubscription> {
    (any_filter(), any_qos(), any_position()).prop_map(|(topic, qos, position)| HelloSubscription {
        topic,
        qos,
        position,
    })
}

fn from_device() -> impl Strategy<Value = FromDevice> {
    let note = || option::of(text().prop_map(Arc::<str>::from));
    let hello = (
        (any_id(), option::of(any::<u32>())),
        option::of(text().prop_map(Token)),
        vec(any_subscription(), 0..4),
        vec("[ -~]{0,128}", 0..4),
    );
    prop_oneof![
        hello.prop_map(|((id, keepalive_ms), token, subscriptions, features)| {
            FromDevice::Hello { id, keepalive_ms, token, subscriptions, features }
        }),
        (any_id(), any_subscription()).prop_map(|(id, s)| FromDevice::Subscribe {
            id,
            topic: s.topic,
            qos: s.qos,
            position: s.position,
        }),
        (any_id(), any_filter()).prop_map(|(id, topic)| FromDevice::Unsubscribe { id, topic }),
        (any_id(), any_topic(), any_payload(), any_qos(), any_headers()).prop_map(
            |(id, topic, payload, qos, headers)| {
                FromDevice::Publish { id, topic, payload, qos, headers }
            }
        ),
        (any_id(), any_command_id())
            .prop_map(|(id, command_id)| FromDevice::Received { id, command_id }),
        (any_id(), any_command_id(), option::of(0..=100_u8), note()).prop_map(
            |(id, command_id, percent, note)| {
                FromDevice::Progress { id, command_id, percent, note }
            }
        ),
        (any_id(), any_command_id(), any_status(), option::of(any_payload()), note(), any_trace())
            .prop_map(|(id, command_id, status, payload, error, trace)| {
                FromDevice::Result { id, command_id, status, payload, error, trace }
            }),
        any_id().prop_map(|id| FromDevice::Ping { id }),
    ]
}

fn any_trace() -> impl Strategy<Value = Option<TraceContext>> {
    any::<[u8; 25]>().prop_map(|bytes| TraceContext::from_bytes(&bytes))
}

fn any_message() -> impl Strategy<Value = Message> {
    let from = prop_oneof![
        any_device_id().prop_map(Origin::Device),
        text().prop_map(|name| Origin::Service(name.into())),
    ];
    let rest = (any_headers(), any_qos(), any::<u64>(), any_position());
    (any_topic(), any_payload(), from, rest).prop_map(
        |(topic, payload, from, (headers, qos, time, position))| Message {
            topic,
            payload,
            headers,
            qos,
            time: UnixMillis(time),
            from,
            position,
        },
    )
}

fn to_device() -> impl Strategy<Value = ToDevice> {
    let welcome = (any_device_id(), any::<[u8; 16]>(), any::<(u64, u32, u64, u64)>());
    let command = (
        (any_command_id(), text(), option::of(any_payload()), any_headers()),
        any::<(u64, u64, u32)>(),
    );
    let error = (
        (any_id(), option::of(any_command_id())),
        (text(), text(), option::of(text()), any::<bool>()),
    );
    prop_oneof![
        welcome.prop_map(|(device_id, session, (time, keepalive_ms, payload, frame))| {
            ToDevice::Welcome {
                device_id,
                session_id: SessionId::from_bytes(session),
                time_ms: UnixMillis(time),
                keepalive_ms,
                limits: WelcomeLimits { payload_bytes: payload, frame_bytes: frame },
            }
        }),
        (any_id(), option::of(any_command_id()), any_position())
            .prop_map(|(id, command_id, position)| ToDevice::Ack { id, command_id, position }),
        any_message().prop_map(ToDevice::Message),
        command.prop_map(|((command_id, name, payload, headers), (expires, left, attempt))| {
            ToDevice::Command {
                command_id,
                name: name.into(),
                payload,
                headers,
                expires_ms: UnixMillis(expires),
                expires_in_ms: left,
                attempt,
            }
        }),
        any_command_id().prop_map(|command_id| ToDevice::Cancel { command_id }),
        error.prop_map(|((id, command_id), (code, message, field, retryable))| ToDevice::Error {
            id,
            command_id,
            code: code.into(),
            message: message.into(),
            field: field.map(Into::into),
            retryable,
        }),
        (any_filter(), any_position(), any_position())
            .prop_map(|(topic, from, to)| ToDevice::Gap { topic, from, to }),
        (text(), option::of(any::<u64>())).prop_map(|(reason, retry_after_ms)| ToDevice::Goaway {
            reason: reason.into(),
            retry_after_ms,
        }),
        (any_id(), any::<u64>())
            .prop_map(|(id, time)| ToDevice::Pong { id, time_ms: UnixMillis(time) }),
    ]
}

/// Text of the protocol's own words in any order: mostly wrong, often nearly right.
fn near_messages() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"type\"",
        "\"hello\"",
        "\"publish\"",
        "\"result\"",
        "\"topic\"",
        "\"payload\"",
        "\"base64\"",
        "\"subscriptions\"",
        "\"headers\"",
        "\"id\"",
        "\"a/b\"",
        "\"\\ud800\"",
        "\"\\",
        "null",
        "true",
        "1",
        "-1e999",
        " ",
        "é",
        "\u{0}",
    ]);
    vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn what_a_device_writes_is_read(messages in vec(from_device(), 0..5)) {
        let limits = PayloadLimits::default();
        for message in &messages {
            let text = String::from_utf8(encode_from_device(message)).unwrap();
            prop_assert_eq!(decode(&text, &limits), vec![Ok(message.clone())], "{}", text);
        }
        let text = String::from_utf8(encode_batch(&messages)).unwrap();
        let read: Result<Vec<_>, _> = decode(&text, &limits).into_iter().collect();
        prop_assert_eq!(read, Ok(messages));
    }

    #[test]
    fn what_the_hub_writes_is_read(message in to_device()) {
        let text = String::from_utf8(encode(&message)).unwrap();
        let limits = PayloadLimits::default();
        prop_assert_eq!(decode_to_device(&text, &limits), vec![Ok(message.clone())], "{}", text);
    }

    #[test]
    fn no_text_panics(text in prop_oneof![any::<String>(), near_messages()]) {
        for limits in [LIMITS, PayloadLimits { payload_bytes: 0, batch: 0, depth: 0 }] {
            for message in decode(&text, &limits).into_iter().flatten() {
                encode_from_device(&message);
            }
            decode_to_device(&text, &limits);
        }
    }

    #[test]
    fn no_damaged_message_panics(
        message in from_device(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode_from_device(&message);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let text = String::from_utf8_lossy(&bytes);
        for read in decode(&text, &LIMITS) {
            prop_assert!(read.is_ok() || read.is_err_and(|reject| !reject.message.is_empty()));
        }
    }
}

#[test]
fn a_million_bytes_of_garbage_never_panic() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut left = 1_000_000_usize;
    while left > 0 {
        let mut text = String::from(if left.is_multiple_of(2) { "{\"" } else { "[{\"" });
        for _ in 0..50 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push_str(&String::from_utf8_lossy(&state.to_le_bytes()));
        }
        left = left.saturating_sub(text.len());
        assert!(!decode(&text, &LIMITS).is_empty());
    }
}
