//! A device that lives through connections, as its user sees it. What it does behind that is in
//! `worker.rs`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use roost_types::{CommandId, Payload, Topic, TopicFilter};
use roost_wire::device::FromDevice;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::worker::{Op, Worker};
use super::{Ack, Backoff, DeviceEvent, Outcome, RequestError, Url, UrlError};
use crate::Trust;

/// Requests under way between the user and the worker; while offline they wait here.
const OPS: usize = 64;
/// Events that wait for the user. When it is full the worker stops reading, and a hub that has
/// more to say finds a slow consumer.
const EVENTS: usize = 64;

/// Gives the credential for the next connection; asked anew for each.
pub(super) type TokenSource = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// How a device connects.
#[derive(Clone)]
pub struct DeviceOptions {
    pub(super) url: Url,
    pub(super) token: TokenSource,
    /// Whether asking `token` again may give another one.
    pub(super) renews: bool,
    pub(super) keepalive: Option<Duration>,
    pub(super) subscriptions: Vec<TopicFilter>,
    pub(super) backoff: Backoff,
    pub(super) reconnect: bool,
}

/// A running device. Dropping it cuts its connection; [`Device::close`] ends it in order.
#[derive(Debug)]
pub struct Device {
    ops: mpsc::Sender<Op>,
    /// Whether the user has had enough: a worker that is offline sees no `ops`.
    closing: watch::Sender<bool>,
    /// Owns the worker: aborted when dropped.
    tasks: JoinSet<()>,
}

/// What happens to a device, in order. Ends after a final `Disconnected` or `Unreachable`.
pub type DeviceEvents = mpsc::Receiver<DeviceEvent>;

// === impl DeviceOptions ===

impl fmt::Debug for DeviceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceOptions({})", self.url)
    }
}

impl DeviceOptions {
    /// A device of the hub at this URL, without a credential, that reconnects.
    pub fn new(url: &str) -> Result<Self, UrlError> {
        Ok(Self {
            url: url.parse()?,
            token: Arc::new(|| None),
            renews: false,
            keepalive: None,
            subscriptions: vec![],
            backoff: Backoff::default(),
            reconnect: true,
        })
    }

    /// Believes a hub that proves itself to these authorities, instead of the system's; for `wss://`.
    #[must_use]
    pub fn trusting(mut self, trust: Trust) -> Self {
        self.url = self.url.trusting(trust);
        self
    }

    /// With this credential. When the hub no longer takes it, the device stops.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        let token = token.into();
        self.token = Arc::new(move || Some(token.clone()));
        self.renews = false;
        self
    }

    /// With a credential that is made for each connection.
    #[must_use]
    pub fn token_source(
        mut self,
        make: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.token = Arc::new(make);
        self.renews = true;
        self
    }

    /// The longest silence that the device wishes to keep.
    #[must_use]
    pub fn keepalive(mut self, every: Duration) -> Self {
        self.keepalive = Some(every);
        self
    }

    /// Subscribes to this with each `hello`.
    #[must_use]
    pub fn subscribe(mut self, filter: TopicFilter) -> Self {
        self.subscriptions.push(filter);
        self
    }

    /// Waits differently between attempts.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Stops at the first end of a connection.
    #[must_use]
    pub fn without_reconnect(mut self) -> Self {
        self.reconnect = false;
        self
    }
}

// === impl Device ===

impl Device {
    /// Starts a device on the current runtime. It connects by itself; its first event says how
    /// that went.
    pub fn start(options: DeviceOptions) -> (Self, DeviceEvents) {
        let (ops, ops_in) = mpsc::channel(OPS);
        let (events_out, events) = mpsc::channel(EVENTS);
        let mut tasks = JoinSet::new();
        let closing = watch::Sender::new(false);
        tasks.spawn(Worker::new(options, ops_in, events_out).run(closing.subscribe()));
        (Self { ops, closing, tasks }, events)
    }

    /// Subscribes, now and on every later connection. Waits while offline.
    pub async fn subscribe(&self, filter: TopicFilter) -> Result<Ack, RequestError> {
        self.request(|done| Op::Subscribe { filter, done }).await
    }

    /// Ends a subscription, by the same filter.
    pub async fn unsubscribe(&self, filter: TopicFilter) -> Result<Ack, RequestError> {
        self.request(|done| Op::Unsubscribe { filter, done }).await
    }

    /// Publishes, best effort, and waits for the hub's word that it took it.
    pub async fn publish(&self, topic: Topic, payload: Payload) -> Result<Ack, RequestError> {
        self.request(|done| Op::Publish { topic, payload, done }).await
    }

    /// Publishes, best effort, without asking for an answer.
    pub async fn tell(&self, topic: Topic, payload: Payload) -> Result<(), RequestError> {
        let message = FromDevice::Publish {
            id: None,
            topic,
            payload,
            qos: roost_types::Qos::BestEffort,
            headers: vec![],
        };
        self.send(Op::Say(message)).await
    }

    /// Says that a command has arrived.
    pub async fn received(&self, command_id: CommandId) -> Result<(), RequestError> {
        let id = None;
        self.send(Op::Say(FromDevice::Received { id, command_id })).await
    }

    /// Says how far a command is: 0 to 100, and a few words.
    pub async fn progress(
        &self,
        command_id: CommandId,
        percent: Option<u8>,
        note: Option<&str>,
    ) -> Result<(), RequestError> {
        let message =
            FromDevice::Progress { id: None, command_id, percent, note: note.map(Into::into) };
        self.send(Op::Say(message)).await
    }

    /// Says how a command ended. Returns once that is noted; it is sent until the hub acknowledges
    /// it, also on later connections.
    pub async fn finish(&self, outcome: Outcome) -> Result<(), RequestError> {
        self.send(Op::Finish(outcome)).await
    }

    /// Ends the connection in order, after what was asked before; at once where there is none.
    pub async fn close(mut self) {
        self.closing.send_replace(true);
        if self.send(Op::Close).await.is_ok() {
            while self.tasks.join_next().await.is_some() {}
        }
    }

    async fn request(
        &self,
        op: impl FnOnce(oneshot::Sender<Result<Ack, RequestError>>) -> Op,
    ) -> Result<Ack, RequestError> {
        let (done, answer) = oneshot::channel();
        self.send(op(done)).await?;
        answer.await.unwrap_or(Err(RequestError::Stopped))
    }

    async fn send(&self, op: Op) -> Result<(), RequestError> {
        let sent = self.ops.send(op).await;
        sent.map_err(|_| RequestError::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far beyond anything that a close without a connection takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_device_without_a_connection_can_be_closed() {
        // Held, so that nobody else listens there; nobody accepts, and the handshake never ends.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", silent.local_addr().unwrap());
        let (device, _events) = Device::start(DeviceOptions::new(&url).unwrap());
        tokio::time::timeout(PATIENCE, device.close()).await.expect("while it connects");

        let rude = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", rude.local_addr().unwrap());
        let mut turning_away = JoinSet::new();
        turning_away.spawn(async move { while rude.accept().await.is_ok() {} });
        let (device, mut events) = Device::start(DeviceOptions::new(&url).unwrap());
        assert!(matches!(events.recv().await, Some(DeviceEvent::Unreachable { .. })));
        tokio::time::timeout(PATIENCE, device.close()).await.expect("while it waits");
        while let Some(event) = events.recv().await {
            assert!(matches!(event, DeviceEvent::Unreachable { .. }), "{event:?}");
        }
    }
}
