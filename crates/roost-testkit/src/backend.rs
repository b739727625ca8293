//! A back end in a test: calls that are expected to work, in a word each. For errors and streams use
//! the services of [`TestBackend::backend`].

use std::time::Duration;

use roost_client::backend::{Backend, BackendError};
use roost_proto::control::v1 as pb;
use roost_proto::control::v1::payload::Body;
use roost_types::SessionId;
use tokio::time::sleep;

use crate::soon;

/// How long a command is waited for: longer than it takes on a machine that is busy with other things.
const WAIT: Duration = Duration::from_secs(60);
/// How long a command lives unless a test says otherwise: longer than any test.
const TTL: Duration = Duration::from_secs(3600);
/// Between two tries of a call that the hub could not serve just then.
const PAUSE: Duration = Duration::from_millis(100);

/// A connected back end.
#[derive(Debug, Clone)]
pub struct TestBackend {
    /// The connection, for everything that has no helper here.
    pub backend: Backend,
}

/// A request for a command without payload, which does not expire during a test.
pub fn command(device: &str, name: &str) -> pb::SendCommandRequest {
    let request = pb::SendCommandRequest {
        device_id: device.to_owned(),
        name: name.to_owned(),
        ..Default::default()
    };
    with_ttl(TTL, request)
}

/// A payload of this kind with the usual content type.
pub fn payload(body: Body) -> pb::Payload {
    pb::Payload { body: Some(body), content_type: String::new() }
}

/// The request with an id that the caller chose.
pub fn with_id(id: &str, request: pb::SendCommandRequest) -> pb::SendCommandRequest {
    pb::SendCommandRequest { command_id: id.to_owned(), ..request }
}

/// The request with an end.
pub fn with_ttl(ttl: Duration, request: pb::SendCommandRequest) -> pb::SendCommandRequest {
    let ttl = pb::send_command_request::Expiry::Ttl(proto_duration(ttl));
    pb::SendCommandRequest { expiry: Some(ttl), ..request }
}

/// The request, answered once the command has ended, or `timeout` has passed.
pub fn waiting(timeout: Duration, request: pb::SendCommandRequest) -> pb::SendCommandRequest {
    pb::SendCommandRequest {
        wait_until: pb::CommandState::Succeeded.into(),
        wait_timeout: Some(proto_duration(timeout)),
        ..request
    }
}

/// The states that a command went through.
pub fn states(command: &pb::Command) -> Vec<pb::CommandState> {
    command.transitions.iter().map(pb::CommandTransition::state).collect()
}

fn proto_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap()
}

// === impl TestBackend ===

impl TestBackend {
    /// Connects to `host:port` with a key.
    pub async fn connect(grpc: &str, api_key: &str) -> Self {
        let connected = Backend::connect(grpc, api_key).await;
        Self { backend: connected.unwrap() }
    }

    /// Sends a command and waits for its end.
    pub async fn run(&self, request: pb::SendCommandRequest) -> pb::Command {
        let answer = self.send(waiting(WAIT, request)).await;
        assert!(!answer.wait_timed_out, "the command did not end: {:?}", answer.command);
        answer.command.unwrap()
    }

    /// Sends a command, and waits as the request says. What the hub could not do just then, since the
    /// machine is busy and Redis did not answer in time, is asked again with the same id, as a back end
    /// should.
    pub async fn send(&self, mut request: pb::SendCommandRequest) -> pb::SendCommandResponse {
        if request.command_id.is_empty() {
            request.command_id = format!("test-{}", SessionId::random());
        }
        let work = async {
            loop {
                match self.try_send(request.clone()).await {
                    Err(error) if error.is_unavailable() && error.retryable() => sleep(PAUSE).await,
                    done => return done.unwrap(),
                }
            }
        };
        soon("the hub to take a command", work).await
    }

    /// The same where it may fail.
    pub async fn try_send(
        &self,
        request: pb::SendCommandRequest,
    ) -> Result<pb::SendCommandResponse, BackendError> {
        let answer = soon("SendCommand", self.backend.commands().send_command(request)).await;
        Ok(answer?.into_inner())
    }

    /// A command as it is now.
    pub async fn get(&self, device: &str, id: &str) -> pb::Command {
        let request =
            pb::GetCommandRequest { device_id: device.to_owned(), command_id: id.to_owned() };
        let answer = self.backend.commands().get_command(request).await.unwrap();
        answer.into_inner().command.unwrap()
    }

    /// Calls a command back.
    pub async fn cancel(&self, device: &str, id: &str) -> pb::CancelCommandResponse {
        let request =
            pb::CancelCommandRequest { device_id: device.to_owned(), command_id: id.to_owned() };
        let answer = self.backend.commands().cancel_command(request).await.unwrap();
        answer.into_inner()
    }

    /// A device as it is now; `None` if the hub does not know it.
    pub async fn device(&self, device: &str) -> Option<pb::Device> {
        let request = pb::GetDeviceRequest { device_id: device.to_owned() };
        match self.backend.devices().get_device(request).await {
            Ok(answer) => answer.into_inner().device,
            Err(status) if status.code() == tonic::Code::NotFound => None,
            Err(status) => panic!("GetDevice: {status}"),
        }
    }

    /// Every device that the hub remembers, of this presence.
    pub async fn devices(&self, presence: pb::Presence) -> Vec<pb::Device> {
        let mut devices = vec![];
        let mut page_token = String::new();
        loop {
            let request = pb::ListDevicesRequest {
                page_size: 1_000,
                page_token,
                presence: presence.into(),
                node_id: String::new(),
            };
            let answer = self.backend.devices().list_devices(request).await.unwrap();
            let page = answer.into_inner();
            devices.extend(page.devices);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return devices;
            }
        }
    }

    /// Publishes a JSON payload.
    pub async fn publish(&self, topic: &str, json: &str) {
        let request = pb::PublishRequest {
            topic: topic.to_owned(),
            payload: Some(payload(Body::Json(json.to_owned()))),
            ..Default::default()
        };
        self.backend.messages().publish(request).await.unwrap();
    }

    /// Follows a filter; the subscription is in force when this returns.
    pub async fn subscribe(&self, filter: &str) -> tonic::Streaming<pb::SubscribeResponse> {
        let topic_filter = filter.to_owned();
        let request =
            pb::SubscribeRequest { subscriptions: vec![pb::TopicSubscription { topic_filter }] };
        let answer = self.backend.messages().subscribe(request).await.unwrap();
        let mut stream = answer.into_inner();
        let first = soon("`subscribed`", stream.message()).await.unwrap().unwrap();
        let confirmed = matches!(first.event, Some(pb::subscribe_response::Event::Subscribed(_)));
        assert!(confirmed, "the first item is {first:?}");
        stream
    }
}
