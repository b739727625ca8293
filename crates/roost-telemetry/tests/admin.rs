//! The admin server over a real socket: status codes, bodies, content types, and its stop.

#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use roost_telemetry::{HealthRegistry, LogFormat, Status, Telemetry, serve_admin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

struct Admin {
    address: SocketAddr,
    health: HealthRegistry,
    stop: oneshot::Sender<()>,
    tasks: JoinSet<()>,
}

async fn start() -> Admin {
    start_with(Telemetry::new("1.2.3")).await
}

async fn start_with(telemetry: Telemetry) -> Admin {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let health = HealthRegistry::new();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut tasks = JoinSet::new();
    let shutdown = async move { drop(stopped.await) };
    tasks.spawn(serve_admin(listener, telemetry, Arc::new(health.clone()), shutdown));
    Admin { address, health, stop, tasks }
}

/// The whole answer to one request, as text.
async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn readiness_names_each_check_and_is_as_good_as_the_worst() {
    let admin = start().await;
    let edge = admin.health.check("edge");
    let redis = admin.health.check("redis");
    let answer = ask(admin.address, "GET", "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("content-type: application/json\r\n"), "{answer}");

    edge.ready();
    redis.ready();
    let answer = ask(admin.address, "GET", "/readyz?verbose").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(
        body(&answer),
        r#"{"status":"ready","checks":[{"name":"edge","status":"ready","detail":"ok"},{"name":"redis","status":"ready","detail":"ok"}]}"#
    );

    redis.set(Status::Degraded, "no answer for 3 s");
    let answer = ask(admin.address, "GET", "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(body(&answer).starts_with(r#"{"status":"degraded","#), "{answer}");
    assert!(body(&answer).contains(r#""detail":"no answer for 3 s""#), "{answer}");

    drop(edge);
    let answer = ask(admin.address, "GET", "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(body(&answer).starts_with(r#"{"status":"unready","#), "{answer}");
}

#[tokio::test]
async fn liveness_does_not_depend_on_readiness() {
    let admin = start().await;
    let _edge = admin.health.check("edge");
    let answer = ask(admin.address, "GET", "/livez").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(body(&answer), "ok\n");

    // Zero is exceeded once the clock shows another millisecond.
    let _stuck = admin.health.heartbeat("edge-worker-0", Duration::ZERO);
    tokio::time::sleep(Duration::from_millis(2)).await;
    let answer = ask(admin.address, "GET", "/livez").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(body(&answer).contains("edge-worker-0"), "{answer}");
}

#[tokio::test]
async fn metrics_come_in_the_text_format() {
    let admin = start().await;
    let answer = ask(admin.address, "GET", "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    for line in ["roost_build_info{version=\"1.2.3\"} 1\n", "\nroost_process_open_fds "] {
        assert!(body(&answer).contains(line), "{line} in {answer}");
    }
}

#[tokio::test]
async fn other_requests_are_told_what_is_right() {
    let admin = start().await;
    let answer = ask(admin.address, "GET", "/health").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(body(&answer).contains("/livez, /readyz, /metrics and /log-level"), "{answer}");

    let answer = ask(admin.address, "POST", "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");

    let answer = ask(admin.address, "HEAD", "/livez").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("content-length: 3\r\n"),
        "{answer}"
    );
    assert_eq!(body(&answer), "");
}

#[tokio::test]
async fn a_stop_ends_the_server_although_a_client_stays_connected() {
    let mut admin = start().await;
    let mut idle = TcpStream::connect(admin.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");

    admin.stop.send(()).unwrap();
    admin.tasks.join_next().await.unwrap().unwrap();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(TcpStream::connect(admin.address).await.is_err(), "the listener is closed");
}

/// One request with a body; the whole answer.
async fn tell(address: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let head = format!("Host: x\r\nConnection: close\r\nContent-Length: {length}");
    let request = format!("{method} {path} HTTP/1.1\r\n{head}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_log_level_is_changed_for_a_while() {
    let made = roost_telemetry::subscriber(LogFormat::Json, "info", false, std::io::sink);
    // Kept: the level of a subscriber that is gone cannot be changed.
    let (_subscriber, log) = made.unwrap();
    let admin = start_with(Telemetry::new("0").with_log(Some(log))).await;
    let answer = ask(admin.address, "GET", "/log-level").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let configured = r#"{"level":"info","configured":"info","seconds_left":null}"#;
    assert_eq!(body(&answer), configured);

    let answer = tell(admin.address, "PUT", "/log-level?for=2h", "info,roost_edge=debug\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let shown: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(shown["level"], "info,roost_edge=debug");
    assert!((7_000..=7_200).contains(&shown["seconds_left"].as_u64().unwrap()), "{answer}");

    for (path, level) in [
        ("/log-level", "loud"),
        ("/log-level?for=0s", "debug"),
        ("/log-level?for=25h", "debug"),
        ("/log-level?for=10", "debug"),
        ("/log-level?until=10m", "debug"),
        ("/log-level", &"debug,".repeat(1_000)),
    ] {
        let answer = tell(admin.address, "PUT", path, level).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path} {level}: {answer}");
    }
    let answer = ask(admin.address, "DELETE", "/log-level").await;
    assert_eq!(body(&answer), configured);
    let answer = tell(admin.address, "POST", "/log-level", "debug").await;
    assert!(answer.contains("allow: GET, HEAD, PUT, DELETE\r\n"), "{answer}");
}

#[tokio::test]
async fn without_a_log_there_is_no_level() {
    let admin = start().await;
    let answer = ask(admin.address, "GET", "/log-level").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}
