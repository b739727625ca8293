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
use roost_cluster::StoreHealth;
use roost_telemetry::metrics::labels::{AdmissionDecision, ConnectOutcome};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::Instant;

use self::refusal::Refusal;
use self::request::Accepted;
use crate::admission::Slots;
use crate::conn::{Arrival, Conn, Speech, Upgraded};
use crate::edge::Edge;
use crate::lifecycle::Phase;
use crate::transport::Transport;
use crate::worker::Worker;

/// The most headers of a request. Browsers behind two proxies send about 30.
const MAX_HEADERS: usize = 64;
/// The most bytes of a request's head: a token of the greatest length twice, and room.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// What is answered where there is no room even to read a request.
const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Counts a handshake under way.
struct UnderWay(Rc<Worker>);

/// What the request's service decided.
type Verdict = RefCell<Option<Result<Accepted, ConnectOutcome>>>;

/// Takes an accepted socket through the handshake, beside everything else.
pub(crate) fn begin(worker: &Rc<Worker>, socket: TcpStream, peer: SocketAddr) {
    let edge = &worker.edge;
    if worker.handshakes.get() >= edge.config.pre_auth.per_worker {
        edge.metrics().admission.inc(AdmissionDecision::Capacity);
        edge.metrics().refused(ConnectOutcome::Capacity);
        // Not `try_write`: the runtime has not learnt yet that the socket can be written.
        if let Err(error) = SockRef::from(&socket).send(NO_ROOM) {
            tracing::trace!(%error, "a socket without room was gone already");
        }
        return;
    }
    let under_way = UnderWay::new(worker);
    let decision = decide(edge, peer);
    let label = decision.as_ref().map_or_else(|refused| *refused, |_| AdmissionDecision::Admitted);
    edge.metrics().admission.inc(label);
    tokio::task::spawn_local(run(under_way, socket, peer, decision));
}

/// Who is let in, before anything is read.
fn decide(edge: &Edge, peer: SocketAddr) -> Result<Slots, AdmissionDecision> {
    if edge.phase() >= Phase::Draining {
        return Err(AdmissionDecision::Draining);
    }
    if *edge.store.health.borrow() != StoreHealth::Up {
        return Err(AdmissionDecision::Unavailable);
    }
    let config = &edge.config;
    edge.admission.enter(peer.ip(), config.max_connections, config.pre_auth.per_address)
}

async fn run(
    under_way: UnderWay,
    socket: TcpStream,
    peer: SocketAddr,
    decision: Result<Slots, AdmissionDecision>,
) {
    let worker = &under_way.0;
    let started = Instant::now();
    let limit = worker.edge.config.timeouts.handshake;
    let exchange = exchange(worker, socket, decision.as_ref().err().copied());
    let outcome = match tokio::time::timeout(limit, exchange).await {
        Ok(Ok((accepted, socket, early))) => match decision {
            Ok(slots) => {
                let parts = Parts { accepted, socket, early, peer, slots };
                return parts.upgrade(worker, started.elapsed());
            }
            Err(_) => ConnectOutcome::Io,
        },
        Ok(Err(outcome)) => outcome,
        Err(_) => ConnectOutcome::Timeout,
    };
    worker.edge.metrics().refused(outcome);
}

/// One request and its answer; the socket comes back where that was a 101.
async fn exchange(
    worker: &Rc<Worker>,
    socket: TcpStream,
    refused: Option<AdmissionDecision>,
) -> Result<(Accepted, TcpStream, Box<[u8]>), ConnectOutcome> {
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
        .serve_connection(TokioIo::new(socket), service);
    let served = connection.without_shutdown().await;
    match (served, verdict.take()) {
        (Ok(parts), Some(Ok(accepted))) => {
            // A copy: even an empty slice of hyper's buffer keeps all of it.
            Ok((accepted, parts.io.into_inner(), parts.read_buf.as_ref().into()))
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
        Some(decision) => Err(Refusal::not_admitted(decision, 1 + worker.random_below(5))),
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
    socket: TcpStream,
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
            transport: Transport::Tcp(self.socket),
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
