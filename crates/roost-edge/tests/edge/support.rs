//! A hub of edges on one embedded store, and a device that shows every byte it sends and gets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use roost_auth::{DeviceAuthenticator, InsecureAuthenticator};
use roost_cluster::{
    Enqueued, HubClock, LastClose, Lease, MemoryHub, NodeEvent, NodeInfo, NodeRef, Offer, Roles,
    Store, StoreSettings, Switchboard,
};
use roost_edge::{Edge, EdgeConfig, EdgeHandle, EdgeParts, bind_workers};
use roost_telemetry::Telemetry;
use roost_types::{
    Command, CommandId, CommandSpec, CommandState, DeviceId, DeviceKey, NodeId, Payload, TenantId,
    UnixMillis,
};
use roost_wire::ws::{Decoder, Event, Limits, Opcode, Role, encode_masked};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Far beyond anything a working edge needs; a test that meets it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at something that tells nobody when it changes.
const LOOK: Duration = Duration::from_millis(5);

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it comes in time")
}

/// A command that nobody waits for.
pub(crate) fn offer(spec: &CommandSpec) -> Offer<'_> {
    Offer { spec, waiting: None, durability: None }
}

/// A store for several nodes.
pub(crate) fn hub() -> Arc<MemoryHub> {
    let settings = StoreSettings { lease: Duration::from_secs(3600), ..StoreSettings::default() };
    MemoryHub::new(settings, Arc::new(HubClock::new()))
}

/// One running edge.
pub(crate) struct TestEdge {
    pub(crate) handle: EdgeHandle,
    pub(crate) store: Store,
    pub(crate) node: NodeRef,
    pub(crate) lease: Arc<Lease>,
    pub(crate) telemetry: Telemetry,
    _routing: JoinHandle<()>,
    _stop: DropGuard,
}

impl TestEdge {
    /// An edge that believes every device.
    pub(crate) async fn start(hub: &Arc<MemoryHub>, name: &str) -> Self {
        Self::start_with(hub, name, EdgeConfig::default(), Arc::new(InsecureAuthenticator)).await
    }

    /// An edge of its own on a store of its own.
    pub(crate) async fn alone(config: EdgeConfig) -> Self {
        Self::start_with(&hub(), "edge", config, Arc::new(InsecureAuthenticator)).await
    }

    pub(crate) async fn start_with(
        hub: &Arc<MemoryHub>,
        name: &str,
        config: EdgeConfig,
        authenticator: Arc<dyn DeviceAuthenticator>,
    ) -> Self {
        let node = NodeRef::start(NodeId::new(name).unwrap());
        let store = hub.node(node.clone());
        Self::start_on(store, node, config, authenticator).await
    }

    /// An edge on a store that may have been tampered with.
    pub(crate) async fn start_on(
        store: Store,
        node: NodeRef,
        config: EdgeConfig,
        authenticator: Arc<dyn DeviceAuthenticator>,
    ) -> Self {
        let info = NodeInfo {
            node: node.clone(),
            roles: Roles { edge: true, control: true },
            version: "test".into(),
            address: String::new(),
            started: UnixMillis(0),
            devices: 0,
            draining: false,
        };
        store.nodes.heartbeat(&info).await.unwrap();
        let switchboard = Arc::new(Switchboard::new(Arc::clone(&store.bus)));
        let (lease, telemetry) = (Arc::new(Lease::perpetual()), Telemetry::new("test"));
        let edge = Edge::new(EdgeParts {
            config,
            node: node.clone(),
            store: store.clone(),
            switchboard: Arc::clone(&switchboard),
            lease: Arc::clone(&lease),
            authenticator,
            telemetry: telemetry.clone(),
        });
        switchboard.attach(Arc::clone(&edge) as _);
        let stop = CancellationToken::new();
        let events = store.bus.take_events().unwrap();
        let ended = stop.clone();
        let local = async move { switchboard.run(events, ended).await };
        #[expect(clippy::disallowed_methods, reason = "owned by this struct, ended by its guard")]
        let routing = tokio::spawn(local);
        let listeners = bind_workers(SocketAddr::from(([127, 0, 0, 1], 0)), 2).unwrap();
        let handle = edge.serve(listeners).unwrap();
        Self { handle, store, node, lease, telemetry, _routing: routing, _stop: stop.drop_guard() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.handle.address()
    }

    /// A device that has had its welcome.
    pub(crate) async fn device(&self, id: &str) -> Device {
        let mut device = self.connect(id).await;
        device.hello(json!({})).await;
        device
    }

    /// A device before its hello.
    pub(crate) async fn connect(&self, id: &str) -> Device {
        Device::open(self.address(), &format!("/v1/connect?device={id}")).await
    }

    /// What a control node does: enqueue, and push where it is dispatched at once.
    pub(crate) async fn send_command(&self, device: &str, id: &str, ttl: Duration) -> Command {
        let expires = self.store.clock.now().plus(ttl);
        let mut spec = CommandSpec::new(CommandId::new(id).unwrap(), "reboot", expires);
        spec.payload = Some(Payload::json("{\"delay_s\": 5}".into()));
        let key = key(device);
        let enqueued = self.store.mailboxes.enqueue(&key, offer(&spec)).await.unwrap();
        let Enqueued::Accepted { command, dispatch, .. } = enqueued else {
            panic!("the command was not accepted: {enqueued:?}");
        };
        if let Some(dispatch) = dispatch {
            let event = NodeEvent::Deliver {
                session: dispatch.session,
                command: command.clone(),
                prev: dispatch.prev,
            };
            self.store.bus.send(&dispatch.node, &event).await.unwrap();
        }
        *command
    }

    pub(crate) async fn command(&self, device: &str, id: &str) -> Command {
        let id = CommandId::new(id).unwrap();
        self.store.mailboxes.get(&key(device), &id, None).await.unwrap().unwrap()
    }

    /// Waits until a command has come this far.
    pub(crate) async fn until_state(&self, device: &str, id: &str, state: CommandState) {
        let reached = async {
            while self.command(device, id).await.state < state {
                tokio::time::sleep(LOOK).await;
            }
        };
        soon(reached).await;
    }

    /// Waits until a device has no session any more; gives how its last one ended.
    pub(crate) async fn until_offline(&self, device: &str) -> LastClose {
        let ended = async {
            loop {
                let record = self.store.sessions.get(&key(device)).await.unwrap().unwrap();
                if let (None, Some(close)) = (record.session, record.last_close) {
                    return close;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        soon(ended).await
    }

    /// Waits until a metric has this value.
    pub(crate) async fn until_metric(&self, series: &str, value: f64) {
        let reached = async {
            while self.telemetry.value(series) != Some(value) {
                tokio::time::sleep(LOOK).await;
            }
        };
        soon(reached).await;
    }
}

pub(crate) fn key(device: &str) -> DeviceKey {
    DeviceKey::new(TenantId::default(), DeviceId::new(device).unwrap())
}

/// What came over a device's socket.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    Json(Value),
    Data(Opcode, Vec<u8>),
    Ping,
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    End,
}

/// The device's end of a connection.
pub(crate) struct Device {
    pub(crate) socket: TcpStream,
    decoder: Decoder,
    buffer: Vec<u8>,
    plain: bool,
}

/// The head of an upgrade request, with what a test wants different.
pub(crate) fn upgrade_request(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: hub\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// Sends a request and reads the answer's head and what follows of its body.
pub(crate) async fn request(address: SocketAddr, text: &str) -> (TcpStream, String, Vec<u8>) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let end = soon(async {
        loop {
            if let Some(at) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                return at + 4;
            }
            assert_ne!(socket.read_buf(&mut answer).await.unwrap(), 0, "an answer came");
        }
    })
    .await;
    let rest = answer.split_off(end);
    (socket, String::from_utf8(answer).unwrap().to_lowercase(), rest)
}

impl Device {
    pub(crate) async fn open(address: SocketAddr, path: &str) -> Self {
        Self::open_with(address, path, "").await
    }

    pub(crate) async fn open_with(address: SocketAddr, path: &str, headers: &str) -> Self {
        let (socket, head, buffer) = request(address, &upgrade_request(path, headers)).await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
        Self::on(socket, buffer)
    }

    pub(crate) fn on(socket: TcpStream, buffer: Vec<u8>) -> Self {
        let decoder = Decoder::new(Role::Client, Limits::new(64 << 20));
        Self { socket, decoder, buffer, plain: false }
    }

    /// Passes over the answer to the handshake.
    pub(crate) async fn skip_head(&mut self) {
        soon(async {
            loop {
                if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                    self.buffer.drain(..at + 4);
                    return;
                }
                assert_ne!(self.socket.read_buf(&mut self.buffer).await.unwrap(), 0);
            }
        })
        .await;
    }

    /// Shows data messages as they are, not as JSON.
    pub(crate) fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn frame(&mut self, opcode: Opcode, payload: &[u8]) {
        self.raw(&encode_masked(opcode, payload, [7, 1, 9, 3])).await;
    }

    pub(crate) async fn text(&mut self, text: &str) {
        self.frame(Opcode::Text, text.as_bytes()).await;
    }

    pub(crate) async fn send(&mut self, message: Value) {
        self.text(&message.to_string()).await;
    }

    /// Says hello with these fields and gives the welcome.
    pub(crate) async fn hello(&mut self, mut fields: Value) -> Value {
        fields["type"] = "hello".into();
        self.send(fields).await;
        let welcome = self.json().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        welcome
    }

    pub(crate) async fn seen(&mut self) -> Seen {
        soon(async {
            loop {
                if let Some(seen) = self.decode() {
                    return seen;
                }
                self.buffer.reserve(65_536);
                match self.socket.read_buf(&mut self.buffer).await {
                    Ok(0) | Err(_) => return Seen::End,
                    Ok(_) => {}
                }
            }
        })
        .await
    }

    fn decode(&mut self) -> Option<Seen> {
        while !self.buffer.is_empty() {
            let found = self.decoder.decode(&mut self.buffer).unwrap();
            let consumed = found.consumed;
            let seen = found.event.map(|event| show(event, self.plain));
            self.buffer.drain(..consumed);
            if seen.is_some() {
                return seen;
            }
        }
        None
    }

    pub(crate) async fn json(&mut self) -> Value {
        match self.seen().await {
            Seen::Json(value) => value,
            other => panic!("a JSON message was to come, not {other:?}"),
        }
    }

    /// The next message's type, checked, and the message.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        let value = self.json().await;
        assert_eq!(value["type"], kind, "{value}");
        value
    }

    /// The error and close frame that end the connection.
    pub(crate) async fn expect_end(&mut self, code: &str, close: u16) {
        let error = self.expect("error").await;
        assert_eq!(error["code"], code, "{error}");
        self.expect_close(close).await;
    }

    pub(crate) async fn expect_close(&mut self, code: u16) {
        let seen = self.seen().await;
        assert!(matches!(seen, Seen::Close(Some(found), _) if found == code), "{seen:?}");
    }

    /// Checks that the connection works: an answer to a ping comes next.
    pub(crate) async fn expect_alive(&mut self) {
        self.send(json!({"type": "ping", "id": 4242})).await;
        let pong = self.expect("pong").await;
        assert_eq!(pong["id"], 4242);
    }

    pub(crate) async fn subscribe(&mut self, topic: &str) {
        self.send(json!({"type": "subscribe", "id": 1, "topic": topic})).await;
        self.expect("ack").await;
    }
}

fn show(event: Event<'_>, plain: bool) -> Seen {
    match event {
        Event::Text(text) if plain => Seen::Data(Opcode::Text, text.as_bytes().to_vec()),
        Event::Text(text) => Seen::Json(serde_json::from_str(&text).unwrap()),
        Event::Binary(data) => Seen::Data(Opcode::Binary, data.into_owned()),
        Event::Ping(_) => Seen::Ping,
        Event::Pong(payload) => Seen::Pong(payload.into_owned()),
        Event::Close { code, reason } => Seen::Close(code, reason.into_owned()),
        Event::Extended { .. } => panic!("no extension was negotiated"),
    }
}
