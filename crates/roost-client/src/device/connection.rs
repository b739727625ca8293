//! One connection to the hub, from upgrade to close. It owns no task: the caller drives it by
//! [`Connection::next`]. Reconnection and requests are in `worker.rs`.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use roost_types::{DeviceId, SessionId, TopicFilter, UnixMillis};
use roost_wire::device::{
    FromDevice, HelloSubscription, PayloadLimits, ToDevice, WelcomeLimits, json,
};
use roost_wire::ws::{Decoder, Event, FrameHead, Limits, Opcode, Role};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Instant;

use super::handshake::{self, Url};
use super::stream::Stream;
use super::{Closed, ClosedBy, OpenError};

/// The most bytes of one message from the hub: 64 messages of a batch, each with a payload at its
/// limit, fit.
const MAX_MESSAGE: usize = 16 << 20;
/// How long opening may take altogether.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to wait for the hub's answer to a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// What one read takes.
const READ_BYTES: usize = 16 << 10;

/// What a device says first.
#[derive(Debug, Clone, Default)]
pub struct Hello {
    /// The longest silence that the device wishes to keep; `None` leaves it to the hub.
    pub keepalive: Option<Duration>,
    /// What to subscribe to at once,, best effort.
    pub subscriptions: Vec<TopicFilter>,
}

/// What the hub answers to a `hello`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Who the device is, as authenticated.
    pub device_id: DeviceId,
    /// The session that this connection is.
    pub session_id: SessionId,
    /// Hub time.
    pub time: UnixMillis,
    /// The silence after which the hub pings.
    pub keepalive: Duration,
    /// What the hub takes.
    pub limits: WelcomeLimits,
}

/// One connection, welcomed by the hub.
pub struct Connection {
    stream: Stream,
    decoder: Decoder,
    /// Encoded, not written yet.
    out: BytesMut,
    /// Whether TLS may hold some of what was written.
    unflushed: bool,
    /// Decoded, not handed out yet.
    inbox: VecDeque<ToDevice>,
    /// Set once the end is known; handed out when the inbox is empty.
    closed: Option<Closed>,
    /// When bytes came last, whatever they were.
    heard: Instant,
}

// === impl Connection ===

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({:?})", self.stream)
    }
}

impl Connection {
    /// Connects, upgrades, says hello and waits for the welcome, all within 20 s.
    pub async fn open(
        url: &Url,
        token: Option<&str>,
        hello: &Hello,
    ) -> Result<(Self, Welcome), OpenError> {
        let opening = async {
            let mut connection = Self::upgrade(url, token).await?;
            connection.queue(&hello_message(hello));
            let welcome = connection.welcome().await?;
            Ok((connection, welcome))
        };
        let opened = tokio::time::timeout(OPEN_TIMEOUT, opening).await;
        opened.map_err(|_| OpenError::Timeout)?
    }

    /// Connects and upgrades, and says nothing.
    pub async fn upgrade(url: &Url, token: Option<&str>) -> Result<Self, OpenError> {
        let upgraded = handshake::upgrade(url, token).await?;
        let mut connection = Self {
            stream: upgraded.stream,
            decoder: Decoder::new(Role::Client, Limits::new(MAX_MESSAGE)),
            out: BytesMut::new(),
            unflushed: false,
            inbox: VecDeque::new(),
            closed: None,
            heard: Instant::now(),
        };
        connection.feed(&mut BytesMut::from(upgraded.early));
        Ok(connection)
    }

    async fn welcome(&mut self) -> Result<Welcome, OpenError> {
        loop {
            match self.next().await.map_err(OpenError::Closed)? {
                ToDevice::Welcome { device_id, session_id, time_ms, keepalive_ms, limits } => {
                    return Ok(Welcome {
                        device_id,
                        session_id,
                        time: time_ms,
                        keepalive: Duration::from_millis(keepalive_ms.into()),
                        limits,
                    });
                }
                // An error that ends the connection precedes its close, which says the same.
                other => tracing::debug!(?other, "the hub spoke before its welcome"),
            }
        }
    }

    /// Puts a message in line; [`Connection::next`] and [`Connection::flush`] write it.
    pub fn queue(&mut self, message: &FromDevice) {
        let text = json::encode_from_device(message);
        self.queue_frame(Opcode::Text, &text);
    }

    /// Puts a whole frame in line, whatever it says.
    pub fn queue_frame(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut key = [0; 4];
        getrandom::fill(&mut key).expect("the operating system provides randomness");
        let head = FrameHead { mask: Some(key), ..FrameHead::server(opcode) };
        head.write_frame(payload, &mut self.out);
    }

    /// When the hub gave its last sign of life: any byte counts.
    pub fn last_heard(&self) -> Instant {
        self.heard
    }

    /// Whether something waits to be written.
    pub fn has_queued(&self) -> bool {
        !self.out.is_empty() || self.unflushed
    }

    /// The next thing that the hub says. Writes what is in line meanwhile, and answers pings.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<ToDevice, Closed> {
        loop {
            if let Some(message) = self.inbox.pop_front() {
                return Ok(message);
            }
            if let Some(closed) = &self.closed {
                return Err(closed.clone());
            }
            if let Err(error) = poll_fn(|cx| self.poll_turn(cx, true)).await {
                self.closed = Some(Closed::network(error));
            }
        }
    }

    /// Writes what is in line, without reading. Cancel safe.
    pub async fn flush(&mut self) -> Result<(), Closed> {
        while self.has_queued() && self.closed.is_none() {
            if let Err(error) = poll_fn(|cx| self.poll_turn(cx, false)).await {
                self.closed = Some(Closed::network(error));
            }
        }
        self.closed.clone().map_or(Ok(()), Err)
    }

    /// Closes with 1000 and waits up to 2 s for the hub's answer. Messages that come meanwhile are
    /// dropped.
    pub async fn close(mut self) {
        if self.closed.is_none() {
            let code = 1000_u16.to_be_bytes();
            self.queue_frame(Opcode::Close, &code);
        }
        let answered = async { while self.next().await.is_ok() {} };
        if tokio::time::timeout(CLOSE_TIMEOUT, answered).await.is_err() {
            tracing::debug!("the hub did not answer the close in time");
        }
    }

    /// One step of input or output, as the socket allows: ready when something moved.
    fn poll_turn(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<io::Result<()>> {
        let wrote = self.poll_write(cx)?.is_ready();
        let read = reading && self.poll_read(cx)?.is_ready();
        if wrote || read { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Writes some of what is in line; ready when something was written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
            self.out.advance(written);
            self.unflushed = true;
            if self.out.is_empty() {
                // An idle connection holds no buffer.
                self.out = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        if !self.unflushed {
            return Poll::Pending;
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
        self.heard = Instant::now();
        self.feed(buffer.filled_mut());
        Poll::Ready(Ok(()))
    }

    fn feed(&mut self, mut input: &mut [u8]) {
        while !input.is_empty() && self.closed.is_none() {
            // The decoder is taken out while an event of it borrows the input, not itself.
            match self.decoder.decode(input) {
                Ok(decoded) => {
                    let consumed = decoded.consumed;
                    if let Some(event) = decoded.event.map(Event::into_owned) {
                        self.handle(event);
                    }
                    input = &mut input[consumed..];
                }
                Err(error) => {
                    self.queue_frame(Opcode::Close, &error.close_code().to_be_bytes());
                    self.closed = Some(Closed {
                        code: error.close_code(),
                        reason: error.to_string(),
                        by: ClosedBy::Client,
                    });
                }
            }
        }
    }

    fn handle(&mut self, event: Event<'_>) {
        match event {
            Event::Text(text) => self.handle_text(&text),
            Event::Ping(payload) => self.queue_frame(Opcode::Pong, &payload),
            Event::Pong(_) => {}
            Event::Binary(_) | Event::Extended { .. } => {
                tracing::debug!("the hub sent bytes on a connection that speaks JSON");
            }
            Event::Close { code, reason } => {
                let payload = code.map_or(vec![], |code| code.to_be_bytes().to_vec());
                self.queue_frame(Opcode::Close, &payload);
                // The answer fits into an idle socket; a peer that does not read gets none.
                let mut once = Context::from_waker(Waker::noop());
                while !self.out.is_empty() || self.unflushed {
                    match self.poll_write(&mut once) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => {
                            tracing::debug!(%error, "could not answer the hub's close");
                            break;
                        }
                        Poll::Pending => break,
                    }
                }
                self.closed = Some(Closed {
                    code: code.unwrap_or(1005),
                    reason: reason.into_owned(),
                    by: ClosedBy::Hub,
                });
            }
        }
    }

    fn handle_text(&mut self, text: &str) {
        let limits = PayloadLimits::new(MAX_MESSAGE);
        for message in json::decode_to_device(text, &limits) {
            match message {
                Ok(message) => self.inbox.push_back(message),
                // A newer hub may know more types; this device passes over them.
                Err(reject) => {
                    tracing::debug!(code = %reject.code, "passed over a message: {}", reject.message);
                }
            }
        }
    }
}

fn hello_message(hello: &Hello) -> FromDevice {
    let subscription = |topic: &TopicFilter| HelloSubscription {
        topic: topic.clone(),
        qos: roost_types::Qos::BestEffort,
        position: None,
    };
    FromDevice::Hello {
        id: None,
        keepalive_ms: hello
            .keepalive
            .map(|every| u32::try_from(every.as_millis()).unwrap_or(u32::MAX)),
        token: None,
        subscriptions: hello.subscriptions.iter().map(subscription).collect(),
        features: vec![],
    }
}
