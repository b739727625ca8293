//! What an idle device costs in this process: a socket, a session, one subscription of its own.
//! In a test binary of its own, since it looks at the memory of the whole process; the devices are
//! bare sockets, which have next to none. `roost bench idle` measures the real thing.
#![allow(clippy::unwrap_used, reason = "a failed set-up step should fail the test")]

#[path = "edge/support.rs"]
#[allow(dead_code, reason = "shared with another test binary, which uses the rest")]
mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use roost_edge::EdgeConfig;
use roost_wire::ws::{Opcode, encode_masked};
use rustix::process::{Resource, getrlimit, setrlimit};

use support::{TestEdge, upgrade_request};

/// Each is two sockets in this process.
const DEVICES: usize = 1_500;
const BEFORE: usize = 500;
/// The aim is 2.5 KiB in a release build with its allocator; here nothing is optimized, and the
/// store, which keeps its records in this process, is counted too.
const MOST: usize = 5 << 10;

/// Allows this process as many sockets as the system lets it.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let most = limit.current.unwrap_or(u64::MAX);
    assert!(most > 4_200, "this test needs 4,200 open files and may have {most}: ulimit -Hn");
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// A device that has had its welcome, as a bare socket.
fn connect(address: std::net::SocketAddr, n: usize) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    let mut request = upgrade_request(&format!("/v1/connect?device=d{n}"), "").into_bytes();
    let hello = format!(r#"{{"type":"hello","subscriptions":[{{"topic":"device/{n}"}}]}}"#);
    request.extend_from_slice(&encode_masked(Opcode::Text, hello.as_bytes(), [1, 2, 3, 4]));
    socket.write_all(&request).unwrap();
    let mut seen = Vec::new();
    let mut some = [0; 1024];
    while !seen.windows(7).any(|seven| seven == b"welcome") {
        let count = socket.read(&mut some).unwrap();
        assert_ne!(count, 0, "the hub stays");
        seen.extend_from_slice(&some[..count]);
    }
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_device_is_small() {
    raise_file_limit();
    let edge = TestEdge::alone(EdgeConfig::default()).await;
    let address = edge.address();
    let (_devices, each) = tokio::task::spawn_blocking(move || {
        let mut devices: Vec<_> = (0..BEFORE).map(|n| connect(address, n)).collect();
        let before = resident();
        devices.extend((BEFORE..BEFORE + DEVICES).map(|n| connect(address, n)));
        (devices, resident().saturating_sub(before) / DEVICES)
    })
    .await
    .unwrap();
    edge.until_metric("roost_sessions{state=\"live\"}", 2_000.0).await;
    assert!(each < MOST, "{each} bytes per idle device");
}
