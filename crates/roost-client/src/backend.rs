//! A back end: the gRPC services of `roost.control.v1` with an API key, and errors that can be read and
//! branched on. The device half of this crate is in `device`.

use std::fmt;
use std::time::Duration;

use roost_proto::control::v1::cluster_service_client::ClusterServiceClient;
use roost_proto::control::v1::command_service_client::CommandServiceClient;
use roost_proto::control::v1::device_service_client::DeviceServiceClient;
use roost_proto::control::v1::message_service_client::MessageServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::tls::{self, Trust, TrustError};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After how much silence the hub is pinged, so that a stream notices a hub that vanished.
const PING_AFTER: Duration = Duration::from_secs(30);
/// After how long without an answer to that it is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How much a stream may have under way: a busy topic is not to wait for round trips.
const STREAM_WINDOW: u32 = 1 << 20;
/// What a hub's port with TLS says to a client without, in HTTP/2's own way; tonic takes that for a
/// missing permission.
const NO_TLS: &str = "this port speaks TLS";
/// How much all streams together may have under way.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// A connection to the hub's control port, with a key. Cheap to clone; clones share the connection,
/// which is made anew by itself whenever it breaks.
#[derive(Debug, Clone)]
pub struct Backend {
    service: Authorised,
}

/// A channel that sends the API key with every call.
pub type Authorised = InterceptedService<Channel, ApiKey>;

/// Adds `authorization: Bearer KEY` to a call.
#[derive(Clone)]
pub struct ApiKey(MetadataValue<Ascii>);

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct BackendError {
    /// The gRPC status code.
    pub code: Code,
    /// The hub's own code, stable and to be branched on: `QUEUE_FULL`. Empty where it was not the hub
    /// that said no: it cannot be reached, say.
    pub reason: String,
    /// What was wrong and what would be right, for people.
    pub message: String,
    /// Which fields of the request were wrong.
    pub fields: Vec<FieldViolation>,
    /// How long to wait before the same call has a chance; `None` where it would fail again.
    pub retry_after: Option<Duration>,
}

/// One field of a request that was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Its path: `payload.json`.
    pub field: String,
    /// What was wrong with it and what would be right.
    pub description: String,
}

// === impl Backend ===

impl Backend {
    /// Connects to `endpoint`, `http://host:7050` or `host:7050`, or `https://host:7050` by TLS, where the
    /// hub is to prove itself to the system's authorities. Fails if the hub cannot be reached
    /// within 5 s, or if endpoint or key cannot be right; whether the key is known shows in the first
    /// call.
    pub async fn connect(endpoint: &str, api_key: &str) -> Result<Self, BackendError> {
        Self::connect_trusting(endpoint, api_key, None).await
    }

    /// The same, where the hub proves itself to these authorities; `None` for the system's.
    pub async fn connect_trusting(
        endpoint: &str,
        api_key: &str,
        trust: Option<&Trust>,
    ) -> Result<Self, BackendError> {
        let key = ApiKey::new(api_key)?;
        let channel = address(endpoint, trust)?.connect().await;
        let channel = channel.map_err(|error| unreachable_hub(endpoint, &error))?;
        Ok(Self::over(channel, key))
    }

    /// The same, but connects with the first call.
    pub fn connect_lazy(endpoint: &str, api_key: &str) -> Result<Self, BackendError> {
        let key = ApiKey::new(api_key)?;
        Ok(Self::over(address(endpoint, None)?.connect_lazy(), key))
    }

    fn over(channel: Channel, key: ApiKey) -> Self {
        Self { service: InterceptedService::new(channel, key) }
    }

    /// Commands: send, get, list, cancel.
    pub fn commands(&self) -> CommandServiceClient<Authorised> {
        CommandServiceClient::new(self.service.clone())
    }

    /// Devices: get, list, watch, disconnect.
    pub fn devices(&self) -> DeviceServiceClient<Authorised> {
        DeviceServiceClient::new(self.service.clone())
    }

    /// Messages: publish, subscribe.
    pub fn messages(&self) -> MessageServiceClient<Authorised> {
        MessageServiceClient::new(self.service.clone())
    }

    /// The hub's nodes.
    pub fn cluster(&self) -> ClusterServiceClient<Authorised> {
        ClusterServiceClient::new(self.service.clone())
    }
}

fn address(endpoint: &str, trust: Option<&Trust>) -> Result<Endpoint, BackendError> {
    let url =
        if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
    let wrong = |problem: &dyn fmt::Display| {
        let what = format!(
            "{endpoint:?} is no endpoint ({problem}); give http://HOST:PORT or https://HOST:PORT"
        );
        BackendError::local(Code::InvalidArgument, what)
    };
    let mut endpoint = Endpoint::from_shared(url).map_err(|error| wrong(&error))?;
    match endpoint.uri().scheme_str() {
        Some("http") => {}
        Some("https") => {
            let local =
                |error: TrustError| BackendError::local(Code::InvalidArgument, error.to_string());
            let trust = trust.cloned().map_or_else(Trust::system, Ok).map_err(local)?;
            let tls = ClientTlsConfig::new().trust_anchors(trust.anchors());
            endpoint = endpoint.tls_config(tls).map_err(|error| wrong(&error))?;
        }
        _ => return Err(wrong(&"its scheme is neither http nor https")),
    }
    let agent = concat!("roost-client/", env!("CARGO_PKG_VERSION"));
    let endpoint = endpoint.user_agent(agent).map_err(|error| wrong(&error))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW))
}

/// The whole chain of causes: the first alone is "transport error".
fn unreachable_hub(endpoint: &str, error: &(dyn std::error::Error + 'static)) -> BackendError {
    if let Some(mistake) = tls::explain(error, "http://") {
        let what = format!("cannot reach the hub at {endpoint}: {mistake}");
        return BackendError::local(Code::Unavailable, what);
    }
    let mut what = format!("cannot reach the hub at {endpoint}: {error}");
    add_causes(&mut what, error.source());
    BackendError {
        retry_after: Some(Duration::from_secs(1)),
        ..BackendError::local(Code::Unavailable, what)
    }
}

/// Adds what lies behind an error, each cause that is not told yet.
fn add_causes(what: &mut String, mut cause: Option<&(dyn std::error::Error + 'static)>) {
    while let Some(error) = cause {
        let text = error.to_string();
        if !what.contains(&text) {
            what.push_str(": ");
            what.push_str(&text);
        }
        cause = error.source();
    }
}

// === impl ApiKey ===

impl ApiKey {
    /// Takes a key over; fails if it cannot be one.
    pub fn new(key: &str) -> Result<Self, BackendError> {
        let visible = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
        let header = format!("Bearer {key}").parse::<MetadataValue<Ascii>>();
        match header {
            Ok(mut value) if visible => {
                value.set_sensitive(true);
                Ok(Self(value))
            }
            _ => {
                let what = "the API key is not one: it has visible ASCII characters only";
                Err(BackendError::local(Code::InvalidArgument, what.to_owned()))
            }
        }
    }
}

impl fmt::Debug for ApiKey {
    /// Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey")
    }
}

impl Interceptor for ApiKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = self.0.clone();
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

// === impl BackendError ===

impl BackendError {
    fn local(code: Code, message: String) -> Self {
        Self { code, reason: String::new(), message, fields: Vec::new(), retry_after: None }
    }

    /// Whether the same call may succeed later, unchanged. A command that is sent again needs the same
    /// `command_id`, or it may be another one.
    pub fn retryable(&self) -> bool {
        self.retry_after.is_some()
    }

    /// Whether the hub, or its store, cannot be reached at the moment.
    pub fn is_unavailable(&self) -> bool {
        self.code == Code::Unavailable
    }
}

impl From<Status> for BackendError {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let retry = details.retry_info().and_then(|retry| retry.retry_delay);
        let info = details.error_info();
        // A status that is not the hub's own comes from the connection to it.
        let lost = info.is_none() && status.code() == Code::Unavailable;
        let mut message = status.message().to_owned();
        if info.is_none() {
            add_causes(&mut message, std::error::Error::source(&status));
        }
        if info.is_none() && message.contains(NO_TLS) {
            let what = "cannot reach the hub: this port speaks TLS: connect by https://";
            return Self::local(Code::Unavailable, what.to_owned());
        }
        let violations = details.bad_request().map(|request| &request.field_violations);
        let fields = violations.into_iter().flatten().map(|violation| FieldViolation {
            field: violation.field.clone(),
            description: violation.description.clone(),
        });
        Self {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            message,
            fields: fields.collect(),
            retry_after: retry.or(lost.then_some(Duration::from_secs(1))),
        }
    }
}

impl fmt::Display for BackendError {
    /// `UNAVAILABLE (NOT_ENQUEUED): the store is out of reach …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(code_name(self.code))?;
        if !self.reason.is_empty() && self.reason != code_name(self.code) {
            write!(f, " ({})", self.reason)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// As the gRPC documents write it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tonic_types::ErrorDetails;

    #[test]
    fn an_error_of_the_hub_is_read_with_all_its_details() {
        let mut details =
            ErrorDetails::with_error_info("NOT_ENQUEUED", "roost.dev", HashMap::new());
        details.set_retry_info(Some(Duration::from_millis(500)));
        let status = Status::with_error_details(Code::Unavailable, "the store is away", details);
        let error = BackendError::from(status);
        assert_eq!(error.to_string(), "UNAVAILABLE (NOT_ENQUEUED): the store is away");
        assert_eq!(error.retry_after, Some(Duration::from_millis(500)));
        assert!(error.retryable() && error.is_unavailable());

        let mut details = ErrorDetails::with_error_info("ID_INVALID", "roost.dev", HashMap::new());
        details.add_bad_request_violation("device_id", "is empty");
        let status =
            Status::with_error_details(Code::InvalidArgument, "device_id: is empty", details);
        let error = BackendError::from(status);
        assert!(!error.retryable());
        assert_eq!(error.fields[0].field, "device_id");
        assert_eq!(error.fields[0].description, "is empty");
    }

    #[test]
    fn what_cannot_be_right_is_refused_before_it_is_tried() {
        assert!(ApiKey::new("rk_abc").is_ok());
        assert_eq!(format!("{:?}", ApiKey::new("rk_abc").unwrap()), "ApiKey");
        for key in ["", "a b", "a\n", "ä"] {
            assert_eq!(ApiKey::new(key).unwrap_err().code, Code::InvalidArgument, "{key:?}");
        }
        assert!(address("127.0.0.1:7050", None).is_ok());
        assert!(address("http://[::1]:7050", None).is_ok());
        for endpoint in ["", "ftp://x", "a b"] {
            let error = address(endpoint, None).unwrap_err();
            assert!(error.message.contains("give http://HOST:PORT"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_hub_that_is_not_there_is_named() {
        // A port that was free a moment ago.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = Backend::connect(&address, "rk_abc").await.unwrap_err();
        assert!(error.message.contains(&address), "{error}");
        assert!(error.retryable() && error.is_unavailable());
    }
}
