//! The port itself: keys, health, reflection, metrics, shutdown.

use roost_cluster::{StoreHealth, StoreSettings};
use roost_proto::control::v1::{
    CommandState, ListNodesRequest, SubscribeRequest, TopicSubscription, WatchDevicesRequest,
};
use tokio::sync::watch;
use tonic::client::Grpc;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt as _;

use crate::commands::{command, waiting};
use crate::hub::{Hub, Key, OURS, reason};

#[tokio::test]
async fn without_a_good_key_nothing_is_done() {
    let hub = Hub::start().await;
    for (key, expected) in [
        (None, "CREDENTIAL_MISSING"),
        (Some("not-a-key-of-this-hub"), "CREDENTIAL_INVALID"),
        (Some(""), "CREDENTIAL_INVALID"),
    ] {
        let mut client = hub.commands_of(key);
        let status = client.send_command(command("c1", "echo")).await.unwrap_err();
        assert_eq!(
            (status.code(), &*reason(&status)),
            (Code::Unauthenticated, expected),
            "{key:?}"
        );
    }
    let refused =
        "roost_grpc_server_handled_total{method=\"SendCommand\",code=\"UNAUTHENTICATED\"}";
    assert_eq!(hub.metric(refused), 3);
}

#[tokio::test]
async fn reflection_is_open_and_lists_the_services() {
    let hub = Hub::start().await;
    let mut client = ServerReflectionClient::new(hub.channel.clone());
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answer = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let answer = answer.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    for name in ["CommandService", "DeviceService", "MessageService", "ClusterService"] {
        let name = format!("roost.control.v1.{name}");
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("internal")), "{names:?}");
}

#[tokio::test]
async fn health_follows_the_store_and_the_stop() {
    let (health, told) = watch::channel(StoreHealth::Up);
    let hub = Hub::with(StoreSettings::default(), |_| {}, |store| store.health = told).await;
    let mut client = HealthClient::new(hub.channel.clone());
    let request = HealthCheckRequest { service: "roost.control.v1.CommandService".into() };
    let mut stream = client.watch(request).await.unwrap().into_inner();
    let mut status = async || stream.message().await.map(|item| item.unwrap().status());
    while status().await.unwrap() != ServingStatus::Serving {}
    health.send_replace(StoreHealth::Down { reason: "no answer".into() });
    assert_eq!(status().await.unwrap(), ServingStatus::NotServing);
    health.send_replace(StoreHealth::Up);
    assert_eq!(status().await.unwrap(), ServingStatus::Serving);
    hub.stop.cancel();
    assert_eq!(status().await.unwrap(), ServingStatus::NotServing);
}

#[tokio::test]
async fn a_stop_ends_streams_with_a_reason_and_waits_with_what_is_known() {
    let patience = |config: &mut roost_control::ControlConfig| {
        // Waits are answered after half of it; nothing here takes as long.
        config.drain = std::time::Duration::from_secs(6);
    };
    let mut hub = Hub::with(StoreSettings::default(), patience, |_| {}).await;
    let request =
        SubscribeRequest { subscriptions: vec![TopicSubscription { topic_filter: "a".into() }] };
    let mut messages = hub.messages().subscribe(request).await.unwrap().into_inner();
    let request = WatchDevicesRequest::default();
    let mut devices = hub.devices().watch_devices(request).await.unwrap().into_inner();
    messages.message().await.unwrap();
    devices.message().await.unwrap();
    let mut client = hub.commands();
    let waiting = client.send_command(waiting("c1", "echo", CommandState::Succeeded, 60_000));
    let stopping = async {
        while hub.metric("roost_commands_in_flight") < 1 {
            tokio::task::yield_now().await;
        }
        hub.stop.cancel();
        for status in [messages.message().await.unwrap_err(), devices.message().await.unwrap_err()]
        {
            assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "DRAINING"));
            assert!(status.get_details_retry_info().is_some());
        }
    };
    let (answer, ()) = tokio::join!(waiting, stopping);
    let answer = answer.unwrap().into_inner();
    assert!(answer.wait_timed_out);
    assert_eq!(answer.command.unwrap().state(), CommandState::Queued);
    // The server's own task ends; the switchboard's does not.
    hub.tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn what_no_service_sees_has_a_reason_too() {
    let hub = Hub::start().await;
    // A number where an id should be.
    let unreadable = prost_types::Duration { seconds: 7, nanos: 0 };
    let large = prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue("x".repeat(4 << 20))),
    };
    let commands = "/roost.control.v1.CommandService";
    for (status, code, expected) in [
        (
            raw(&hub, format!("{commands}/Zap"), unreadable).await,
            Code::Unimplemented,
            "UNKNOWN_METHOD",
        ),
        (
            raw(&hub, "/roost.v9.Service/Zap".into(), unreadable).await,
            Code::Unimplemented,
            "UNKNOWN_METHOD",
        ),
        (
            raw(&hub, format!("{commands}/GetCommand"), unreadable).await,
            Code::InvalidArgument,
            "BAD_MESSAGE",
        ),
        (
            raw(&hub, format!("{commands}/SendCommand"), large).await,
            Code::InvalidArgument,
            "PAYLOAD_TOO_LARGE",
        ),
    ] {
        assert_eq!((status.code(), &*reason(&status)), (code, expected), "{status:?}");
        assert!(!status.message().is_empty());
    }
}

/// Calls a method with something that it does not take.
async fn raw<M>(hub: &Hub, path: String, message: M) -> Status
where
    M: prost::Message + Default + 'static,
{
    let key = Key(Some(format!("Bearer {OURS}").parse().unwrap()));
    let mut client = Grpc::new(InterceptedService::new(hub.channel.clone(), key));
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<M, ListNodesRequest>::default();
    let path = path.parse().unwrap();
    client.unary(Request::new(message), path, codec).await.unwrap_err()
}

#[tokio::test]
async fn calls_are_counted_by_method_and_status() {
    let hub = Hub::start().await;
    hub.cluster().list_nodes(ListNodesRequest {}).await.unwrap();
    let counted = "roost_grpc_server_handled_total{method=\"ListNodes\",code=\"OK\"}";
    // The trailers are counted as they are sent, which the client may be told of a little before.
    while hub.metric(counted) < 1 {
        tokio::task::yield_now().await;
    }
    let timed = "roost_grpc_server_handling_seconds_count{method=\"ListNodes\"}";
    assert_eq!(hub.metric(timed), 1);
}
