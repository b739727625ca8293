//! The hub's messages, byte for byte.

use bytes::Bytes;
use roost_types::{DeviceId, HubError, Message, Origin, Payload, Position, SessionId, UnixMillis};

use super::*;
use crate::device::WelcomeLimits;
use crate::ws::{Opcode, encode_message};

#[track_caller]
fn check(message: &ToDevice, expected: &str) {
    assert_eq!(String::from_utf8(encode(message)).unwrap(), expected);
    assert_eq!(frame(message), encode_message(Opcode::Text, expected.as_bytes()));
    let limits = PayloadLimits::default();
    assert_eq!(decode_to_device(expected, &limits), vec![Ok(message.clone())]);
}

fn message(payload: Payload) -> Message {
    Message {
        topic: topic("fleet/42/temp"),
        payload,
        headers: vec![],
        qos: Qos::BestEffort,
        time: UnixMillis(1_795_176_000_000),
        from: Origin::Device(DeviceId::new("thermo-1").unwrap()),
        position: None,
    }
}

#[test]
fn the_examples_of_the_description() {
    check(
        &ToDevice::Welcome {
            device_id: DeviceId::new("thermo-1").unwrap(),
            session_id: SessionId::from_bytes([0x9c; 16]),
            time_ms: UnixMillis(1_795_176_000_000),
            keepalive_ms: 60_000,
            limits: WelcomeLimits { payload_bytes: 65_536, frame_bytes: 131_072 },
        },
        r#"{"type":"welcome","device_id":"thermo-1","session_id":"9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c","time_ms":1795176000000,"keepalive_ms":60000,"limits":{"payload_bytes":65536,"frame_bytes":131072}}"#,
    );
    let ack = |id, command, position: &str| ToDevice::Ack {
        id,
        command_id: command,
        position: Position::parse(position),
    };
    check(&ack(Some(1), None, ""), r#"{"type":"ack","id":1}"#);
    check(&ack(Some(2), None, "k3:7"), r#"{"type":"ack","id":2,"position":"k3:7"}"#);
    check(&ack(None, Some(command_id("01J")), ""), r#"{"type":"ack","command_id":"01J"}"#);
    check(
        &ToDevice::Cancel { command_id: command_id("01J") },
        r#"{"type":"cancel","command_id":"01J"}"#,
    );
    check(
        &ToDevice::Goaway { reason: "draining".into(), retry_after_ms: Some(1700) },
        r#"{"type":"goaway","reason":"draining","retry_after_ms":1700}"#,
    );
    check(
        &ToDevice::Pong { id: Some(0), time_ms: UnixMillis(0) },
        r#"{"type":"pong","id":0,"time_ms":0}"#,
    );
}

#[test]
fn errors_gaps_and_commands() {
    let error = HubError::from(Topic::new("fleet//temp").unwrap_err()).at("topic");
    check(
        &ToDevice::error(Some(4), error),
        r#"{"type":"error","id":4,"code":"TOPIC_INVALID","message":"level 2 is empty in \"fleet//temp\"","field":"topic","retryable":false}"#,
    );
    check(
        &ToDevice::Gap {
            topic: filter("fleet/42/config"),
            from: Position::parse("k3:119"),
            to: None,
        },
        r#"{"type":"gap","topic":"fleet/42/config","from":"k3:119"}"#,
    );
    check(
        &ToDevice::Command {
            command_id: command_id("01J"),
            name: "reboot".into(),
            payload: Some(Payload::json(Text::from(r#"{"delay_s":5}"#))),
            headers: vec![("trace".into(), "1".into())],
            expires_ms: UnixMillis(u64::MAX),
            expires_in_ms: 59_000,
            attempt: 1,
        },
        r#"{"type":"command","command_id":"01J","name":"reboot","payload":{"delay_s":5},"headers":{"trace":"1"},"expires_ms":18446744073709551615,"expires_in_ms":59000,"attempt":1}"#,
    );
}

#[test]
fn publications() {
    let json = Message {
        position: Position::parse("k3:7"),
        qos: Qos::AtLeastOnce,
        ..message(Payload::json(Text::from("{ \"celsius\" :21.50}")))
    };
    check(
        &ToDevice::Message(json),
        r#"{"type":"message","topic":"fleet/42/temp","from":"device:thermo-1","payload":{ "celsius" :21.50},"qos":1,"position":"k3:7","time_ms":1795176000000}"#,
    );
    let text = Payload::text(Text::from("<a b=\"\\\"/>\n\u{1}é\u{7f}"));
    check(
        &ToDevice::Message(message(text.with_content_type(Some("application/xml")))),
        "{\"type\":\"message\",\"topic\":\"fleet/42/temp\",\"from\":\"device:thermo-1\",\"text\":\"<a b=\\\"\\\\\\\"/>\\n\\u0001é\u{7f}\",\"content_type\":\"application/xml\",\"time_ms\":1795176000000}",
    );
    let bytes = Message {
        from: Origin::Service("bill\"ing".into()),
        ..message(Payload::binary(Bytes::from_static(b"\x00\xff\xfe\x01")))
    };
    check(
        &ToDevice::Message(bytes),
        r#"{"type":"message","topic":"fleet/42/temp","from":"service:bill\"ing","base64":"AP/+AQ==","time_ms":1795176000000}"#,
    );
}

#[test]
fn a_fan_out_frame_is_the_frame_of_the_message() {
    for size in [0, 10, 100, 300, 65_000, 70_000] {
        let message = message(Payload::binary(vec![7; size].into()));
        let frame = message_frame(&message);
        let text = encode(&ToDevice::Message(message));
        assert_eq!(frame, encode_message(Opcode::Text, &text));
    }
}

#[test]
fn a_client_passes_over_what_it_does_not_know() {
    let limits = PayloadLimits::default();
    let reject = decode_to_device(r#"{"type":"hint"}"#, &limits).remove(0).unwrap_err();
    assert_eq!((reject.code, reject.fatal), (ErrorCode::UnknownType, false));
    let error =
        r#"{"type":"error","code":"NEWER_THAN_I","message":"m","retryable":true,"more":[]}"#;
    assert!(matches!(
        decode_to_device(error, &limits).remove(0),
        Ok(ToDevice::Error { code, retryable: true, .. }) if code == "NEWER_THAN_I"
    ));
    for bad in [
        r#"{"type":"welcome"}"#,
        r#"{"type":"message","topic":"a","text":"","from":"x","time_ms":1}"#,
        r#"{"type":"error","code":"X","message":"m","retryable":1}"#,
    ] {
        assert!(decode_to_device(bad, &limits).remove(0).is_err(), "{bad}");
    }
}
