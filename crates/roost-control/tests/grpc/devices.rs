//! Devices and nodes: read, listed, watched, disconnected.

use roost_cluster::NodeEvent;
use roost_proto::control::v1::watch_devices_response::Event;
use roost_proto::control::v1::{
    CloseInitiator, DeviceEventType, DisconnectDeviceRequest, GetDeviceRequest, ListDevicesRequest,
    ListNodesRequest, NodeRole, NodeState, Presence, WatchDevicesRequest, WatchDevicesResponse,
};
use tonic::{Code, Streaming};

use crate::commands::command;
use crate::hub::{Hub, THEIRS, fields, reason};

fn named(device: &str) -> GetDeviceRequest {
    GetDeviceRequest { device_id: device.into() }
}

#[tokio::test]
async fn a_device_answers_the_questions_of_the_night() {
    let hub = Hub::start().await;
    let status = hub.devices().get_device(named("d1")).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::NotFound, "NOT_FOUND"));
    let (key, session) = hub.edge.connect("default", "d1").await;
    let get = async |id: &str| {
        let answer = hub.devices().get_device(named(id)).await.unwrap();
        answer.into_inner().device.unwrap()
    };
    let device = get("d1").await;
    assert_eq!(device.presence(), Presence::Online);
    let shown = device.session.unwrap();
    assert_eq!(shown.session_id, session.to_string());
    assert_eq!((&*shown.node_id, &*shown.protocol), ("edge", "roost.v1.json"));
    assert_eq!(shown.address, "192.0.2.7:51034");
    assert_eq!(shown.node_incarnation, hub.edge.node.incarnation);

    hub.edge.disconnect(&key, session).await;
    hub.commands().send_command(command("c1", "echo")).await.unwrap();
    let device = get("d1").await;
    assert_eq!(device.presence(), Presence::Offline);
    assert_eq!((device.session, device.pending_commands), (None, 1));
    let close = device.last_close.unwrap();
    assert_eq!((close.code, &*close.reason), (1000, "bye"));
    assert_eq!(close.initiator(), CloseInitiator::Device);

    let status = hub.devices_of(THEIRS).get_device(named("d1")).await.unwrap_err();
    assert_eq!(reason(&status), "NOT_FOUND");
    let status = hub.devices().get_device(named("a/b")).await.unwrap_err();
    assert_eq!((&*reason(&status), fields(&status)), ("ID_INVALID", vec!["device_id".to_owned()]));
}

#[tokio::test]
async fn devices_are_listed_by_pages_and_filters() {
    let hub = Hub::start().await;
    for number in 0..5 {
        let (key, session) = hub.edge.connect("default", &format!("d{number}")).await;
        if number == 4 {
            hub.edge.disconnect(&key, session).await;
        }
    }
    hub.edge.connect("other", "theirs").await;
    let list = async |request: ListDevicesRequest| {
        let answer = hub.devices().list_devices(request).await.unwrap().into_inner();
        let ids: Vec<_> = answer.devices.iter().map(|device| device.device_id.clone()).collect();
        (ids, answer.next_page_token)
    };
    let mut request = ListDevicesRequest { page_size: 2, ..ListDevicesRequest::default() };
    let mut seen = Vec::new();
    loop {
        let (ids, next) = list(request.clone()).await;
        seen.extend(ids);
        if next.is_empty() {
            break;
        }
        request.page_token = next;
    }
    seen.sort();
    assert_eq!(seen, ["d0", "d1", "d2", "d3", "d4"]);
    let only = |presence: Presence, node: &str| ListDevicesRequest {
        presence: presence.into(),
        node_id: node.into(),
        ..ListDevicesRequest::default()
    };
    assert_eq!(list(only(Presence::Offline, "")).await.0, ["d4"]);
    assert_eq!(list(only(Presence::Unspecified, "edge")).await.0.len(), 4);
    assert!(list(only(Presence::Online, "nobody")).await.0.is_empty());
    assert!(list(only(Presence::Offline, "edge")).await.0.is_empty());

    let wrong = ListDevicesRequest {
        page_size: -1,
        presence: 9,
        node_id: "a b".into(),
        ..ListDevicesRequest::default()
    };
    let status = hub.devices().list_devices(wrong).await.unwrap_err();
    assert_eq!(fields(&status), ["page_size", "presence", "node_id"]);
}

async fn next(stream: &mut Streaming<WatchDevicesResponse>) -> (Event, String) {
    let item = stream.message().await.unwrap().unwrap();
    (item.event.unwrap(), item.cursor)
}

async fn watch(hub: &Hub, snapshot: bool, cursor: &str) -> Streaming<WatchDevicesResponse> {
    let request = WatchDevicesRequest { snapshot, cursor: cursor.into() };
    hub.devices().watch_devices(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_watch_has_a_snapshot_then_events_and_can_be_resumed() {
    let hub = Hub::start().await;
    let (key, session) = hub.edge.connect("default", "d1").await;
    hub.edge.connect("other", "theirs").await;
    let mut stream = watch(&hub, true, "").await;
    match next(&mut stream).await {
        (Event::Snapshot(device), cursor) => assert_eq!((&*device.device_id, &*cursor), ("d1", "")),
        other => panic!("{other:?}"),
    }
    assert!(matches!(next(&mut stream).await.0, Event::Synced(_)));
    hub.edge.connect("default", "d2").await;
    let (event, resume) = next(&mut stream).await;
    let Event::DeviceEvent(event) = event else { panic!("{event:?}") };
    assert_eq!((&*event.device_id, event.r#type()), ("d2", DeviceEventType::Connected));
    hub.edge.disconnect(&key, session).await;
    let mut resumed = watch(&hub, false, &resume).await;
    for stream in [&mut stream, &mut resumed] {
        let (event, cursor) = next(stream).await;
        let Event::DeviceEvent(event) = event else { panic!("{event:?}") };
        assert_eq!(event.r#type(), DeviceEventType::Disconnected);
        assert_eq!(event.session_id, session.to_string());
        assert_eq!(event.close.unwrap().code, 1000);
        assert_ne!(cursor, resume);
    }
    assert!(matches!(next(&mut resumed).await.0, Event::Synced(_)));
}

#[tokio::test]
async fn a_device_is_disconnected_by_its_node() {
    let hub = Hub::start().await;
    let mut request = DisconnectDeviceRequest {
        device_id: "d1".into(),
        session_id: String::new(),
        reason: "maintenance".into(),
    };
    let status = hub.devices().disconnect_device(request.clone()).await.unwrap_err();
    assert_eq!(reason(&status), "NOT_FOUND");
    let (device, session) = hub.edge.connect("default", "d1").await;
    let disconnect = async |request: &DisconnectDeviceRequest| {
        let answer = hub.devices().disconnect_device(request.clone()).await;
        answer.unwrap().into_inner().session
    };
    let told = disconnect(&request).await.unwrap();
    assert_eq!(told.session_id, session.to_string());
    let expected =
        NodeEvent::Disconnect { device: device.clone(), session, reason: "maintenance".into() };
    assert_eq!(hub.edge.event().await, expected);
    request.session_id = "0".repeat(32);
    assert_eq!(disconnect(&request).await, None, "another session");
    hub.edge.disconnect(&device, session).await;
    request.session_id = String::new();
    assert_eq!(disconnect(&request).await, None, "offline");
    request.session_id = "x".into();
    request.reason = "é".repeat(62);
    let status = hub.devices().disconnect_device(request).await.unwrap_err();
    assert_eq!(fields(&status), ["session_id", "reason"]);
}

#[tokio::test]
async fn nodes_are_listed_by_id() {
    let hub = Hub::start().await;
    hub.edge.beat(true).await;
    let answer = hub.cluster().list_nodes(ListNodesRequest {}).await.unwrap();
    let nodes = answer.into_inner().nodes;
    let node = nodes.iter().find(|node| node.node_id == "edge").unwrap();
    assert_eq!(node.roles().collect::<Vec<_>>(), [NodeRole::Edge]);
    assert_eq!(node.state(), NodeState::Draining);
    assert_eq!((node.connected_devices, &*node.address), (3, "10.0.3.7:7080"));
}
