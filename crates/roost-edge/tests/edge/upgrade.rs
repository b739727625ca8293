//! The opening handshake: what is refused and how, credentials, subprotocols, admission.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use roost_auth::{DEFAULT_AUDIENCE, TokenAuthenticator, TokenKey, mint_device_token};
use roost_edge::EdgeConfig;
use roost_types::{DeviceId, TenantId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Device, Seen, TestEdge, hub, request, soon, upgrade_request};

/// Sends a request that is to be refused; gives its status, head and JSON body.
async fn refused(edge: &TestEdge, text: &str) -> (u16, String, Value) {
    let (mut socket, head, mut body) = request(edge.address(), text).await;
    soon(socket.read_to_end(&mut body)).await.unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn a_request_that_is_no_good_upgrade_is_told_what_would_be() {
    let edge = TestEdge::alone(EdgeConfig::default()).await;
    let good = upgrade_request("/v1/connect?device=d", "");
    for (from, to, status, header, code) in [
        ("GET", "POST", 405, "allow: get", "PROTOCOL_ERROR"),
        ("HTTP/1.1", "HTTP/1.0", 400, "", "PROTOCOL_ERROR"),
        ("host: hub\r\n", "", 400, "", "PROTOCOL_ERROR"),
        ("host: hub\r\n", "host: a\r\nhost: b\r\n", 400, "", "PROTOCOL_ERROR"),
        ("upgrade: websocket\r\n", "", 400, "upgrade: websocket", "PROTOCOL_ERROR"),
        ("keep-alive, Upgrade", "keep-alive", 400, "upgrade: websocket", "PROTOCOL_ERROR"),
        ("version: 13", "version: 8", 426, "sec-websocket-version: 13", "PROTOCOL_ERROR"),
        ("sec-websocket-version: 13\r\n", "", 426, "sec-websocket-version: 13", "PROTOCOL_ERROR"),
        ("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400, "", "PROTOCOL_ERROR"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 400, "", "PROTOCOL_ERROR"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "not base64 at all!!", 400, "", "PROTOCOL_ERROR"),
        ("host: hub\r\n", "host: hub\r\ncontent-length: 5\r\n", 400, "", "PROTOCOL_ERROR"),
        ("host: hub\r\n", "host: hub\r\ntransfer-encoding: chunked\r\n", 400, "", "PROTOCOL_ERROR"),
        ("/v1/connect", "/v2/connect", 404, "", "NOT_FOUND"),
        ("/v1/connect", "/v1/echo", 404, "", "NOT_FOUND"),
    ] {
        let text = good.replace(from, to);
        assert_ne!(text, good);
        let (found, head, body) = refused(&edge, &text).await;
        assert_eq!(found, status, "{from} -> {to}: {head}");
        assert!(head.contains(header), "{from} -> {to}: {head}");
        assert_eq!(body["code"], code, "{from} -> {to}");
        assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()));
    }
    let (found, ..) = refused(&edge, "garbage\r\n\r\n").await;
    assert_eq!(found, 400);
    let bad = "roost_ws_connects_total{outcome=\"bad_request\"}";
    edge.until_metric(bad, 14.0).await;
    assert_eq!(edge.telemetry.value("roost_ws_connects_total{outcome=\"not_found\"}"), Some(2.0));
    assert_eq!(edge.handle.edge().connections(), 0);
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let edge = TestEdge::alone(EdgeConfig::default()).await;
    let many = "x: 1\r\n".repeat(100);
    let long = format!("x: {}\r\n", "y".repeat(64 << 10));
    for headers in [many, long] {
        let text = upgrade_request("/v1/connect?device=d", &headers);
        let mut socket = TcpStream::connect(edge.address()).await.unwrap();
        // The hub may close before it has read all of it.
        socket.write_all(text.as_bytes()).await.ok();
        let mut answer = Vec::new();
        soon(socket.read_to_end(&mut answer)).await.ok();
        assert!(!answer.starts_with(b"HTTP/1.1 101"));
    }
}

#[tokio::test]
async fn subprotocols_are_chosen_and_credentials_among_them_never_echoed() {
    let edge = TestEdge::alone(EdgeConfig::default()).await;
    let ask = |list: &str| {
        let headers = format!("sec-websocket-protocol: {list}\r\n");
        upgrade_request("/v1/connect?device=d", &headers)
    };
    let (_, head, _) = request(edge.address(), &ask("mqtt, roost.v1.json, roost.bearer.YQ")).await;
    assert!(head.contains("sec-websocket-protocol: roost.v1.json\r\n"), "{head}");
    let (_, head, _) = request(edge.address(), &ask("roost.bearer.YQ")).await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(!head.contains("sec-websocket-protocol"), "{head}");
    let (status, _, body) = refused(&edge, &ask("mqtt, soap")).await;
    assert_eq!(status, 400);
    assert!(body["message"].as_str().unwrap().contains("roost.v1.json"), "{body}");
}

#[tokio::test]
async fn only_pages_of_known_origins_connect() {
    let allowed_origins = Some(vec!["https://app.example".to_owned()]);
    let edge = TestEdge::alone(EdgeConfig { allowed_origins, ..EdgeConfig::default() }).await;
    let with =
        |origin: &str| upgrade_request("/v1/connect?device=d", &format!("origin: {origin}\r\n"));
    let (status, _, body) = refused(&edge, &with("https://evil.example")).await;
    assert_eq!((status, &body["code"]), (403, &json!("PERMISSION_DENIED")));
    let (_, head, _) = request(edge.address(), &with("https://app.example")).await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    edge.device("no-browser").await;
}

struct Tokens(TokenKey);

impl Tokens {
    async fn edge() -> (Self, TestEdge) {
        let key = TokenKey::generate();
        let authenticator = Arc::new(TokenAuthenticator::new(&key, DEFAULT_AUDIENCE));
        let edge = TestEdge::start_with(&hub(), "edge", EdgeConfig::default(), authenticator).await;
        (Self(key), edge)
    }

    fn mint(&self, edge: &TestEdge, device: &str, ttl: Duration) -> String {
        let (device, tenant) = (DeviceId::new(device).unwrap(), TenantId::default());
        mint_device_token(&self.0, &device, &tenant, DEFAULT_AUDIENCE, ttl, edge.store.clock.now())
    }
}

#[tokio::test]
async fn a_token_comes_by_header_subprotocol_or_hello() {
    let (tokens, edge) = Tokens::edge().await;
    let token = tokens.mint(&edge, "d", Duration::from_secs(60));
    let header = format!("authorization: Bearer {token}\r\n");
    let mut device = Device::open_with(edge.address(), "/v1/connect", &header).await;
    assert_eq!(device.hello(json!({})).await["device_id"], "d");

    let offer = URL_SAFE_NO_PAD.encode(&token);
    let header = format!("sec-websocket-protocol: roost.v1.json, roost.bearer.{offer}\r\n");
    let mut device = Device::open_with(edge.address(), "/v1/connect", &header).await;
    assert_eq!(device.hello(json!({})).await["device_id"], "d");

    let mut device = Device::open(edge.address(), "/v1/connect?device=somebody-else").await;
    assert_eq!(device.hello(json!({"token": token})).await["device_id"], "d");

    // `?hello=auto` stands for a hello.
    let header = format!("authorization: Bearer {token}\r\n");
    let mut device = Device::open_with(edge.address(), "/v1/connect?hello=auto", &header).await;
    assert_eq!(device.expect("welcome").await["device_id"], "d");
}

#[tokio::test]
async fn a_bad_credential_is_told_where_it_can_be_seen() {
    let (tokens, edge) = Tokens::edge().await;
    let foreign = TokenKey::generate();
    let (d, tenant, now) =
        (DeviceId::new("d").unwrap(), TenantId::default(), edge.store.clock.now());
    let forged =
        mint_device_token(&foreign, &d, &tenant, DEFAULT_AUDIENCE, Duration::from_secs(60), now);
    let text = upgrade_request("/v1/connect", &format!("authorization: Bearer {forged}\r\n"));
    let (status, head, body) = refused(&edge, &text).await;
    assert_eq!((status, &body["code"]), (401, &json!("CREDENTIAL_INVALID")));
    assert!(head.contains("www-authenticate: bearer"), "{head}");

    let offer = URL_SAFE_NO_PAD.encode(&forged);
    let header = format!("sec-websocket-protocol: roost.v1.json, roost.bearer.{offer}\r\n");
    let mut device = Device::open_with(edge.address(), "/v1/connect", &header).await;
    device.expect_end("CREDENTIAL_INVALID", 4401).await;

    let mut device = Device::open(edge.address(), "/v1/connect").await;
    device.send(json!({"type": "hello"})).await;
    device.expect_end("CREDENTIAL_MISSING", 4401).await;

    let past = mint_device_token(
        &tokens.0,
        &d,
        &tenant,
        DEFAULT_AUDIENCE,
        Duration::ZERO,
        now.minus(Duration::from_secs(600)),
    );
    let mut device = Device::open(edge.address(), "/v1/connect").await;
    device.send(json!({"type": "hello", "token": past})).await;
    device.expect_end("CREDENTIAL_EXPIRED", 4401).await;
}

#[tokio::test]
async fn what_came_with_the_handshake_is_read() {
    let edge = TestEdge::alone(EdgeConfig::default()).await;
    let mut text = upgrade_request("/v1/connect?device=d", "").into_bytes();
    let hello = roost_wire::ws::encode_masked(
        roost_wire::ws::Opcode::Text,
        br#"[{"type":"hello"},{"type":"ping","id":9}]"#,
        [1, 2, 3, 4],
    );
    text.extend_from_slice(&hello);
    let mut socket = TcpStream::connect(edge.address()).await.unwrap();
    socket.write_all(&text).await.unwrap();
    let mut device = Device::on(socket, Vec::new());
    device.skip_head().await;
    device.expect("welcome").await;
    assert_eq!(device.expect("pong").await["id"], 9);
}

#[tokio::test]
async fn a_handshake_one_byte_at_a_time_is_given_up() {
    let mut config = EdgeConfig::default();
    config.timeouts.handshake = Duration::from_millis(300);
    let edge = TestEdge::alone(config).await;
    let mut socket = TcpStream::connect(edge.address()).await.unwrap();
    let ended = soon(async {
        // Never whole, however long it goes on.
        let head = b"GET /v1/connect?device=d HTTP/1.1\r\nhost: hub\r\nx: ";
        for byte in head.iter().chain(b"y".iter().cycle()) {
            if socket.write_all(&[*byte]).await.is_err() {
                return;
            }
            let closed = tokio::time::timeout(Duration::from_millis(20), socket.read_u8()).await;
            if closed.is_ok() {
                return;
            }
        }
    });
    ended.await;
    edge.until_metric("roost_ws_connects_total{outcome=\"timeout\"}", 1.0).await;
}

#[tokio::test]
async fn there_is_room_for_so_many_and_no_more() {
    let mut config = EdgeConfig { max_connections: 2, ..EdgeConfig::default() };
    config.pre_auth.per_address = 1;
    let edge = TestEdge::alone(config).await;
    let text = upgrade_request("/v1/connect", "");
    let unproven = Device::open(edge.address(), "/v1/connect").await;
    let (status, head, body) = refused(&edge, &text).await;
    assert_eq!((status, &body["code"]), (503, &json!("RATE_LIMITED")));
    assert!(head.contains("retry-after: "), "{head}");
    drop(unproven);
    edge.until_metric("roost_ws_connections{protocol=\"json\"}", 0.0).await;

    let (mut one, _two) = (edge.device("one").await, edge.device("two").await);
    let (status, head, body) = refused(&edge, &text).await;
    assert_eq!((status, &body["code"]), (503, &json!("OVERLOADED")));
    assert!(head.contains("retry-after: "), "{head}");
    one.expect_alive().await;
    drop(one);
    edge.until_metric("roost_ws_connections{protocol=\"json\"}", 1.0).await;
    edge.device("three").await;
    assert_eq!(edge.telemetry.value("roost_admission_total{decision=\"capacity\"}"), Some(1.0));
    assert_eq!(edge.telemetry.value("roost_admission_total{decision=\"per_address\"}"), Some(1.0));
}

#[tokio::test]
async fn echo_gives_back_what_came_however_it_came() {
    use roost_wire::ws::{FrameHead, Opcode};
    let edge = TestEdge::alone(EdgeConfig { enable_echo: true, ..EdgeConfig::default() }).await;
    let mut device = Device::open(edge.address(), "/v1/echo").await.plain();
    device.text("größe").await;
    assert_eq!(device.seen().await, Seen::Data(Opcode::Text, "größe".into()));
    device.frame(Opcode::Binary, &[0, 255]).await;
    assert_eq!(device.seen().await, Seen::Data(Opcode::Binary, vec![0, 255]));
    device.frame(Opcode::Ping, b"p").await;
    assert_eq!(device.seen().await, Seen::Pong(b"p".to_vec()));

    let mut fragments = bytes::BytesMut::new();
    for n in 0..70_000u32 {
        let opcode = if n == 0 { Opcode::Binary } else { Opcode::Continuation };
        let head = FrameHead { fin: n == 69_999, rsv1: false, opcode, mask: Some([1, 2, 3, 4]) };
        head.write_frame(&n.to_be_bytes(), &mut fragments);
    }
    device.raw(&fragments).await;
    let whole: Vec<u8> = (0..70_000u32).flat_map(u32::to_be_bytes).collect();
    assert!(device.seen().await == Seen::Data(Opcode::Binary, whole));

    let big = vec![7; 16 << 20];
    device.frame(Opcode::Binary, &big).await;
    assert!(device.seen().await == Seen::Data(Opcode::Binary, big));
    let too_big = FrameHead { mask: Some([0; 4]), ..FrameHead::server(Opcode::Binary) };
    let mut head = bytes::BytesMut::new();
    too_big.write((16 << 20) + 1, &mut head);
    device.raw(&head).await;
    device.expect_close(1009).await;
}

#[tokio::test]
async fn a_worker_with_too_many_handshakes_says_so_without_reading() {
    let mut config = EdgeConfig::default();
    config.pre_auth.per_worker = 0;
    let edge = TestEdge::alone(config).await;
    let mut socket = TcpStream::connect(edge.address()).await.unwrap();
    let mut answer = Vec::new();
    soon(socket.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "), "{answer}");
    edge.until_metric("roost_ws_connects_total{outcome=\"capacity\"}", 1.0).await;
}

#[tokio::test]
async fn who_has_not_proven_who_it_is_may_send_little_until_it_has() {
    let (_, edge) = Tokens::edge().await;
    let hello = format!(r#"{{"type":"hello","x":"{}"}}"#, "y".repeat(20_000));
    let mut nobody = Device::open(edge.address(), "/v1/connect").await;
    nobody.text(&hello).await;
    nobody.expect_end("MESSAGE_TOO_BIG", 1009).await;
}

#[tokio::test]
async fn what_follows_a_hello_at_once_has_the_limits_of_a_session() {
    let (tokens, edge) = Tokens::edge().await;
    let mut device = Device::open(edge.address(), "/v1/connect").await;
    let text = "z".repeat(40_000);
    let token = tokens.mint(&edge, "d", Duration::from_secs(60));
    let messages = [
        json!({"type": "hello", "token": token, "subscriptions": [{"topic": "t"}]}),
        json!({"type": "publish", "topic": "t", "text": text}),
        json!({"type": "ping", "id": 7}),
    ];
    let frames = messages.iter().map(|message| {
        let text = message.to_string();
        roost_wire::ws::encode_masked(roost_wire::ws::Opcode::Text, text.as_bytes(), [3; 4])
    });
    let all: Vec<u8> = frames.flatten().collect();
    device.raw(&all).await;
    device.expect("welcome").await;
    let (first, second) = (device.json().await, device.json().await);
    let mut kinds = [first["type"].as_str().unwrap(), second["type"].as_str().unwrap()];
    kinds.sort_unstable();
    assert_eq!(kinds, ["message", "pong"]);
}
