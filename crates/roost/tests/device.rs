//! The device client against a real hub in this process: what survives the end of a connection, and
//! what ends a device for good.
#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]

use std::time::Duration;

use roost::config::{AuthMode, Config};
use roost::hub::{Hub, Phase, RunningHub};
use roost_client::backend::Backend;
use roost_client::device::{
    Backoff, ClosedBy, Device, DeviceEvent, DeviceEvents, DeviceOptions, Outcome, RequestError,
};
use roost_proto::control::v1 as pb;
use roost_types::{Payload, Topic, TopicFilter};

async fn hub() -> (RunningHub, Backend) {
    let mut config = Config::default();
    config.auth.mode = AuthMode::Insecure;
    config.edge.workers = 2;
    config.edge.addr.set_port(0);
    config.grpc.addr.set_port(0);
    config.admin.addr.set_port(0);
    let hub = Hub::start(config).await.unwrap();
    let grpc = hub.addresses().grpc.unwrap().to_string();
    let backend = Backend::connect(&grpc, "none").await.unwrap();
    (hub, backend)
}

fn options(hub: &RunningHub, device: &str) -> DeviceOptions {
    let edge = hub.addresses().edge.unwrap();
    let soon = Backoff::new(Duration::from_millis(10), Duration::from_millis(50));
    DeviceOptions::new(&format!("ws://{edge}?device={device}")).unwrap().backoff(soon)
}

async fn next(events: &mut DeviceEvents) -> DeviceEvent {
    let waited = tokio::time::timeout(Duration::from_secs(60), events.recv());
    waited.await.expect("something happens").expect("the device lives")
}

async fn connected(events: &mut DeviceEvents) -> String {
    loop {
        if let DeviceEvent::Connected(welcome) = next(events).await {
            return welcome.session_id.to_string();
        }
    }
}

async fn disconnect(backend: &Backend, device: &str) {
    let request = pb::DisconnectDeviceRequest {
        device_id: device.to_owned(),
        ..pb::DisconnectDeviceRequest::default()
    };
    let answer = backend.devices().disconnect_device(request).await.unwrap();
    assert!(answer.into_inner().session.is_some());
}

fn echo(device: &str, id: &str, wait_until: pb::CommandState) -> pb::SendCommandRequest {
    pb::SendCommandRequest {
        device_id: device.to_owned(),
        command_id: id.to_owned(),
        name: "echo".to_owned(),
        wait_until: wait_until.into(),
        ..pb::SendCommandRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_reaches_the_hub_on_a_later_connection() {
    let (hub, backend) = hub().await;
    let (device, mut events) = Device::start(options(&hub, "d"));
    let first = connected(&mut events).await;
    let request = echo("d", "c1", pb::CommandState::Dispatched);
    backend.commands().send_command(request).await.unwrap();
    let DeviceEvent::Command(command) = next(&mut events).await else {
        panic!("a command was sent");
    };
    assert_eq!((&*command.name, command.attempt), ("echo", 1));

    disconnect(&backend, "d").await;
    loop {
        match next(&mut events).await {
            DeviceEvent::Disconnected { closed, retry_in } => {
                assert_eq!((closed.code, closed.by), (1012, ClosedBy::Hub));
                assert!(retry_in.is_some());
                break;
            }
            // Told before, for clients that cannot see close reasons.
            DeviceEvent::Goaway { .. } | DeviceEvent::Complaint(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    let answer = Payload::json("{\"done\":true}".into());
    let outcome = Outcome::succeeded(command.command_id).with_payload(Some(answer));
    device.finish(outcome).await.unwrap();
    assert_ne!(connected(&mut events).await, first);

    let request = echo("d", "c1", pb::CommandState::Succeeded);
    let answer = backend.commands().send_command(request).await.unwrap().into_inner();
    assert!(answer.already_existed && !answer.wait_timed_out);
    assert_eq!(answer.command.unwrap().state(), pb::CommandState::Succeeded);
    device.close().await;
    hub.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_are_renewed_and_requests_are_answered() {
    let (hub, backend) = hub().await;
    let (device, mut events) = Device::start(options(&hub, "d"));
    connected(&mut events).await;
    device.subscribe(TopicFilter::new("fleet/+").unwrap()).await.unwrap();
    disconnect(&backend, "d").await;
    connected(&mut events).await;

    let topic = Topic::new("fleet/news").unwrap();
    device.publish(topic, Payload::json("1".into())).await.unwrap();
    let DeviceEvent::Message(message) = next(&mut events).await else {
        panic!("the subscription was renewed");
    };
    assert_eq!(message.from.to_string(), "device:d");
    assert_eq!(message.payload.as_str(), Some("1"));

    device.unsubscribe(TopicFilter::new("fleet/+").unwrap()).await.unwrap();
    let reserved = Topic::new("$hub/x").unwrap();
    let refused = device.publish(reserved, Payload::json("1".into())).await;
    assert!(matches!(refused, Err(RequestError::Refused { .. })), "{refused:?}");
    hub.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_session_ends_the_older_one_for_good() {
    let (hub, _backend) = hub().await;
    let (_first, mut first_events) = Device::start(options(&hub, "d"));
    connected(&mut first_events).await;
    let (second, mut second_events) = Device::start(options(&hub, "d"));
    connected(&mut second_events).await;
    loop {
        match next(&mut first_events).await {
            DeviceEvent::Disconnected { closed, retry_in } => {
                assert_eq!((closed.code, retry_in), (4409, None));
                break;
            }
            DeviceEvent::Complaint(_) | DeviceEvent::Goaway { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(first_events.recv().await, None);
    let topic = Topic::new("a").unwrap();
    second.publish(topic, Payload::json("1".into())).await.unwrap();
    hub.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_sends_devices_away_with_1012_and_passes_every_phase() {
    let (hub, _backend) = hub().await;
    let (_device, mut events) = Device::start(options(&hub, "d").without_reconnect());
    connected(&mut events).await;
    let mut phase = hub.watch_phase();
    assert_eq!(*phase.borrow_and_update(), Phase::Ready);
    hub.shutdown().await;
    assert_eq!(*phase.borrow(), Phase::Stopped);
    let mut told_before = false;
    loop {
        match next(&mut events).await {
            DeviceEvent::Goaway { reason, retry_after } => {
                assert_eq!(reason, "draining");
                told_before = retry_after.is_some();
            }
            DeviceEvent::Disconnected { closed, .. } => {
                assert_eq!((closed.code, told_before), (1012, true));
                break;
            }
            DeviceEvent::Complaint(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_is_not_there_or_refuses_is_told_apart() {
    let (hub, _backend) = hub().await;
    let edge = hub.addresses().edge.unwrap();
    let nameless = DeviceOptions::new(&format!("ws://{edge}")).unwrap();
    let (_device, mut events) = Device::start(nameless);
    let DeviceEvent::Unreachable { reason, retry_in } = next(&mut events).await else {
        panic!("it claims nothing");
    };
    assert!(reason.contains("401") && retry_in.is_none(), "{reason} {retry_in:?}");
    hub.shutdown().await;

    let gone = DeviceOptions::new(&format!("ws://{edge}?device=d")).unwrap();
    let (_device, mut events) = Device::start(gone);
    let DeviceEvent::Unreachable { retry_in, .. } = next(&mut events).await else {
        panic!("nobody is there");
    };
    assert!(retry_in.is_some());
}
