//! Bad input, each kind with its documented close code, error or HTTP status, while 50 neighbours on
//! the same node go on answering commands. Here: messages and frames, and the scene for all.

mod bounds;
mod entering;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use roost_proto::control::v1::CommandState;
use roost_testkit::backend::command;
use roost_testkit::fleet::Fleet;
use roost_testkit::keys::Keys;
use roost_testkit::process::{HubProcess, NodeOptions};
use roost_testkit::raw::{RawSocket, Seen, fragment, frame};
use roost_wire::ws::{FrameHead, Opcode};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

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
