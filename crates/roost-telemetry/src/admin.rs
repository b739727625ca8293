//! The admin HTTP server: `/livez`, `/readyz`, `/metrics`, `/log-level`. What they report is decided in
//! `health.rs`, `metrics/` and `log_level.rs`; this file only speaks HTTP/1. It stops last, so that a
//! draining node can be watched to its end.
//!
//! The port asks nobody who they are, so what can be changed here is changed from the node's own
//! machine only: over loopback, which in Kubernetes is `kubectl port-forward` and who may do that.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
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

use crate::health::{Check, Health, Status};
use crate::{LogControl, Telemetry};

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

/// The most bytes of a log level: a list that names every crate has some hundred.
const MAX_LEVEL: usize = 1_024;
/// How long a log level holds where the request does not say.
const LEVEL_HOLDS: Duration = Duration::from_secs(10 * 60);
/// How long it may hold at the most: what is to stay belongs into the configuration.
const LEVEL_HOLDS_AT_MOST: Duration = Duration::from_secs(24 * 3600);

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
            _ = upkeep.tick() => admin.upkeep(),
            // Reap the ended connections, which makes room.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                match accepted {
                    Ok((stream, peer)) => {
                        let admin = Arc::clone(&admin);
                        connections.spawn(serve_connection(stream, peer, admin, stop.clone()));
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

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    admin: Arc<Admin>,
    stop: CancellationToken,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(admin.answer(request, peer).await) }
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
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            "/livez" if reads => self.livez(),
            "/readyz" if reads => self.readyz(),
            "/metrics" if reads => respond(StatusCode::OK, METRICS, self.telemetry.render()),
            "/livez" | "/readyz" | "/metrics" => not_allowed("GET, HEAD"),
            "/log-level" => self.log_level(request, peer).await,
            _ => {
                let body = "not found: this port serves /livez, /readyz, /metrics and /log-level\n";
                respond(StatusCode::NOT_FOUND, TEXT, body)
            }
        }
    }

    fn upkeep(&self) {
        self.telemetry.run_upkeep();
        if let Some(log) = &self.telemetry.log {
            log.expire();
        }
    }

    /// `GET` shows the level, `PUT` changes it for a while, `DELETE` goes back to the configured one.
    async fn log_level(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let Some(log) = &self.telemetry.log else {
            let body = "the log of this process is not set up by the hub\n";
            return respond(StatusCode::NOT_FOUND, TEXT, body);
        };
        let changes = matches!(*request.method(), Method::PUT | Method::DELETE);
        if changes && !peer.ip().to_canonical().is_loopback() {
            let body = "the log level is changed over loopback only: on the node itself, or by \
                        kubectl port-forward\n";
            return respond(StatusCode::FORBIDDEN, TEXT, body);
        }
        match *request.method() {
            Method::GET | Method::HEAD => {}
            Method::DELETE => log.reset(),
            Method::PUT => {
                if let Err(problem) = set_level(log, request).await {
                    return respond(StatusCode::BAD_REQUEST, TEXT, format!("{problem}\n"));
                }
            }
            _ => return not_allowed("GET, HEAD, PUT, DELETE"),
        }
        let body = serde_json::to_vec(&log.level()).expect("strings and numbers are always JSON");
        respond(StatusCode::OK, JSON, body)
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

/// Takes `PUT /log-level?for=10m` with the level as its body.
async fn set_level(log: &LogControl, request: Request<Incoming>) -> Result<(), String> {
    let lasts = holds_for(request.uri().query().unwrap_or_default())?;
    let body = Limited::new(request.into_body(), MAX_LEVEL).collect().await;
    let body = body.map_err(|_| {
        format!("the body is to be a log level, such as `debug`, of at most {MAX_LEVEL} bytes")
    })?;
    let body = body.to_bytes();
    let level = std::str::from_utf8(&body).map_err(|_| "the log level is not UTF-8".to_owned())?;
    log.set(level.trim(), lasts).map_err(|error| error.to_string())
}

/// Reads `for=90s`, `for=10m` or `for=2h`; nothing is the default.
fn holds_for(query: &str) -> Result<Duration, String> {
    if query.is_empty() {
        return Ok(LEVEL_HOLDS);
    }
    let read = || {
        let text = query.strip_prefix("for=")?;
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return None,
        };
        let number: u64 = number.parse().ok()?;
        Some(Duration::from_secs(number.checked_mul(seconds)?))
    };
    read().filter(|lasts| !lasts.is_zero() && *lasts <= LEVEL_HOLDS_AT_MOST).ok_or_else(|| {
        format!("{query:?} is not right: say for how long, from ?for=1s over ?for=10m to ?for=24h")
    })
}

fn not_allowed(allowed: &'static str) -> Response<Full<Bytes>> {
    let body = format!("method not allowed: use one of {allowed}\n");
    let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, body);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
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
