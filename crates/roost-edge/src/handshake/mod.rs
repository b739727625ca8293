//! From an accepted socket to an upgraded connection, or an answer that says why not.
//!
//! Here: the socket's way through hyper under one deadline. What a request must look like is in
//! `request.rs`, how a refusal is answered in `refusal.rs`. hyper gives the socket back after the
//! 101, so nothing of it stays with an open connection.

mod refusal;
mod request;

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use roost_telemetry::metrics::labels::{AdmissionDecision, ConnectOutcome};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use self::refusal::Refusal;
use self::request::Accepted;
use crate::admission::Slots;
use crate::conn::{Arrival, Conn, Speech, Upgraded};
use crate::edge::Edge;
use crate::tls::{TlsFailure, TlsPort, TlsStream};
use crate::transport::Transport;
use crate::worker::Worker;

/// The most headers of a request. Browsers behind two proxies send about 30.
const MAX_HEADERS: usize = 64;
/// The most bytes of a request's head: a token of the greatest length twice, and room.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// What is answered where there is no room even to read a request.
const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// What is answered to a request without TLS where TLS is spoken.
const NO_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 91\r\nconnection: close\r\n\r\n{\"code\":\"PROTOCOL_ERROR\",\"message\":\"this port speaks TLS: connect with wss:// or https://\"}";

/// Counts a handshake under way.
struct UnderWay(Rc<Worker>);

/// What the request's service decided.
type Verdict = RefCell<Option<Result<Accepted, ConnectOutcome>>>;

/// Takes an accepted socket through the handshake, beside everything else.
///
/// `tls` is the port that it came to, if that speaks TLS.
pub(crate) fn begin(
    worker: &Rc<Worker>,
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<&Rc<TlsPort>>,
) {
    let edge = &worker.edge;
    if worker.handshakes.get() >= edge.config.pre_auth.per_worker {
        edge.metrics().admission.inc(AdmissionDecision::Capacity);
        edge.metrics().refused(ConnectOutcome::Capacity);
        // Not `try_write`: the runtime has not learnt yet that the socket can be written. Over TLS
        // nothing can be said without the work that there is no room for.
        if tls.is_none()
            && let Err(error) = SockRef::from(&socket).send(NO_ROOM)
        {
            tracing::trace!(%error, "a socket without room was gone already");
        }
        return;
    }
    let under_way = UnderWay::new(worker);
    let decision = decide(edge, peer);
    let label = decision.as_ref().map_or_else(|refused| *refused, |_| AdmissionDecision::Admitted);
    edge.metrics().admission.inc(label);
    tokio::task::spawn_local(run(under_way, socket, tls.cloned(), peer, decision));
}

/// Who is let in, before anything is read.
fn decide(edge: &Edge, peer: SocketAddr) -> Result<Slots, AdmissionDecision> {
    if !edge.admits() {
        return Err(AdmissionDecision::Draining);
    }
    if !edge.store_is_up() {
        return Err(AdmissionDecision::Unavailable);
    }
    if edge.bucket.as_ref().is_some_and(|bucket| !bucket.take()) {
        return Err(AdmissionDecision::RateLimited);
    }
    let config = &edge.config;
    edge.admission.enter(peer.ip(), config.max_connections, config.pre_auth.per_address)
}

async fn run(
    under_way: UnderWay,
    socket: TcpStream,
    tls: Option<Rc<TlsPort>>,
    peer: SocketAddr,
    decision: Result<Slots, AdmissionDecision>,
) {
    let worker = &under_way.0;
    let started = Instant::now();
    let limit = worker.edge.config.timeouts.handshake;
    let exchange = exchange(worker, socket, tls, decision.as_ref().err().copied());
    let outcome = match tokio::time::timeout(limit, exchange).await {
        Ok(Ok((accepted, transport, early))) => match decision {
            Ok(slots) => {
                let parts = Parts { accepted, transport, early, peer, slots };
                return parts.upgrade(worker, started.elapsed());
            }
            Err(_) => ConnectOutcome::Io,
        },
        Ok(Err(outcome)) => outcome,
        Err(_) => ConnectOutcome::Timeout,
    };
    worker.edge.metrics().refused(outcome);
}

/// TLS where it is spoken, then one request and its answer; the stream comes back where that was a 101,
/// with what came behind the request.
async fn exchange(
    worker: &Rc<Worker>,
    socket: TcpStream,
    tls: Option<Rc<TlsPort>>,
    refused: Option<AdmissionDecision>,
) -> Result<(Accepted, Transport, Box<[u8]>), ConnectOutcome> {
    let Some(port) = tls else {
        let (accepted, socket, early) = ask(worker, socket, refused).await?;
        return Ok((accepted, Transport::Tcp(socket), early.into()));
    };
    let stream = agree(socket, &port).await?;
    // Boxed from the start: it is moved through hyper and back.
    let (accepted, stream, mut early) = ask(worker, Box::new(stream), refused).await?;
    early.extend_from_slice(&stream.take_plain());
    Ok((accepted, Transport::Tls(stream), early.into()))
}

/// The TLS handshake. A client that speaks HTTP here is told so in HTTP.
async fn agree(socket: TcpStream, port: &Rc<TlsPort>) -> Result<TlsStream, ConnectOutcome> {
    let failed = match TlsStream::new(socket, port) {
        Ok(stream) => match stream.handshake().await {
            Ok(()) => return Ok(stream),
            Err(TlsFailure::PlainHttp) => {
                if let Err(error) = stream.socket().try_write(NO_TLS) {
                    tracing::trace!(%error, "a client without TLS was gone already");
                }
                return Err(ConnectOutcome::Tls);
            }
            Err(failed) => failed,
        },
        Err(failed) => failed,
    };
    // Whoever scans ports would fill the log: the metric counts them.
    tracing::debug!(%failed, "a TLS handshake failed");
    Err(ConnectOutcome::Tls)
}

/// One request and its answer; the stream comes back where that was a 101, with what came behind.
async fn ask<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    worker: &Rc<Worker>,
    stream: S,
    refused: Option<AdmissionDecision>,
) -> Result<(Accepted, S, Vec<u8>), ConnectOutcome> {
    let verdict: Rc<Verdict> = Rc::default();
    let service = service_fn(|mut request: Request<Incoming>| {
        let answer = answer(worker, &mut request, refused, &verdict);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(worker.edge.config.timeouts.handshake)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let served = connection.without_shutdown().await;
    match (served, verdict.take()) {
        (Ok(parts), Some(Ok(accepted))) => {
            // A copy: even an empty slice of hyper's buffer keeps all of it.
            Ok((accepted, parts.io.into_inner(), parts.read_buf.to_vec()))
        }
        (Ok(parts), Some(Err(outcome))) => {
            let mut stream = parts.io.into_inner();
            // Over TLS an answer without an end could have been cut by anybody.
            if let Err(error) = stream.shutdown().await {
                tracing::trace!(%error, "a refused client was gone already");
            }
            Err(outcome)
        }
        (_, Some(Err(outcome))) => Err(outcome),
        (Err(error), None) if error.is_timeout() => Err(ConnectOutcome::Timeout),
        // hyper has answered 400 or 431 itself.
        (Err(error), None) if error.is_parse() => Err(ConnectOutcome::BadRequest),
        (_, _) => Err(ConnectOutcome::Io),
    }
}

fn answer(
    worker: &Worker,
    request: &mut Request<Incoming>,
    refused: Option<AdmissionDecision>,
    verdict: &Verdict,
) -> Response<Full<Bytes>> {
    let edge = &worker.edge;
    let checked = match refused {
        Some(decision) => Err(Refusal::not_admitted(decision, retry_after(worker, decision))),
        None => request::check(edge, request),
    };
    let outcome = checked.and_then(|accepted| {
        let response = switch(request, &accepted)?;
        Ok((accepted, response))
    });
    match outcome {
        Ok((accepted, response)) => {
            *verdict.borrow_mut() = Some(Ok(accepted));
            response
        }
        Err(refusal) => {
            *verdict.borrow_mut() = Some(Err(refusal.outcome));
            refusal.response()
        }
    }
}

/// After how many seconds whoever is not admitted is to try again, at random so that not all come back
/// together; where too many came at once, spread over the time that the bucket takes to fill.
fn retry_after(worker: &Worker, decision: AdmissionDecision) -> u64 {
    let spread = match (decision, &worker.edge.bucket) {
        (AdmissionDecision::RateLimited, Some(bucket)) => bucket.full_in().as_secs().clamp(5, 60),
        _ => 5,
    };
    1 + worker.random_below(spread)
}

/// The 101. The socket is taken back from hyper by hand, so its upgrade future is not needed.
fn switch(
    request: &mut Request<Incoming>,
    accepted: &Accepted,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let (response, upgrade) = fastwebsockets::upgrade::upgrade(request)
        .map_err(|error| Refusal::bad_upgrade(error.to_string()))?;
    drop(upgrade);
    let mut response = response.map(|_| Full::default());
    if let Some(protocol) = accepted.subprotocol {
        let value = HeaderValue::from_static(protocol);
        response.headers_mut().insert(http::header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    Ok(response)
}

/// Everything of a connection that was answered with 101.
struct Parts {
    accepted: Accepted,
    transport: Transport,
    early: Box<[u8]>,
    peer: SocketAddr,
    slots: Slots,
}

// === impl Parts ===

impl Parts {
    fn upgrade(self, worker: &Rc<Worker>, took: Duration) {
        let proven = matches!(self.accepted.identity, Ok(Some(_)));
        let speech = self.accepted.speech;
        let arrival = Arrival {
            identity: self.accepted.identity,
            _address_slot: (!proven && speech != Speech::Echo).then_some(self.slots.address),
            auto_hello: self.accepted.auto_hello,
            early: self.early,
        };
        let upgraded = Upgraded {
            transport: self.transport,
            peer: self.peer,
            speech,
            arrival,
            counted: worker.edge.metrics().connected(speech.label(), took),
            slot: self.slots.connection,
        };
        Conn::start(worker, upgraded);
    }
}

// === impl UnderWay ===

impl UnderWay {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.handshakes.set(worker.handshakes.get() + 1);
        Self(Rc::clone(worker))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.handshakes.set(self.0.handshakes.get() - 1);
    }
}
