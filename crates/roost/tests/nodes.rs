//! Several nodes on one embedded store, in this process: commands across nodes, and a node that
//! dies. The same over Redis is tested in `tests/` of the workspace.
#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]

use std::sync::Arc;
use std::time::Duration;

use roost::config::{AuthMode, Config, RoleChoice};
use roost::hub::{Hub, RunningHub, StartError};
use roost_client::backend::Backend;
use roost_client::device::{Device, DeviceEvent, DeviceEvents, DeviceOptions, Outcome};
use roost_cluster::{HubClock, MemoryHub, StoreSettings};
use roost_proto::control::v1 as pb;
use roost_proto::control::v1::watch_devices_response::Event;
use roost_types::NodeId;

/// So long that a machine that is busy with other things does not let the living miss it.
const LEASE: Duration = Duration::from_secs(6);

fn store() -> Arc<MemoryHub> {
    let settings = StoreSettings { lease: LEASE, ..StoreSettings::default() };
    MemoryHub::new(settings, Arc::new(HubClock::new()))
}

fn config(name: &str, role: RoleChoice) -> Config {
    let mut config = Config::default();
    config.auth.mode = AuthMode::Insecure;
    config.node.id = Some(NodeId::new(name).unwrap());
    config.node.role = role;
    config.store.lease = LEASE;
    config.edge.workers = 1;
    config.edge.addr.set_port(0);
    config.grpc.addr.set_port(0);
    config.admin.addr.set_port(0);
    config
}

async fn node(store: &Arc<MemoryHub>, name: &str, role: RoleChoice) -> RunningHub {
    Hub::start_on(config(name, role), Arc::clone(store)).await.unwrap()
}

async fn device(node: &RunningHub, name: &str) -> (Device, DeviceEvents) {
    let edge = node.addresses().edge.unwrap();
    let options = DeviceOptions::new(&format!("ws://{edge}?device={name}")).unwrap();
    let (device, mut events) = Device::start(options.without_reconnect());
    assert!(matches!(events.recv().await, Some(DeviceEvent::Connected(_))));
    (device, events)
}

fn echo(device: &str, id: &str) -> pb::SendCommandRequest {
    pb::SendCommandRequest {
        device_id: device.to_owned(),
        command_id: id.to_owned(),
        name: "echo".to_owned(),
        wait_until: pb::CommandState::Succeeded.into(),
        ..pb::SendCommandRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_of_a_dead_node_is_shown_offline_and_answers_through_another() {
    let store = store();
    let a = node(&store, "a", RoleChoice::Edge).await;
    let b = node(&store, "b", RoleChoice::Edge).await;
    let control = node(&store, "c", RoleChoice::Control).await;
    assert_eq!((a.addresses().grpc, control.addresses().edge), (None, None));
    let grpc = control.addresses().grpc.unwrap().to_string();
    let backend = Backend::connect(&grpc, "none").await.unwrap();
    let (_first, _events) = device(&a, "d").await;
    let watch = pb::WatchDevicesRequest::default();
    let mut watch = backend.devices().watch_devices(watch).await.unwrap().into_inner();
    assert!(matches!(watch.message().await.unwrap().unwrap().event, Some(Event::Synced(_))));

    // As a crash: nothing is released, the lease runs out.
    drop(a);
    let event = loop {
        match watch.message().await.unwrap().unwrap().event {
            Some(Event::DeviceEvent(event)) => break event,
            other => assert!(!matches!(other, Some(Event::Gap(_))), "{other:?}"),
        }
    };
    assert_eq!(event.r#type(), pb::DeviceEventType::Disconnected);
    assert_eq!((event.device_id.as_str(), event.node_id.as_str()), ("d", "a"));

    let (again, mut events) = device(&b, "d").await;
    let mut commands = backend.commands();
    let (answer, ()) = tokio::join!(commands.send_command(echo("d", "c1")), async {
        let Some(DeviceEvent::Command(command)) = events.recv().await else {
            panic!("the command comes through the other node");
        };
        again.finish(Outcome::succeeded(command.command_id)).await.unwrap();
    });
    let command = answer.unwrap().into_inner().command.unwrap();
    assert_eq!(command.state(), pb::CommandState::Succeeded);
    b.shutdown().await;
    control.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_or_name_is_named() {
    let store = store();
    let first = node(&store, "a", RoleChoice::All).await;
    let mut taken = config("b", RoleChoice::All);
    taken.grpc.addr = first.addresses().grpc.unwrap();
    let error = Hub::start(taken).await.unwrap_err();
    assert!(error.to_string().starts_with("grpc.addr: cannot listen on 127.0.0.1:"), "{error}");

    let twin = Hub::start_on(config("a", RoleChoice::All), Arc::clone(&store)).await;
    let error = twin.unwrap_err();
    assert!(matches!(error, StartError::Join { .. }), "{error}");
    assert!(error.to_string().starts_with("node.id: node a#"), "{error}");
    first.shutdown().await;
}
