//! A device's socket as bytes, for what no client library would send.

use std::net::SocketAddr;

use bytes::BytesMut;
use roost_wire::ws::{Decoder, Event, FrameHead, Limits, Opcode, Role};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::soon;

/// Any key will do for tests.
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
/// The most that the hub may say in one message.
const MAX_MESSAGE: usize = 32 << 20;

/// A TCP connection to an edge.
#[derive(Debug)]
pub struct RawSocket {
    stream: TcpStream,
    decoder: Decoder,
    unread: BytesMut,
}

/// What comes from the hub.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// A text frame with JSON.
    Json(Value),
    /// A close frame.
    Close(u16),
    /// The end of the stream, or a reset.
    End,
}

/// A whole masked frame.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    fragment(true, opcode, payload)
}

/// A masked frame of a message that goes on (`fin` false) or ends with it.
pub fn fragment(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    FrameHead { fin, rsv1: false, opcode, mask: Some(MASK) }.frame(payload).to_vec()
}

/// An upgrade request that is right, with a token.
pub fn upgrade_request(token: &str) -> String {
    format!(
        "GET /v1/connect HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    )
}

// === impl RawSocket ===

impl RawSocket {
    /// Connects, and says nothing.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let decoder = Decoder::new(Role::Client, Limits::new(MAX_MESSAGE));
        Self { stream, decoder, unread: BytesMut::new() }
    }

    /// Connects, upgrades and is welcomed.
    pub async fn welcomed(address: SocketAddr, token: &str) -> Self {
        let mut socket = Self::upgraded(address, token).await;
        socket.send(&frame(Opcode::Text, br#"{"type":"hello"}"#)).await;
        match socket.seen().await {
            Seen::Json(welcome) if welcome["type"] == "welcome" => socket,
            other => panic!("expected a welcome, not {other:?}"),
        }
    }

    /// Connects and upgrades.
    pub async fn upgraded(address: SocketAddr, token: &str) -> Self {
        let mut socket = Self::connect(address).await;
        socket.send(upgrade_request(token).as_bytes()).await;
        let (status, head) = socket.response().await;
        assert_eq!(status, 101, "{head}");
        socket
    }

    /// Writes all of it. The hub may have closed already, which shows in what is read next.
    pub async fn send(&mut self, bytes: &[u8]) {
        drop(self.try_send(bytes).await);
    }

    /// The same, and says whether the hub still took it.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        soon("room in the socket", self.stream.write_all(bytes)).await
    }

    /// A text frame.
    pub async fn text(&mut self, text: &str) {
        self.send(&frame(Opcode::Text, text.as_bytes())).await;
    }

    /// Status and head of an HTTP response; 0 where the hub closed without one.
    pub async fn response(&mut self) -> (u16, String) {
        let end = loop {
            let found = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if let Some(at) = found {
                break at + 4;
            }
            if !self.read_more().await {
                return (0, String::from_utf8_lossy(&self.unread).into_owned());
            }
        };
        let head = self.unread.split_to(end);
        let head = String::from_utf8_lossy(&head).into_owned();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head)
    }

    /// The next thing that the hub says, but pings and pongs.
    pub async fn seen(&mut self) -> Seen {
        loop {
            if let Some(seen) = self.decode() {
                return seen;
            }
            if !self.read_more().await {
                return Seen::End;
            }
        }
    }

    fn decode(&mut self) -> Option<Seen> {
        while !self.unread.is_empty() {
            let decoded = self.decoder.decode(&mut self.unread).expect("the hub keeps the rules");
            let consumed = decoded.consumed;
            let seen = match decoded.event.map(Event::into_owned) {
                Some(Event::Text(text)) => Some(Seen::Json(serde_json::from_str(&text).unwrap())),
                Some(Event::Close { code, .. }) => Some(Seen::Close(code.unwrap_or(1005))),
                _ => None,
            };
            drop(self.unread.split_to(consumed));
            if seen.is_some() {
                return seen;
            }
        }
        None
    }

    /// Whether something came.
    async fn read_more(&mut self) -> bool {
        let read = soon("bytes from the hub", self.stream.read_buf(&mut self.unread)).await;
        matches!(read, Ok(1..))
    }

    /// Reads to the close frame: the codes of the errors on the way, and its code (1006 without).
    pub async fn end(&mut self) -> (Vec<String>, u16) {
        let mut errors = vec![];
        loop {
            match self.seen().await {
                Seen::Json(said) if said["type"] == "error" => {
                    errors.push(said["code"].as_str().unwrap_or_default().to_owned());
                }
                Seen::Json(_) => {}
                Seen::Close(code) => return (errors, code),
                Seen::End => return (errors, 1006),
            }
        }
    }

    /// Waits until the hub has closed the TCP connection.
    pub async fn closed(&mut self) {
        while self.read_more().await {
            self.unread.clear();
        }
    }
}
