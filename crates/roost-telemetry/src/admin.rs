//! The admin HTTP server: `/livez`, `/readyz`, `/metrics`. What they report is decided in
//! `health.rs` and `metrics/`; this file only speaks HTTP/1. It stops last, so that a draining node
//! can be watched to its end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::Telemetry;
use crate::health::{Check, Health, Status};

/// Connections served at once; probes and scrapers need a handful. More wait in the accept queue.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to send a request's head; idle keep-alive connections end by it too.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often histograms are folded: at 20,000 observations a second that is 100,000 numbers kept.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);
/// How long answers under way may take after the stop signal.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// Pause after a failed accept (no descriptors left, say), which would else repeat at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Prometheus' text format; it asks for the version.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What requests are answered from.
struct Admin {
    telemetry: Telemetry,
    health: Arc<dyn Health>,
}

/// The body of `/readyz`.
#[derive(Serialize)]
struct Readiness {
    status: Status,
    checks: Vec<Check>,
}

/// Serves the admin endpoints on a bound listener until `shutdown` completes, then lets answers
/// under way finish for up to a second. Also keeps the telemetry's histograms folded.
///
/// Cancel safe: dropping the future closes the listener and every connection.
pub async fn serve_admin(
    listener: TcpListener,
    telemetry: Telemetry,
    health: Arc<dyn Health>,
    shutdown: impl Future<Output = ()>,
) {
    let admin = Arc::new(Admin { telemetry, health });
    let stop = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut upkeep = tokio::time::interval(UPKEEP_PERIOD);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            // First, so that a stop is never delayed by traffic.
            () = &mut shutdown => break,
            // Before accepting, so that a flood of scrapes cannot hold it off.
            _ = upkeep.tick() => admin.telemetry.run_upkeep(),
            // Reap the ended connections, which makes room.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(serve_connection(stream, Arc::clone(&admin), stop.clone()));
                    }
                    Err(error) => accept_failed(&error).await,
                }
            }
        }
    }
    drop(listener);
    stop.cancel();
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_GRACE, finish).await.is_err() {
        debug!("cut admin connections that were still open after the stop");
    }
}

async fn accept_failed(error: &io::Error) {
    warn!(%error, "could not accept an admin connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn serve_connection(stream: TcpStream, admin: Arc<Admin>, stop: CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = admin.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(16 * 1024);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        biased;
        // Usual end: the client closed, or sent nothing for too long.
        result = connection.as_mut() => result,
        // Stop: finish the answer under way, take no further request.
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(%error, "an admin connection ended early");
    }
}

// === impl Admin ===

impl Admin {
    /// The answer to one request. hyper leaves the body out for HEAD, with its length kept.
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(path, "/livez" | "/readyz" | "/metrics") {
            let body = "not found: this port serves /livez, /readyz and /metrics\n";
            return respond(StatusCode::NOT_FOUND, TEXT, body);
        }
        if method != Method::GET && method != Method::HEAD {
            let body = "method not allowed: use GET or HEAD\n";
            let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, body);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/livez" => self.livez(),
            "/readyz" => self.readyz(),
            _ => respond(StatusCode::OK, METRICS, self.telemetry.render()),
        }
    }

    fn livez(&self) -> Response<Full<Bytes>> {
        match self.health.live() {
            Ok(()) => respond(StatusCode::OK, TEXT, "ok\n"),
            Err(reason) => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
        }
    }

    fn readyz(&self) -> Response<Full<Bytes>> {
        let checks = self.health.checks();
        let status = checks.iter().map(|check| check.status).max().unwrap_or(Status::Ready);
        let code = match status {
            Status::Ready | Status::Degraded => StatusCode::OK,
            Status::Unready => StatusCode::SERVICE_UNAVAILABLE,
        };
        let body = serde_json::to_vec(&Readiness { status, checks })
            .expect("strings and enums are always JSON");
        respond(code, JSON, body)
    }
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
