//! An upgrade that is refused: HTTP status, headers, and a JSON body `{"code", "message"}`.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use roost_telemetry::metrics::labels::{AdmissionDecision, ConnectOutcome};
use roost_types::ErrorCode;

/// Why a request was not upgraded.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: ErrorCode,
    message: Cow<'static, str>,
    /// What it is counted as.
    pub(super) outcome: ConnectOutcome,
    headers: Vec<(HeaderName, HeaderValue)>,
}

// === impl Refusal ===

impl Refusal {
    fn new(
        status: StatusCode,
        code: ErrorCode,
        outcome: ConnectOutcome,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code, message: message.into(), outcome, headers: Vec::new() }
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    /// Not a correct WebSocket upgrade: 400.
    pub(super) fn bad_upgrade(message: impl Into<Cow<'static, str>>) -> Self {
        let (code, outcome) = (ErrorCode::ProtocolError, ConnectOutcome::BadRequest);
        Self::new(StatusCode::BAD_REQUEST, code, outcome, message)
    }

    /// Another method than GET: 405.
    pub(super) fn method() -> Self {
        let (code, outcome) = (ErrorCode::ProtocolError, ConnectOutcome::BadRequest);
        let text = "a WebSocket is opened with GET";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, code, outcome, text).with(ALLOW, "GET")
    }

    /// No upgrade asked for: 400 that says what is served here.
    pub(super) fn no_upgrade() -> Self {
        let text = "this is a WebSocket endpoint: send Connection: Upgrade and Upgrade: websocket";
        Self::bad_upgrade(text).with(UPGRADE, "websocket")
    }

    /// Another version of the WebSocket protocol: 426.
    pub(super) fn websocket_version() -> Self {
        let (code, outcome) = (ErrorCode::ProtocolError, ConnectOutcome::BadRequest);
        let text =
            "this hub speaks version 13 of the WebSocket protocol: send Sec-WebSocket-Version: 13";
        Self::new(StatusCode::UPGRADE_REQUIRED, code, outcome, text)
            .with(SEC_WEBSOCKET_VERSION, "13")
            .with(UPGRADE, "websocket")
    }

    /// No such path: 404.
    pub(super) fn path() -> Self {
        let (code, outcome) = (ErrorCode::NotFound, ConnectOutcome::NotFound);
        Self::new(StatusCode::NOT_FOUND, code, outcome, "devices connect at /v1/connect")
    }

    /// An Origin that is not on the list: 403.
    pub(super) fn origin() -> Self {
        let (code, outcome) = (ErrorCode::PermissionDenied, ConnectOutcome::Forbidden);
        let text = "pages of this Origin may not connect to this hub";
        Self::new(StatusCode::FORBIDDEN, code, outcome, text)
    }

    /// A credential in `Authorization` that is not good: 401.
    pub(super) fn credential(error: &roost_auth::AuthError) -> Self {
        let outcome = ConnectOutcome::Unauthenticated;
        Self::new(StatusCode::UNAUTHORIZED, error.code(), outcome, error.to_string())
            .with(http::header::WWW_AUTHENTICATE, "Bearer")
    }

    /// Not let in at all: 503, to be tried again after so many seconds.
    pub(super) fn not_admitted(decision: AdmissionDecision, retry_after: u64) -> Self {
        use AdmissionDecision as D;
        let (code, outcome, text) = match decision {
            D::Draining => (
                ErrorCode::Draining,
                ConnectOutcome::Draining,
                "this node is going away; connect again to reach another",
            ),
            D::Unavailable => (
                ErrorCode::Unavailable,
                ConnectOutcome::Unavailable,
                "the hub cannot take sessions at the moment",
            ),
            D::PerAddress | D::RateLimited => (
                ErrorCode::RateLimited,
                ConnectOutcome::RateLimited,
                "too many connections are being opened at once",
            ),
            D::Capacity | D::Admitted => (
                ErrorCode::Overloaded,
                ConnectOutcome::Capacity,
                "this node holds as many connections as it may",
            ),
        };
        let mut refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, outcome, text);
        refusal.headers.push((RETRY_AFTER, retry_after.into()));
        refusal
    }

    /// The whole answer. The connection ends with it.
    pub(super) fn response(self) -> Response<Full<Bytes>> {
        let body = serde_json::json!({ "code": self.code.as_str(), "message": self.message });
        let mut response = Response::new(Full::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(self.headers);
        response
    }
}
