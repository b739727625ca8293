//! The schema as others see it: what reflection shows, what must never change on the wire, and
//! what must not reach a log. The conversions have their tests beside them.

#![expect(clippy::unwrap_used, reason = "a schema that cannot be read should fail the test")]

use prost::Message;
use prost_types::FileDescriptorSet;
use roost_proto::{FILE_DESCRIPTOR_SET, control, device};

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap()
}

#[test]
fn reflection_shows_the_public_packages_with_their_imports_and_no_others() {
    let set = descriptors();
    let mut packages: Vec<_> =
        set.file.iter().map(prost_types::FileDescriptorProto::package).collect();
    packages.sort_unstable();
    packages.dedup();
    let expected = ["google.protobuf", "roost.control.v1", "roost.device.v1"];
    assert_eq!(packages, expected);
}

#[test]
fn the_services_have_the_methods_that_the_hub_delivers() {
    let set = descriptors();
    let services = set.file.iter().flat_map(|file| &file.service);
    let mut methods: Vec<_> = services
        .flat_map(|service| {
            let name = |method: &prost_types::MethodDescriptorProto| {
                format!("{}/{}", service.name(), method.name())
            };
            service.method.iter().map(name)
        })
        .collect();
    methods.sort();
    let expected = [
        "ClusterService/DrainNode",
        "ClusterService/ListNodes",
        "ClusterService/RebalanceNodes",
        "ClusterService/UndrainNode",
        "CommandService/BatchSendCommands",
        "CommandService/CancelCommand",
        "CommandService/GetCommand",
        "CommandService/ListCommands",
        "CommandService/ListDeadCommands",
        "CommandService/RedriveCommand",
        "CommandService/SendAndWatchCommand",
        "CommandService/SendCommand",
        "CommandService/WatchCommand",
        "DeviceService/DisconnectDevice",
        "DeviceService/GetDevice",
        "DeviceService/GetDeviceHistory",
        "DeviceService/ListDevices",
        "DeviceService/WatchDevices",
        "MessageService/Publish",
        "MessageService/Subscribe",
    ];
    assert_eq!(methods, expected);
}

/// Every message, field, enum, value, service and method has a comment.
#[test]
fn everything_in_the_schema_is_documented() {
    let mut declarations = 0;
    for file in descriptors().file {
        if !file.package().starts_with("roost.") {
            continue;
        }
        let info = file.source_code_info.as_ref().unwrap();
        for location in &info.location {
            if !is_declaration(&location.path) {
                continue;
            }
            declarations += 1;
            assert!(
                !location.leading_comments().trim().is_empty(),
                "{}: no comment above line {}",
                file.name(),
                location.span[0] + 1
            );
        }
    }
    assert!(declarations > 200, "only {declarations} were looked at");
}

/// Whether a descriptor path leads to a message (4), enum (5) or service (6) of a file or to a
/// field, value or method (2) of one. A synthetic oneof (8) of an `optional` field has no location
/// of its own.
fn is_declaration(path: &[i32]) -> bool {
    matches!(path, [4..=6, _] | [4..=6, _, 2, _] | [4, _, 8, _])
}

#[test]
fn a_frame_of_each_direction_is_pinned_by_its_bytes() {
    use device::v1::{DeviceEnvelope, DeviceFrame, HubEnvelope, HubFrame};
    let ping = DeviceFrame {
        id: Some(5),
        body: Some(device::v1::device_frame::Body::Ping(device::v1::Ping {})),
    };
    let ping = DeviceEnvelope { frames: vec![ping] };
    assert_eq!(ping.encode_to_vec(), [0x0a, 4, 0x08, 5, 0x4a, 0]);

    let ack = device::v1::Ack { command_id: "c".into(), position: String::new() };
    let ack = HubFrame { id: Some(3), body: Some(device::v1::hub_frame::Body::Ack(ack)) };
    let ack = HubEnvelope { frames: vec![ack] };
    let bytes = [0x0a, 7, 0x08, 3, 0x1a, 3, 0x0a, 1, b'c'];
    assert_eq!(ack.encode_to_vec(), bytes);
}

#[test]
fn joined_envelopes_are_an_envelope() {
    use device::v1::{HubEnvelope, HubFrame};
    let one = |id| HubEnvelope { frames: vec![HubFrame { id: Some(id), body: None }] };
    let joined = [one(1).encode_to_vec(), one(2).encode_to_vec()].concat();
    let read = HubEnvelope::decode(&*joined).unwrap();
    let ids: Vec<_> = read.frames.iter().map(|frame| frame.id).collect();
    assert_eq!(ids, [Some(1), Some(2)]);
}

#[test]
fn an_unknown_frame_is_seen_as_a_frame_without_body() {
    // Field 1999 of a later version, length-delimited and empty, beside the id 7.
    let bytes = [0x0a, 5, 0x08, 7, 0xfa, 0x7c, 0];
    let read = device::v1::DeviceEnvelope::decode(&bytes[..]).unwrap();
    assert_eq!(read.frames[0].id, Some(7));
    assert_eq!(read.frames[0].body, None);
}

#[test]
fn content_and_credentials_do_not_show_in_debug_output() {
    let request = control::v1::SendCommandRequest {
        payload: Some(control::v1::Payload {
            body: Some(control::v1::payload::Body::Text("s3cret".into())),
            content_type: String::new(),
        }),
        ..Default::default()
    };
    let shown = format!("{request:?}");
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(shown.contains("Payload(Text, 6 B)"), "{shown}");

    let hello = device::v1::Hello { token: "s3cret".into(), ..Default::default() };
    let shown = format!("{hello:?}");
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(shown.contains("has_token: true"), "{shown}");
}
