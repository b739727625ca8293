//! What is carried comes out as it went in, byte for byte, in both directions and by every way, up to
//! the limit; one byte more is refused, and nothing ends for it.

use std::collections::HashSet;

use roost_proto::control::v1::payload::Body;
use roost_proto::control::v1::subscribe_response::Event;
use roost_proto::control::v1::{self as pb, CommandState};
use roost_testkit::backend::{command, payload};
use roost_testkit::soon;
use roost_testkit::target::Target;
use roost_types::{Payload, Text};
use roost_wire::device::ToDevice;
use roost_wire::ws::Opcode;

/// `limits.payload_bytes`.
const LIMIT: usize = 65_536;

crate::on_every_topology![
    every_kind_passes_unchanged_up_to_the_limit,
    one_byte_more_is_refused_and_the_connection_stays,
    a_frame_over_the_limit_ends_the_connection,
];

/// A payload of each kind of exactly `length` bytes, as a device says it and as a back end does.
fn kinds(length: usize) -> Vec<(Payload, Body)> {
    let head = "{\"b\" : 1.0e3 ,\n\t\"a\":\"\\u00e9é\\/\", \"b\": -0.0, \"fill\":\"";
    let json = format!("{head}{}\"}}", "x".repeat(length - head.len() - 2));
    let open = "<?xml version=\"1.0\"?>\n<läge attr='\"'>\t";
    let xml = format!("{open}{}</läge>", "& ".repeat(length));
    let mut cut = length - "</läge>".len();
    while !xml.is_char_boundary(cut) {
        cut -= 1;
    }
    let xml = format!("{}{}</läge>", &xml[..cut], " ".repeat(length - "</läge>".len() - cut));
    let bytes: Vec<u8> =
        (0..length).map(|at| u8::try_from((at * 7 + at / 256) % 256).unwrap()).collect();
    assert_eq!((json.len(), xml.len()), (length, length));
    vec![
        (Payload::json(Text::from(json.as_str())), Body::Json(json)),
        (Payload::text(Text::from(xml.as_str())), Body::Text(xml)),
        (Payload::binary(bytes.clone().into()), Body::Binary(bytes.into())),
    ]
}

pub(crate) async fn every_kind_passes_unchanged_up_to_the_limit(hub: Target) {
    let backend = hub.backend().await;
    let mut stream = backend.subscribe("data/#").await;
    let mut device = hub.on_a("d").await;
    let mut other = hub.on_b("other").await;
    other.subscribe("data/up").await.unwrap();
    for length in [100, LIMIT] {
        for (said, body) in kinds(length) {
            // gRPC to the device, and its answer back.
            let mut request = command("d", "echo");
            request.payload = Some(payload(body.clone()));
            let answering = async {
                let got = device.command().await;
                assert!(got.payload.as_ref() == Some(&said), "changed on the way to the device");
                device.succeed(&got, got.payload.clone()).await;
            };
            let (done, ()) = tokio::join!(backend.run(request), answering);
            assert!(done.payload.unwrap().body.as_ref() == Some(&body), "changed in the record");
            let result = done.result.unwrap().payload.unwrap();
            assert!(result.body.as_ref() == Some(&body), "changed on the way back");
            // Published by the device, to a device on the other edge and to a back end.
            device.publish("data/up", said.clone()).await.unwrap();
            assert!(other.message().await.payload == said, "changed on the way to a device");
            let item = soon("a message", stream.message()).await.unwrap().unwrap();
            let Some(Event::Message(message)) = item.event else { panic!("{item:?}") };
            assert!(message.payload.unwrap().body == Some(body), "changed on the way to gRPC");
        }
    }
}

pub(crate) async fn one_byte_more_is_refused_and_the_connection_stays(hub: Target) {
    let backend = hub.backend().await;
    let mut device = hub.on_a("d").await;
    for (said, body) in kinds(LIMIT + 1) {
        let refused = device.publish("data/up", said).await.unwrap_err();
        assert_eq!(refused.code, "PAYLOAD_TOO_LARGE");
        let mut request = command("d", "echo");
        request.payload = Some(payload(body.clone()));
        let error = backend.try_send(request).await.unwrap_err();
        assert_eq!(error.reason, "PAYLOAD_TOO_LARGE", "{error}");
        let fields: HashSet<_> = error.fields.iter().map(|field| field.field.as_str()).collect();
        assert!(fields.iter().any(|field| field.starts_with("payload")), "{fields:?}");
        let topic = "data/down".to_owned();
        let publish =
            pb::PublishRequest { topic, payload: Some(payload(body)), ..Default::default() };
        let status = backend.backend.messages().publish(publish).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }
    let answering = async {
        let got = device.command().await;
        device.succeed(&got, None).await;
    };
    let (done, ()) = tokio::join!(backend.run(command("d", "still-there")), answering);
    assert_eq!(done.state(), CommandState::Succeeded);
}

pub(crate) async fn a_frame_over_the_limit_ends_the_connection(hub: Target) {
    let mut device = hub.on_b("d").await;
    let limit = usize::try_from(device.welcome.limits.frame_bytes).unwrap();
    let padded = |length: usize| {
        let text = r#"{"type":"ping"}"#;
        format!("{text}{}", " ".repeat(length - text.len()))
    };
    device.connection.queue_frame(Opcode::Text, padded(limit).as_bytes());
    assert!(matches!(device.next().await, Ok(ToDevice::Pong { .. })));
    device.connection.queue_frame(Opcode::Text, padded(limit + 1).as_bytes());
    let (said, closed) = device.end().await;
    assert_eq!(closed.code, 1009, "{closed}");
    let told =
        |said: &ToDevice| matches!(said, ToDevice::Error { code, .. } if code == "MESSAGE_TOO_BIG");
    assert!(said.iter().any(told), "{said:?}");
}
