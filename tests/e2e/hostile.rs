//! Bad input, each kind with its documented close code, error or HTTP status, while 50 neighbours on
//! the same node go on answering commands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use roost_proto::control::v1::CommandState;
use roost_testkit::backend::command;
use roost_testkit::eventually;
use roost_testkit::fleet::Fleet;
use roost_testkit::keys::Keys;
use roost_testkit::process::{HubProcess, NodeOptions};
use roost_testkit::raw::{RawSocket, Seen, fragment, frame, upgrade_request};
use roost_wire::ws::{FrameHead, Opcode};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How many devices answer commands meanwhile.
const NEIGHBOURS: usize = 50;

/// A hub, and neighbours that are sent command after command.
struct Scene {
    hub: HubProcess,
    keys: Arc<Keys>,
    fleet: Fleet,
    stop: oneshot::Sender<()>,
    commands: JoinSet<usize>,
}

// === impl Scene ===

impl Scene {
    async fn start() -> Self {
        let keys = Arc::new(Keys::generate());
        let hub = HubProcess::start(&keys, &NodeOptions::default());
        let target = hub.target(&keys);
        let fleet = target.fleet("neighbour", NEIGHBOURS).await;
        let backend = target.backend().await;
        let (stop, mut stopped) = oneshot::channel();
        let mut commands = JoinSet::new();
        commands.spawn(async move {
            let mut sent = 0;
            loop {
                // At least once each, and on for as long as the test runs.
                let everybody_was_asked = sent >= NEIGHBOURS;
                if everybody_was_asked && stopped.try_recv().is_ok() {
                    return sent;
                }
                let name = format!("neighbour-{}", sent % NEIGHBOURS);
                let done = backend.run(command(&name, "hello")).await;
                assert_eq!(done.state(), CommandState::Succeeded);
                sent += 1;
                if everybody_was_asked {
                    // Not to take the machine from what is tested.
                    sleep(Duration::from_millis(5)).await;
                }
            }
        });
        Self { hub, keys, fleet, stop, commands }
    }

    fn edge(&self) -> SocketAddr {
        self.hub.edge_address()
    }

    async fn welcomed(&self) -> RawSocket {
        RawSocket::welcomed(self.edge(), &self.keys.token("bad")).await
    }

    /// Sends bytes on a welcomed connection and sees it end.
    async fn ends(&self, bytes: &[u8], error: &str, close: u16) {
        let mut socket = self.welcomed().await;
        socket.send(bytes).await;
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        assert_eq!(socket.end().await, (vec![error.to_owned()], close), "after {shown:?}");
    }

    /// Ends the test: the neighbours noticed nothing.
    async fn end(mut self) {
        self.stop.send(()).unwrap();
        let sent = self.commands.join_next().await.unwrap().unwrap();
        assert!(sent >= NEIGHBOURS);
        assert_eq!(self.fleet.ends(), []);
        assert!(self.fleet.answered() >= sent);
    }
}

/// A token with these claims, signed as the hub's own are.
fn signed(keys: &Keys, claims: &Value) -> String {
    let key = EncodingKey::from_secret(keys.token_key().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_messages() {
    let scene = Scene::start().await;
    for text in ["{", "nul", "", "\"hello\"", "17", "[[]]"] {
        scene.ends(&frame(Opcode::Text, text.as_bytes()), "BAD_MESSAGE", 4400).await;
    }
    scene.ends(&frame(Opcode::Binary, b"{}"), "UNSUPPORTED_DATA", 1003).await;
    let mut socket = scene.welcomed().await;
    let long = "x/".repeat(300) + "x";
    for (text, code) in [
        (r#"{"id":1,"type":"teleport"}"#.to_owned(), "UNKNOWN_TYPE"),
        (r#"{"id":1}"#.to_owned(), "FIELD_MISSING"),
        (r#"{"id":1,"type":"publish","payload":1}"#.to_owned(), "FIELD_MISSING"),
        (r#"{"id":1,"type":"publish","topic":"t"}"#.to_owned(), "FIELD_MISSING"),
        (r#"{"id":1,"type":"publish","topic":7,"payload":1}"#.to_owned(), "FIELD_INVALID"),
        (r#"{"id":1,"type":"publish","topic":"a//b","payload":1}"#.to_owned(), "TOPIC_INVALID"),
        (r#"{"id":1,"type":"publish","topic":"a/+","payload":1}"#.to_owned(), "TOPIC_INVALID"),
        (r#"{"id":1,"type":"subscribe","topic":"a/#/b"}"#.to_owned(), "TOPIC_INVALID"),
        (format!(r#"{{"id":1,"type":"subscribe","topic":"{long}"}}"#), "TOPIC_INVALID"),
        (r#"{"id":1,"type":"publish","topic":"$x","payload":1}"#.to_owned(), "PERMISSION_DENIED"),
        (
            r#"{"id":1,"type":"result","command_id":"a b","status":"failed"}"#.to_owned(),
            "ID_INVALID",
        ),
        (
            r#"{"id":1,"type":"publish","topic":"t","payload":1,"qos":1}"#.to_owned(),
            "QOS_UNSUPPORTED",
        ),
        (r#"{"id":1,"type":"hello"}"#.to_owned(), "HELLO_REPEATED"),
    ] {
        socket.text(&text).await;
        let Seen::Json(error) = socket.seen().await else { panic!("ended after {text}") };
        assert_eq!(
            (&error["type"], &error["code"]),
            (&"error".into(), &code.into()),
            "{text}: {error}"
        );
        assert_eq!(error["id"], 1, "{text}: {error}");
    }
    // JSON nested 10,000 deep: in a payload, and as the message.
    let (open, shut) = ("[".repeat(10_000), "]".repeat(10_000));
    socket
        .text(&format!(r#"{{"id":1,"type":"publish","topic":"t","payload":{open}{shut}}}"#))
        .await;
    let Seen::Json(error) = socket.seen().await else { panic!("ended after deep JSON") };
    assert_eq!(error["code"], "FIELD_INVALID", "{error}");
    socket.text(r#"{"type":"ping","id":2}"#).await;
    assert!(matches!(socket.seen().await, Seen::Json(pong) if pong["type"] == "pong"));
    scene.ends(&frame(Opcode::Text, format!("{open}{shut}").as_bytes()), "BAD_MESSAGE", 4400).await;
    scene.ends(&frame(Opcode::Text, open.as_bytes()), "BAD_MESSAGE", 4400).await;

    let mut hasty = RawSocket::upgraded(scene.edge(), &scene.keys.token("bad")).await;
    hasty.text(r#"{"type":"ping"}"#).await;
    assert_eq!(hasty.end().await, (vec!["HELLO_EXPECTED".to_owned()], 4400));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_credentials() {
    let scene = Scene::start().await;
    let keys = &scene.keys;
    let exp = 4_000_000_000_u64;
    let good = keys.token("bad");
    let [head, body, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        panic!("no token")
    };
    // {"alg":"none","typ":"JWT"}
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let other = Keys::generate();
    let cases = [
        ("no token at all", String::new(), "CREDENTIAL_MISSING"),
        ("nonsense", "abc".to_owned(), "CREDENTIAL_INVALID"),
        ("expired", keys.expired_token("bad"), "CREDENTIAL_EXPIRED"),
        ("signed by another", other.token("bad"), "CREDENTIAL_INVALID"),
        ("for another hub", keys.token_for_audience("bad", "elsewhere"), "CREDENTIAL_INVALID"),
        ("alg none", format!("{none}.{body}."), "CREDENTIAL_INVALID"),
        ("alg none, signed", format!("{none}.{body}.{signature}"), "CREDENTIAL_INVALID"),
        ("cut", format!("{head}.{body}"), "CREDENTIAL_INVALID"),
        (
            "bad device id",
            signed(keys, &json!({"sub": "a b", "aud": "roost", "exp": exp})),
            "CREDENTIAL_INVALID",
        ),
        (
            "long device id",
            signed(keys, &json!({"sub": "a".repeat(129), "aud": "roost", "exp": exp})),
            "CREDENTIAL_INVALID",
        ),
        ("no device id", signed(keys, &json!({"aud": "roost", "exp": exp})), "CREDENTIAL_INVALID"),
        ("no end", signed(keys, &json!({"sub": "bad", "aud": "roost"})), "CREDENTIAL_INVALID"),
    ];
    for (what, token, code) in &cases {
        // Where every client can see a status: in the header.
        if !token.is_empty() {
            let mut socket = RawSocket::connect(scene.edge()).await;
            socket.send(upgrade_request(token).as_bytes()).await;
            let (status, head) = socket.response().await;
            assert_eq!(status, 401, "{what}: {head}");
        }
        // Where a browser's only way to learn of it is the connection itself.
        let mut socket = RawSocket::connect(scene.edge()).await;
        let request = upgrade_request("").replace("Authorization: Bearer \r\n", "");
        socket.send(request.as_bytes()).await;
        assert_eq!(socket.response().await.0, 101, "{what}");
        let mut hello = json!({"type": "hello"});
        if !token.is_empty() {
            hello["token"] = token.as_str().into();
        }
        socket.text(&hello.to_string()).await;
        assert_eq!(socket.end().await, (vec![(*code).to_owned()], 4401), "{what}");
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_frames() {
    let scene = Scene::start().await;
    let unmasked = FrameHead::server(Opcode::Text).frame(b"{}");
    scene.ends(&unmasked, "PROTOCOL_ERROR", 1002).await;
    for reserved in [0x40, 0x20, 0x10] {
        let mut bytes = frame(Opcode::Text, b"{}");
        bytes[0] |= reserved;
        scene.ends(&bytes, "PROTOCOL_ERROR", 1002).await;
    }
    for opcode in [0x3, 0x7, 0xb, 0xf] {
        scene.ends(&[0x80 | opcode, 0x80, 1, 2, 3, 4], "PROTOCOL_ERROR", 1002).await;
    }
    // A control frame that is too long, and one in fragments.
    scene.ends(&frame(Opcode::Ping, &[b'x'; 126]), "PROTOCOL_ERROR", 1002).await;
    scene.ends(&fragment(false, Opcode::Ping, b"x"), "PROTOCOL_ERROR", 1002).await;
    // A continuation of nothing, and a new message inside another.
    scene.ends(&frame(Opcode::Continuation, b"x"), "PROTOCOL_ERROR", 1002).await;
    let inside = [fragment(false, Opcode::Text, b"{"), frame(Opcode::Text, b"{}")].concat();
    scene.ends(&inside, "PROTOCOL_ERROR", 1002).await;
    // Lengths that are not minimal, or beyond 63 bits.
    scene.ends(&[0x81, 0xfe, 0, 2, 0, 0, 0, 0, b'{', b'}'], "PROTOCOL_ERROR", 1002).await;
    scene.ends(&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], "PROTOCOL_ERROR", 1002).await;
    // A close frame with half a code, and one with a code that is never sent.
    scene.ends(&frame(Opcode::Close, &[3]), "PROTOCOL_ERROR", 1002).await;
    scene.ends(&frame(Opcode::Close, &1005_u16.to_be_bytes()), "PROTOCOL_ERROR", 1002).await;

    scene.ends(&frame(Opcode::Text, b"\"\xff\""), "INVALID_UTF8", 1007).await;
    scene.ends(&frame(Opcode::Text, b"\"\xed\xa0\x80\""), "INVALID_UTF8", 1007).await;
    let split = [
        fragment(false, Opcode::Text, b"\"\xe2\x82"),
        frame(Opcode::Ping, b"between"),
        fragment(true, Opcode::Continuation, b"\x28\""),
    ];
    scene.ends(&split.concat(), "INVALID_UTF8", 1007).await;
    let cut =
        [fragment(false, Opcode::Text, b"\"a"), fragment(true, Opcode::Continuation, b"\xe2\x82")];
    scene.ends(&cut.concat(), "INVALID_UTF8", 1007).await;
    // Good UTF-8 that is split is good.
    let mut socket = scene.welcomed().await;
    let good = "{\"type\":\"ping\",\"note\":\"€\"}".as_bytes();
    let (one, two) = good.split_at(24);
    socket.send(&fragment(false, Opcode::Text, one)).await;
    socket.send(&fragment(true, Opcode::Continuation, two)).await;
    assert!(matches!(socket.seen().await, Seen::Json(pong) if pong["type"] == "pong"));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_fragments_take_no_memory() {
    /// How much the hub may grow, in bytes.
    const GROWTH: u64 = 1_000_000;
    let scene = Scene::start().await;
    // One round of everything first, so that what is allocated once is there.
    flood(&scene, 256 << 10).await;
    trickle(&scene, 1 << 20).await;
    let before = scene.hub.resident();
    flood(&scene, 1 << 30).await;
    let after = scene.hub.resident();
    assert!(after < before + GROWTH, "{before} bytes became {after} by 1 GiB in fragments");
    trickle(&scene, 16 << 20).await;
    let after = scene.hub.resident();
    assert!(after < before + GROWTH, "{before} bytes became {after} by empty fragments");
    scene.end().await;
}

/// Fragments of one message without end, until `total` bytes or the hub's word that it is too much.
async fn flood(scene: &Scene, total: usize) {
    let mut socket = scene.welcomed().await;
    socket.send(&fragment(false, Opcode::Text, b"\"")).await;
    let piece = fragment(false, Opcode::Continuation, &vec![b'x'; 64 << 10]);
    let mut sent = 0;
    while sent < total && socket.try_send(&piece).await.is_ok() {
        sent += piece.len();
    }
    let (errors, close) = socket.end().await;
    // The close frame may be lost with the connection that we go on filling.
    assert!(matches!(close, 1009 | 1006), "{close} {errors:?}");

    // The same without haste shows it.
    let mut socket = scene.welcomed().await;
    socket.send(&fragment(false, Opcode::Text, b"\"")).await;
    for _ in 0..2 {
        socket.send(&piece).await;
    }
    assert_eq!(socket.end().await, (vec!["MESSAGE_TOO_BIG".to_owned()], 1009));
}

/// Empty fragments without end: nothing to keep, and so nothing that grows, whether the hub bears it
/// or not.
async fn trickle(scene: &Scene, total: usize) {
    let mut socket = scene.welcomed().await;
    socket.send(&fragment(false, Opcode::Text, b"")).await;
    let pieces = fragment(false, Opcode::Continuation, b"").repeat(10_000);
    let mut sent = 0;
    while sent < total && socket.try_send(&pieces).await.is_ok() {
        sent += pieces.len();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_handshakes() {
    let scene = Scene::start().await;
    let good = upgrade_request(&scene.keys.token("bad"));
    let without = |name: &str| {
        let lines = good.split_inclusive("\r\n").filter(|line| !line.starts_with(name));
        lines.collect::<String>()
    };
    let cases = [
        ("HTTP/1.0", good.replace("HTTP/1.1", "HTTP/1.0"), 400),
        ("no Host", without("Host"), 400),
        ("wrong path", good.replace("/v1/connect", "/v2/connect"), 404),
        ("no path", good.replace("/v1/connect", "/"), 404),
        ("POST", good.replace("GET ", "POST "), 405),
        ("wrong version", good.replace("Version: 13", "Version: 8"), 426),
        ("no version", without("Sec-WebSocket-Version"), 426),
        ("missing key", without("Sec-WebSocket-Key"), 400),
        ("short key", good.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400),
        ("no Upgrade", without("Upgrade"), 400),
        ("no Connection", without("Connection"), 400),
        (
            "unknown subprotocol",
            good.replace("Host: hub", "Host: hub\r\nSec-WebSocket-Protocol: mqtt"),
            400,
        ),
        ("no echo", good.replace("/v1/connect", "/v1/echo"), 404),
    ];
    for (what, request, expected) in cases {
        let mut socket = RawSocket::connect(scene.edge()).await;
        socket.send(request.as_bytes()).await;
        let (status, head) = socket.response().await;
        assert_eq!(status, expected, "{what}: {head}");
    }
    for (what, request) in [
        ("not HTTP", "\u{16}\u{3}\u{1}\r\n\r\n".to_owned()),
        ("endless head", format!("GET /v1/connect HTTP/1.1\r\nX: {}", "x".repeat(1 << 20))),
    ] {
        let mut socket = RawSocket::connect(scene.edge()).await;
        socket.send(request.as_bytes()).await;
        let (status, head) = socket.response().await;
        assert!(matches!(status, 0 | 400 | 431), "{what}: {status} {head}");
        socket.closed().await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_drips_in_is_closed() {
    /// What is promised, with what a busy machine may take on top.
    const CLOSED_WITHIN: Duration = Duration::from_millis(5_000 + 1_000);
    let scene = Scene::start().await;
    let request = upgrade_request(&scene.keys.token("bad"));
    let began = Instant::now();
    let mut dripping = RawSocket::connect(scene.edge()).await;
    let mut silent = RawSocket::connect(scene.edge()).await;
    for byte in request.as_bytes() {
        if dripping.try_send(&[*byte]).await.is_err() {
            break;
        }
        if timeout(Duration::from_secs(1), dripping.closed()).await.is_ok() {
            break;
        }
    }
    assert!(began.elapsed() < CLOSED_WITHIN, "closed after {:?}", began.elapsed());
    silent.closed().await;
    assert!(began.elapsed() < CLOSED_WITHIN, "closed after {:?}", began.elapsed());
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_never_reads_is_closed_and_what_it_missed_is_counted() {
    let scene = Scene::start().await;
    let target = scene.hub.target(&scene.keys);
    let backend = target.backend().await;
    let admin = scene.hub.admin();
    let mut reader = target.on_a("reader").await;
    reader.subscribe("flood").await.unwrap();
    let mut deaf = scene.welcomed().await;
    deaf.text(r#"{"type":"subscribe","id":1,"topic":"flood"}"#).await;
    assert!(matches!(deaf.seen().await, Seen::Json(ack) if ack["type"] == "ack"));

    let payload = format!("\"{}\"", "x".repeat(60_000));
    let mut slow = 0.0;
    while slow == 0.0 {
        for _ in 0..20 {
            backend.publish("flood", &payload).await;
            assert_eq!(reader.message().await.payload.len(), payload.len());
        }
        slow = admin.metrics().await.sum("roost_slow_consumers_total", &[]);
    }
    let ended = async || {
        let metrics = admin.metrics().await;
        let closed = metrics.sum("roost_ws_disconnects_total", &["slow_consumer"]);
        (closed == 1.0 && metrics.sum("roost_messages_dropped_total", &[]) >= 1.0).then_some(())
    };
    // At the latest 30 s after the queue was first not empty, and a margin.
    eventually("the device is closed", Duration::from_secs(40), ended).await;
    scene.end().await;
}
