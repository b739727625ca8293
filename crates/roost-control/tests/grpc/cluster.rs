//! Draining a node, taking that back, spreading devices; and a device's history.

use std::time::Duration;

use roost_cluster::{NodeEvent, NodeInfo, Refusal, Roles};
use roost_proto::control::v1::device_history_entry::Event;
use roost_proto::control::v1::{
    CommandState, DrainNodeRequest, GetDeviceHistoryRequest, NodeState, RebalanceNodesRequest,
    UndrainNodeRequest,
};
use tonic::Code;

use crate::commands::command;
use crate::edge::node;
use crate::hub::{Hub, THEIRS, fields, reason};

fn drain(node: &str, over: Option<i64>) -> DrainNodeRequest {
    let over = over.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
    DrainNodeRequest { node_id: node.into(), over }
}

#[tokio::test]
async fn a_drain_is_answered_once_the_node_says_that_it_drains() {
    let hub = Hub::start().await;
    let saying = async {
        let event = hub.edge.event().await;
        assert_eq!(event, NodeEvent::DrainNode { over: Duration::from_secs(60) });
        hub.edge.beat(true).await;
    };
    let mut cluster = hub.cluster();
    let (answer, ()) = tokio::join!(cluster.drain_node(drain("edge", Some(60))), saying);
    let drained = answer.unwrap().into_inner().node.unwrap();
    assert_eq!((&*drained.node_id, drained.state()), ("edge", NodeState::Draining));

    let saying = async {
        while hub.edge.event().await != NodeEvent::UndrainNode {}
        hub.edge.beat(false).await;
    };
    let request = UndrainNodeRequest { node_id: "edge".into() };
    let (answer, ()) = tokio::join!(cluster.undrain_node(request), saying);
    assert_eq!(answer.unwrap().into_inner().node.unwrap().state(), NodeState::Ready);
}

#[tokio::test]
async fn what_cannot_be_drained_is_said() {
    let hub = Hub::start().await;
    let status = hub.cluster().drain_node(drain("nobody", None)).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::NotFound, "NOT_FOUND"));
    let status = hub.cluster().drain_node(drain("a/b", Some(-1))).await.unwrap_err();
    assert_eq!(fields(&status), ["node_id", "over"]);
    let control = node("pure");
    let info = NodeInfo {
        node: control,
        roles: Roles { edge: false, control: true },
        version: "0.1.0".into(),
        address: String::new(),
        started: hub.edge.store.clock.now(),
        devices: 0,
        draining: false,
    };
    hub.edge.store.nodes.heartbeat(&info).await.unwrap();
    let status = hub.cluster().drain_node(drain("pure", None)).await.unwrap_err();
    assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec!["node_id".into()]));
    // A node that does not say that it drains.
    let status = hub.cluster().drain_node(drain("edge", Some(0))).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "UNAVAILABLE"));
}

#[tokio::test]
async fn edges_give_away_what_they_have_above_the_mean() {
    let hub = Hub::start().await;
    for (name, devices, draining) in [("fresh", 0, false), ("going", 90, true)] {
        let info = NodeInfo {
            node: node(name),
            roles: Roles { edge: true, control: false },
            version: "0.1.0".into(),
            address: String::new(),
            started: hub.edge.store.clock.now(),
            devices,
            draining,
        };
        hub.edge.store.nodes.heartbeat(&info).await.unwrap();
    }
    let answer = hub.cluster().rebalance_nodes(RebalanceNodesRequest { over: None }).await.unwrap();
    let nodes = answer.into_inner().nodes;
    let told: Vec<_> =
        nodes.iter().map(|it| (&*it.node_id, it.connected_devices, it.surplus)).collect();
    assert_eq!(told, [("edge", 3, 1), ("fresh", 0, 0)]);
    let over = Duration::from_secs(300);
    assert_eq!(hub.edge.event().await, NodeEvent::Rebalance { surplus: 1, over });
}

#[tokio::test]
async fn a_devices_history_is_shown_newest_first_to_its_tenant() {
    let hub = Hub::start().await;
    let ask = |limit| GetDeviceHistoryRequest { device_id: "d1".into(), limit };
    let answer = hub.devices().get_device_history(ask(0)).await.unwrap();
    assert_eq!(answer.into_inner().entries, []);
    let (key, session) = hub.edge.connect("default", "d1").await;
    hub.commands().send_command(command("c1", "echo")).await.unwrap();
    let refusal = Refusal {
        what: "publish".into(),
        code: "PERMISSION_DENIED".into(),
        about: "$sys/x".into(),
    };
    hub.edge.store.sessions.note_refusal(&key, session, &refusal).await.unwrap();
    hub.edge.disconnect(&key, session).await;
    let answer = hub.devices().get_device_history(ask(0)).await.unwrap();
    let entries = answer.into_inner().entries;
    assert!(entries.iter().all(|entry| entry.time.is_some()));
    let events: Vec<Event> = entries.into_iter().filter_map(|entry| entry.event).collect();
    let Event::Disconnected(ended) = &events[0] else { panic!("{events:?}") };
    let close = ended.close.as_ref().unwrap();
    assert_eq!((&*ended.session_id, close.code), (&*session.to_string(), 1000));
    let Event::Refused(refused) = &events[1] else { panic!("{events:?}") };
    assert_eq!((&*refused.what, &*refused.about), ("publish", "$sys/x"));
    assert!(events.iter().any(|event| matches!(
        event,
        Event::Command(it) if it.command_id == "c1" && it.state() == CommandState::Queued
    )));
    let Some(Event::Connected(began)) = events.last() else { panic!("{events:?}") };
    let shown = began.session.as_ref().unwrap();
    assert_eq!((&*shown.node_id, &*shown.address), ("edge", "192.0.2.7:51034"));

    let one = hub.devices().get_device_history(ask(1)).await.unwrap().into_inner().entries;
    assert_eq!(one.len(), 1);
    let theirs = hub.devices_of(THEIRS).get_device_history(ask(0)).await.unwrap();
    assert_eq!(theirs.into_inner().entries, []);
    let status = hub.devices().get_device_history(ask(10_001)).await.unwrap_err();
    assert_eq!(fields(&status), ["limit"]);
}
