//! The opening handshake: a URL in, an upgraded socket out, or why the hub said no. What follows on
//! the socket is in `connection.rs`.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderMap, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use roost_wire::device::SUBPROTOCOL_JSON;
use sha1::{Digest as _, Sha1};
use tokio::net::TcpStream;

use super::OpenError;
use super::stream::Stream;
use crate::tls::{self, Trust};

/// Where devices connect, unless the URL says another path.
const DEFAULT_PATH: &str = "/v1/connect";
/// The most bytes of a refusal's body that are read; the rest says nothing a client could use.
const REFUSAL_BYTES: usize = 4096;
/// What RFC 6455 appends to the key before hashing it.
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Where a hub takes devices: `ws://HOST[:PORT][/PATH][?QUERY]`, or `wss://…` by TLS.
///
/// Without a port 80 or 443 is meant, as everywhere; without a path `/v1/connect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    tls: bool,
    /// `None`: the system's authorities.
    trust: Option<Trust>,
    host: String,
    port: u16,
    /// Path and query.
    target: String,
}

/// Why a text is no [`Url`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not where devices connect: {problem}; it looks like ws://127.0.0.1:7080")]
pub struct UrlError {
    given: String,
    problem: &'static str,
}

/// The hub answered the upgrade with something other than 101.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// What the hub said, in its words; empty where it said nothing.
    pub message: String,
    /// How long the hub asks to wait.
    pub retry_after: Option<Duration>,
}

/// An upgraded socket, and what came right behind the handshake.
pub(super) struct Upgraded {
    pub(super) stream: Stream,
    pub(super) early: Bytes,
}

// === impl Url ===

impl Url {
    /// The same URL with `name=value` added to its query. Both must need no escaping.
    #[must_use]
    pub fn with_query(mut self, name: &str, value: &str) -> Self {
        let joint = if self.target.contains('?') { '&' } else { '?' };
        self.target = format!("{}{joint}{name}={value}", self.target);
        self
    }

    /// The same URL, where a hub proves itself to these authorities instead of the system's. Without
    /// TLS it changes nothing.
    #[must_use]
    pub fn trusting(mut self, trust: Trust) -> Self {
        self.trust = Some(trust);
        self
    }

    fn host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }

    fn authority(&self) -> String {
        let host = &self.host;
        format!("{host}:{}", self.port)
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let wrong = |problem| UrlError { given: text.to_owned(), problem };
        let uri: Uri = text.parse().map_err(|_| wrong("it is not a URL"))?;
        let (tls, port) = match uri.scheme_str() {
            Some("ws") => (false, 80),
            Some("wss") => (true, 443),
            _ => return Err(wrong("it does not start with ws:// or wss://")),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let path = match uri.path() {
            "" | "/" => DEFAULT_PATH,
            path => path,
        };
        let query = uri.query().map(|query| format!("?{query}"));
        Ok(Self {
            tls,
            trust: None,
            host: host.ok_or_else(|| wrong("it names no host"))?.to_owned(),
            port: uri.port_u16().unwrap_or(port),
            target: format!("{path}{}", query.unwrap_or_default()),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.target)
    }
}

// === impl Refusal ===

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

/// Connects and upgrades. Cancel safe: dropping it closes the socket.
pub(super) async fn upgrade(url: &Url, token: Option<&str>) -> Result<Upgraded, OpenError> {
    let stream = connect(url).await?;
    let key = random_key();
    let request = request(url, token, &key)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends once the request is answered: by the upgrade, or since the sender is dropped.
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(OpenError::Refused(refusal(response).await));
        }
        check(response.headers(), &key)?;
        hyper::upgrade::on(response).await.map_err(broken)
    };
    let (upgraded, _) = tokio::join!(exchange, connection.with_upgrades());
    let parts =
        upgraded?.downcast::<TokioIo<Stream>>().expect("the connection was made over this type");
    Ok(Upgraded { stream: parts.io.into_inner(), early: parts.read_buf })
}

async fn connect(url: &Url) -> Result<Stream, OpenError> {
    let socket = TcpStream::connect((url.host(), url.port)).await?;
    socket.set_nodelay(true)?;
    if !url.tls {
        return Ok(Stream::Tcp(socket));
    }
    let trust = url.trust.clone().map_or_else(Trust::system, Ok);
    let trust = trust.map_err(|error| OpenError::Tls(error.to_string()))?;
    match trust.connect(url.host(), socket).await {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
        Err(error) => Err(match tls::explain(&error, "ws://") {
            Some(mistake) => OpenError::Tls(mistake),
            None => OpenError::Connect(error),
        }),
    }
}

fn broken(error: hyper::Error) -> OpenError {
    OpenError::Connect(io::Error::other(error))
}

fn request(url: &Url, token: Option<&str>, key: &str) -> Result<Request<Empty<Bytes>>, OpenError> {
    let mut request = Request::get(&url.target)
        .header(HOST, url.authority())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, key)
        .header(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL_JSON);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    request
        .body(Empty::new())
        .map_err(|error| OpenError::NotRoost(format!("the request cannot be made: {error}")))
}

fn random_key() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    STANDARD.encode(bytes)
}

/// Checks that a 101 is the answer to this very handshake (RFC 6455 §4.1).
fn check(headers: &HeaderMap, key: &str) -> Result<(), OpenError> {
    let digest = Sha1::new().chain_update(key).chain_update(ACCEPT_SUFFIX);
    let expected = STANDARD.encode(digest.finalize());
    let accept = headers.get(SEC_WEBSOCKET_ACCEPT).map(http::HeaderValue::as_bytes);
    if accept != Some(expected.as_bytes()) {
        let what = "Sec-WebSocket-Accept does not answer the key";
        return Err(OpenError::NotRoost(what.to_owned()));
    }
    let protocol = headers.get(SEC_WEBSOCKET_PROTOCOL).map(http::HeaderValue::as_bytes);
    if protocol != Some(SUBPROTOCOL_JSON.as_bytes()) {
        let what = format!("the server does not speak {SUBPROTOCOL_JSON}");
        return Err(OpenError::NotRoost(what));
    }
    Ok(())
}

async fn refusal(response: Response<Incoming>) -> Refusal {
    let status = response.status().as_u16();
    let seconds = |value: &http::HeaderValue| value.to_str().ok()?.trim().parse().ok();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(seconds);
    let body = Limited::new(response.into_body(), REFUSAL_BYTES);
    let body = body.collect().await.map(http_body_util::Collected::to_bytes);
    Refusal {
        status,
        message: message_of(&body.unwrap_or_default()),
        retry_after: retry_after.map(Duration::from_secs),
    }
}

/// A refusal's message: the `message` of a JSON body, else its first line.
fn message_of(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    if let Some(message) = json.as_ref().and_then(|json| json["message"].as_str()) {
        let code = json.as_ref().and_then(|json| json["code"].as_str());
        return code.map_or(message.to_owned(), |code| format!("{code}: {message}"));
    }
    let text = String::from_utf8_lossy(body);
    text.lines().next().unwrap_or_default().trim().to_owned()
}
