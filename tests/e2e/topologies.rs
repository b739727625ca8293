//! The main job, the same on every topology: a command from gRPC to a device and back, messages to
//! every subscriber, one session per device, presence. Waiting commands are in `mailbox.rs`.

use roost_proto::control::v1::payload::Body;
use roost_proto::control::v1::subscribe_response::Event;
use roost_proto::control::v1::watch_devices_response::Event as WatchEvent;
use roost_proto::control::v1::{self as pb, CommandState, DeviceEventType, Presence};
use roost_testkit::backend::{command, payload, states, with_id};
use roost_testkit::device::TestDevice;
use roost_testkit::target::Target;
use roost_testkit::{HANGS, eventually, soon};
use roost_types::{Payload, Text};
use roost_wire::device::ToDevice;

/// How many messages each subscriber is to get.
const MESSAGES: usize = 1_000;

crate::on_every_topology![
    a_command_is_answered,
    a_thousand_messages_reach_every_subscriber_once,
    a_back_end_publishes_to_devices,
    a_second_connection_closes_the_first,
    presence_is_seen_as_it_changes,
    the_nodes_of_the_hub_are_listed,
];

fn json(text: &str) -> Payload {
    Payload::json(Text::from(text))
}

pub(crate) async fn a_command_is_answered(hub: Target) {
    let backend = hub.backend().await;
    let mut device = hub.on_a("thermo-1").await;
    let mut request = command("thermo-1", "reboot");
    request.payload = Some(payload(Body::Json(r#"{"delay_s":5}"#.to_owned())));
    let answering = async {
        let got = device.command().await;
        assert_eq!((got.name.as_str(), got.attempt), ("reboot", 1));
        assert_eq!(got.payload, Some(json(r#"{"delay_s":5}"#)));
        device.succeed(&got, Some(json(r#"{"uptime_s":3}"#))).await;
    };
    let (done, ()) = tokio::join!(backend.run(request), answering);
    assert_eq!(done.state(), CommandState::Succeeded);
    let result = done.result.clone().unwrap();
    assert_eq!(result.payload.unwrap().body, Some(Body::Json(r#"{"uptime_s":3}"#.to_owned())));
    assert_eq!(done.session_id, device.welcome.session_id.to_string());
    assert_eq!(states(&done).last(), Some(&CommandState::Succeeded), "{done:?}");
}

pub(crate) async fn a_thousand_messages_reach_every_subscriber_once(hub: Target) {
    let backend = hub.backend().await;
    let mut stream = backend.subscribe("fleet/+/temp").await;
    let keys = &hub.keys;
    // An exact filter, a wildcard, and both at once, on both edges.
    let mut subscribers = vec![];
    for (edge, url) in [("a", hub.a()), ("b", hub.b())] {
        let filters: [&[&str]; 3] =
            [&["fleet/42/temp"], &["fleet/#"], &["fleet/42/temp", "fleet/#", "fleet/+/temp"]];
        for (number, filters) in filters.iter().enumerate() {
            let token = keys.token(&format!("sub-{edge}-{number}"));
            subscribers.push(TestDevice::connect_subscribed(url, &token, filters).await);
        }
    }
    let mut publisher = hub.on_a("publisher").await;
    let publishing = async {
        for number in 0..=MESSAGES {
            let number = u32::try_from(number).unwrap();
            publisher.queue_publish(Some(number), "fleet/42/temp", json(&number.to_string()));
        }
        publisher.answer(u32::try_from(MESSAGES).unwrap()).await.unwrap();
    };
    let devices = async {
        for device in &mut subscribers {
            let mut got = vec![];
            for _ in 0..=MESSAGES {
                let message = device.message().await;
                assert_eq!(message.from.to_string(), "device:publisher");
                got.push(message.payload.as_str().unwrap().parse::<usize>().unwrap());
            }
            each_once(got);
        }
    };
    let streaming = async {
        let mut got = vec![];
        for _ in 0..=MESSAGES {
            let item = soon("a message", stream.message()).await.unwrap().unwrap();
            let Some(Event::Message(message)) = item.event else { panic!("{item:?}") };
            let Some(Body::Json(number)) = message.payload.unwrap().body else { panic!("no JSON") };
            got.push(number.parse::<usize>().unwrap());
        }
        each_once(got);
    };
    tokio::join!(publishing, devices, streaming);
    // Whatever came twice would come before this.
    publisher.publish("fleet/42/temp", json("\"end\"")).await.unwrap();
    for device in &mut subscribers {
        assert_eq!(device.message().await.payload, json("\"end\""));
    }
}

fn each_once(mut got: Vec<usize>) {
    got.sort_unstable();
    assert_eq!(got, (0..=MESSAGES).collect::<Vec<_>>());
}

pub(crate) async fn a_back_end_publishes_to_devices(hub: Target) {
    let backend = hub.backend().await;
    let mut a = hub.on_a("a").await;
    let mut b = hub.on_b("b").await;
    a.subscribe("fleet/news").await.unwrap();
    b.subscribe("fleet/#").await.unwrap();
    backend.publish("fleet/news", r#"{"version":7}"#).await;
    for device in [&mut a, &mut b] {
        let message = device.message().await;
        assert_eq!(message.topic.as_str(), "fleet/news");
        assert_eq!(message.from.to_string(), "service:tests");
        assert_eq!(message.payload, json(r#"{"version":7}"#));
    }
}

pub(crate) async fn a_second_connection_closes_the_first(hub: Target) {
    let backend = hub.backend().await;
    let first = hub.on_a("twice").await;
    let mut second = hub.on_b("twice").await;
    let (said, closed) = first.end().await;
    assert_eq!(closed.code, 4409, "{closed}");
    let replaced =
        |said: &ToDevice| matches!(said, ToDevice::Error { code, .. } if code == "REPLACED");
    assert!(said.iter().any(replaced), "{said:?}");

    let sessions = backend.devices(Presence::Online).await;
    let sessions: Vec<_> = sessions
        .iter()
        .map(|device| (&device.device_id, device.session.as_ref().unwrap()))
        .collect();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    assert_eq!(sessions[0].1.session_id, second.welcome.session_id.to_string());

    let run = backend.run(command("twice", "hello"));
    let answering = async {
        let got = second.command().await;
        second.succeed(&got, None).await;
    };
    let (done, ()) = tokio::join!(run, answering);
    assert_eq!(done.state(), CommandState::Succeeded);
}

pub(crate) async fn presence_is_seen_as_it_changes(hub: Target) {
    let backend = hub.backend().await;
    let _early = hub.on_b("early").await;
    let request = pb::WatchDevicesRequest { snapshot: true, cursor: String::new() };
    let mut events = backend.backend.devices().watch_devices(request).await.unwrap().into_inner();
    let mut next =
        async || soon("an event", events.message()).await.unwrap().unwrap().event.unwrap();
    let WatchEvent::Snapshot(snapshot) = next().await else { panic!("no snapshot") };
    assert_eq!(snapshot.device_id, "early");
    assert!(matches!(next().await, WatchEvent::Synced(_)));

    let late = hub.on_a("late").await;
    let WatchEvent::DeviceEvent(came) = next().await else { panic!("no event") };
    assert_eq!((came.device_id.as_str(), came.r#type()), ("late", DeviceEventType::Connected));
    late.connection.close().await;
    let WatchEvent::DeviceEvent(went) = next().await else { panic!("no event") };
    assert_eq!((went.device_id.as_str(), went.r#type()), ("late", DeviceEventType::Disconnected));
    assert_eq!(went.session_id, came.session_id);
    assert_eq!(went.close.unwrap().code, 1000);

    let device = backend.device("late").await.unwrap();
    assert_eq!(device.presence(), Presence::Offline);
    assert_eq!(device.last_close.unwrap().code, 1000);
    assert_eq!(backend.device("never-seen").await, None);
}

pub(crate) async fn the_nodes_of_the_hub_are_listed(hub: Target) {
    let backend = hub.backend().await;
    let _device = hub.on_a("thermo-1").await;
    backend.send(with_id("c-1", command("nobody", "wait"))).await;
    let ask = async || {
        let answer = backend.backend.cluster().list_nodes(pb::ListNodesRequest {}).await.unwrap();
        let nodes = answer.into_inner().nodes;
        let devices: u64 = nodes.iter().map(|node| node.connected_devices).sum();
        (devices == 1).then_some(nodes)
    };
    let nodes = eventually("a heartbeat tells of the device", HANGS, ask).await;
    let edges = nodes.iter().filter(|node| node.roles().any(|role| role == pb::NodeRole::Edge));
    assert_eq!(edges.count(), hub.edges.len());
    assert!(nodes.iter().all(|node| node.state() == pb::NodeState::Ready), "{nodes:?}");
}
