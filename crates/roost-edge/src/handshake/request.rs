//! What an upgrade request must look like, and what is taken from it. hyper has parsed it;
//! fastwebsockets computes the answer to its key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, ORIGIN, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, Method, Request, Version};
use roost_auth::{Credential, Identity};
use roost_types::{ErrorCode, HubError};
use roost_wire::device::{SUBPROTOCOL_BEARER_PREFIX, SUBPROTOCOL_JSON};

use super::refusal::Refusal;
use crate::conn::Speech;
use crate::edge::Edge;

/// What a good request asks for.
#[derive(Debug)]
pub(super) struct Accepted {
    /// What is to be spoken.
    pub(super) speech: Speech,
    /// To be echoed; `None` where the client offered none.
    pub(super) subprotocol: Option<&'static str>,
    /// See [`crate::conn::Arrival`].
    pub(super) identity: Result<Option<Identity>, HubError>,
    /// Whether `?hello=auto` was given.
    pub(super) auto_hello: bool,
}

/// Checks a request from the outside in, and says the first thing that is wrong.
pub(super) fn check<B>(edge: &Edge, request: &Request<B>) -> Result<Accepted, Refusal> {
    let config = &edge.config;
    let speech = match request.uri().path() {
        "/v1/connect" => Speech::Json,
        "/v1/echo" if config.enable_echo => Speech::Echo,
        _ => return Err(Refusal::path()),
    };
    let headers = request.headers();
    check_upgrade(request)?;
    check_origin(config.allowed_origins.as_deref(), headers)?;
    if speech == Speech::Echo {
        let (subprotocol, auto_hello) = (None, false);
        return Ok(Accepted { speech, subprotocol, identity: Ok(None), auto_hello });
    }
    let query = request.uri().query();
    Ok(Accepted {
        speech,
        subprotocol: choose_subprotocol(headers)?,
        identity: identify(edge, headers, query)?,
        auto_hello: query.is_some_and(|query| query.split('&').any(|pair| pair == "hello=auto")),
    })
}

fn check_upgrade<B>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(Refusal::method());
    }
    if request.version() != Version::HTTP_11 {
        return Err(Refusal::bad_upgrade("a WebSocket is opened with HTTP/1.1"));
    }
    if headers.get_all(HOST).iter().count() != 1 {
        return Err(Refusal::bad_upgrade("the request needs exactly one Host header"));
    }
    let empty = headers.get_all(CONTENT_LENGTH).iter().all(|length| length == "0");
    if !empty || headers.contains_key(TRANSFER_ENCODING) {
        // What follows the head would be taken for frames here and for a body by a proxy.
        return Err(Refusal::bad_upgrade("an upgrade request has no body"));
    }
    if !has_token(headers, CONNECTION, "upgrade") || !has_token(headers, UPGRADE, "websocket") {
        return Err(Refusal::no_upgrade());
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Refusal::websocket_version());
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().map(|key| STANDARD.decode(key.as_bytes()));
    match (key, keys.next()) {
        (Some(Ok(key)), None) if key.len() == 16 => Ok(()),
        _ => {
            Err(Refusal::bad_upgrade("Sec-WebSocket-Key is to be 16 random bytes in base64, once"))
        }
    }
}

/// Whether one of a list header's values is this, in whatever case.
fn has_token(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        let mut tokens = value.as_bytes().split(|byte| *byte == b',');
        tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
    })
}

fn check_origin(allowed: Option<&[String]>, headers: &HeaderMap) -> Result<(), Refusal> {
    let (Some(allowed), Some(origin)) = (allowed, headers.get(ORIGIN)) else {
        return Ok(());
    };
    let known = |one: &String| one.as_bytes().eq_ignore_ascii_case(origin.as_bytes());
    if allowed.iter().any(known) { Ok(()) } else { Err(Refusal::origin()) }
}

/// The subprotocol to echo. Credentials among the offers are no offers.
fn choose_subprotocol(headers: &HeaderMap) -> Result<Option<&'static str>, Refusal> {
    let lists = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offers = lists
        .flat_map(|list| list.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|offer| {
            !offer.is_empty() && !offer.starts_with(SUBPROTOCOL_BEARER_PREFIX.as_bytes())
        })
        .peekable();
    if offers.peek().is_none() {
        return Ok(None);
    }
    if offers.any(|offer| offer == SUBPROTOCOL_JSON.as_bytes()) {
        return Ok(Some(SUBPROTOCOL_JSON));
    }
    let text =
        format!("none of the subprotocols offered is known; this hub speaks {SUBPROTOCOL_JSON}");
    Err(Refusal::bad_upgrade(text))
}

/// Who the device is. A bad `Authorization` is refused here and now; a bad credential of another
/// kind is told after the upgrade, since browsers, which send those, cannot see HTTP statuses.
fn identify(
    edge: &Edge,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Result<Option<Identity>, HubError>, Refusal> {
    let authorization = headers.get(AUTHORIZATION).map(http::HeaderValue::as_bytes);
    let subprotocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let subprotocols = subprotocols.map(http::HeaderValue::as_bytes);
    let identity = Credential::from_request(authorization, subprotocols, query).and_then(|found| {
        let Some(credential) = found else {
            return Ok(None);
        };
        let now = edge.store.clock.now();
        edge.authenticator.authenticate(Some(&credential), now).map(Some)
    });
    match identity {
        Ok(identity) => Ok(Ok(identity)),
        Err(error) if authorization.is_some() => Err(Refusal::credential(&error)),
        // A claim where tokens are wanted: `hello` may still bring one.
        Err(error) if error.code() == ErrorCode::CredentialMissing => Ok(Ok(None)),
        Err(error) => Ok(Err(error.into())),
    }
}
