//! The task behind a [`super::Device`]: connects, asks and answers, connects again. Which end of a
//! connection calls for what is in `retry.rs`.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use roost_types::{Payload, Qos, Topic, TopicFilter};
use roost_wire::device::{FromDevice, ToDevice};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::outcomes::Outcomes;
use super::{
    Ack, Backoff, Closed, Connection, DeviceEvent, DeviceOptions, Hello, Outcome, RequestError,
    Retry, Welcome,
};

/// At the longest, between two looks at what waits for too long.
const LOOK: Duration = Duration::from_secs(10);

type Done = oneshot::Sender<Result<Ack, RequestError>>;

/// What the user asks for.
#[derive(Debug)]
pub(super) enum Op {
    Subscribe {
        filter: TopicFilter,
        done: Done,
    },
    Unsubscribe {
        filter: TopicFilter,
        done: Done,
    },
    Publish {
        topic: Topic,
        payload: Payload,
        done: Done,
    },
    /// Said once, best effort.
    Say(FromDevice),
    Finish(Outcome),
    Close,
}

pub(super) struct Worker {
    options: DeviceOptions,
    backoff: Backoff,
    ops: mpsc::Receiver<Op>,
    events: mpsc::Sender<DeviceEvent>,
    /// Requests of this connection that wait for their answer.
    asked: HashMap<u32, Done>,
    next_id: u32,
    outcomes: Outcomes,
}

/// Why [`Worker::serve`] ended.
enum End {
    /// The user closed it, or is gone.
    User,
    Closed(Closed, Option<Duration>),
}

// === impl Worker ===

impl Worker {
    pub(super) fn new(
        options: DeviceOptions,
        ops: mpsc::Receiver<Op>,
        events: mpsc::Sender<DeviceEvent>,
    ) -> Self {
        Self {
            backoff: options.backoff.clone(),
            options,
            ops,
            events,
            asked: HashMap::new(),
            next_id: 0,
            outcomes: Outcomes::default(),
        }
    }

    /// Connects again and again until told to stop, or until the hub asks not to. `closing` is looked at
    /// while there is no connection.
    pub(super) async fn run(mut self, mut closing: watch::Receiver<bool>) {
        loop {
            let token = (self.options.token)();
            let hello = Hello {
                keepalive: self.options.keepalive,
                subscriptions: self.options.subscriptions.clone(),
            };
            let url = self.options.url.clone();
            let open = Connection::open(&url, token.as_deref(), &hello);
            let Some(opened) = unless_closing(&mut closing, open).await else { return };
            let retry_in = match opened {
                Ok((connection, welcome)) => {
                    self.backoff.connected();
                    match self.serve(connection, welcome).await {
                        End::User => return,
                        End::Closed(closed, after) => {
                            let told = self.disconnected(closed, after);
                            match unless_closing(&mut closing, told).await {
                                Some(retry_in) => retry_in,
                                None => return,
                            }
                        }
                    }
                }
                Err(error) => {
                    let retry_in = self.retry_in(Retry::of_open(&error));
                    let reason = error.to_string();
                    let told = self.tell(DeviceEvent::Unreachable { reason, retry_in });
                    let Some(()) = unless_closing(&mut closing, told).await else { return };
                    retry_in
                }
            };
            let Some(retry_in) = retry_in else { return };
            let wait = tokio::time::sleep(retry_in);
            let Some(()) = unless_closing(&mut closing, wait).await else { return };
        }
    }

    /// Forgets what was under way, tells the user, and says when to come back.
    async fn disconnected(&mut self, closed: Closed, after: Option<Duration>) -> Option<Duration> {
        for (_, done) in self.asked.drain() {
            answer(done, Err(RequestError::Disconnected));
        }
        self.outcomes.disconnected();
        let retry = Retry::of_close(&closed, after);
        if retry == Retry::WithoutRepeating {
            self.outcomes.clear();
        }
        let retry_in = self.retry_in(retry);
        self.tell(DeviceEvent::Disconnected { closed, retry_in }).await;
        retry_in
    }

    fn retry_in(&mut self, retry: Retry) -> Option<Duration> {
        let floor = match retry {
            Retry::After(floor) => floor,
            Retry::WithoutRepeating => Duration::ZERO,
            Retry::WithNewCredential if self.options.renews => Duration::ZERO,
            Retry::WithNewCredential | Retry::Never => return None,
        };
        self.options.reconnect.then(|| self.backoff.next(floor))
    }

    async fn tell(&self, event: DeviceEvent) {
        if self.events.send(event).await.is_err() {
            tracing::debug!("nobody listens to the device's events");
        }
    }

    /// One connection, from its welcome to its end.
    async fn serve(&mut self, mut connection: Connection, welcome: Welcome) -> End {
        // What the user has not taken yet. While something is in it, nothing is read, but requests
        // go on: a user that answers one event before it takes the next must not wait for us.
        let keepalive = welcome.keepalive;
        let mut outbox = VecDeque::from([DeviceEvent::Connected(welcome)]);
        let period = (keepalive / 4).clamp(Duration::from_secs(1), LOOK);
        let mut look = tokio::time::interval(period);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry_after = None;
        let events = self.events.clone();
        loop {
            let wants_input = outbox.is_empty();
            tokio::select! {
                biased;
                // The user's requests first, or a busy topic would keep them waiting.
                op = self.ops.recv() => match op {
                    Some(Op::Close) | None => {
                        connection.close().await;
                        return End::User;
                    }
                    Some(op) => self.ask(op, &mut connection),
                },
                // Before reading more: what was read is handed on.
                permit = events.reserve(), if !wants_input => match permit {
                    Ok(permit) => {
                        let event = outbox.pop_front().expect("asked for only while one waits");
                        permit.send(event);
                    }
                    Err(_) => return End::User,
                },
                // At once for the first time, which sends what an earlier connection left.
                _ = look.tick() => {
                    self.resend(&mut connection);
                    if let Err(closed) = check_silence(&mut connection, keepalive, wants_input) {
                        return End::Closed(closed, retry_after);
                    }
                }
                said = step(&mut connection, wants_input) => match said {
                    Ok(Some(said)) => {
                        if let ToDevice::Goaway { retry_after_ms, .. } = &said {
                            retry_after = retry_after_ms.map(Duration::from_millis);
                        }
                        outbox.extend(self.hear(said));
                    }
                    Ok(None) => {}
                    Err(closed) => return End::Closed(closed, retry_after),
                },
            }
        }
    }

    fn ask(&mut self, op: Op, connection: &mut Connection) {
        let id = Some(fresh(&mut self.next_id));
        let qos = Qos::BestEffort;
        let (message, done) = match op {
            Op::Subscribe { filter, done } => {
                if !self.options.subscriptions.contains(&filter) {
                    self.options.subscriptions.push(filter.clone());
                }
                let position = None;
                let topic = filter;
                (FromDevice::Subscribe { id, topic, qos, position }, Some(done))
            }
            Op::Unsubscribe { filter, done } => {
                self.options.subscriptions.retain(|kept| *kept != filter);
                (FromDevice::Unsubscribe { id, topic: filter }, Some(done))
            }
            Op::Publish { topic, payload, done } => {
                let headers = vec![];
                (FromDevice::Publish { id, topic, payload, qos, headers }, Some(done))
            }
            Op::Say(message) => (message, None),
            Op::Finish(outcome) => {
                self.outcomes.add(outcome);
                return self.resend(connection);
            }
            Op::Close => return,
        };
        if let (Some(id), Some(done)) = (id, done) {
            self.asked.insert(id, done);
        }
        connection.queue(&message);
    }

    /// Sends every outcome that was not sent on this connection, or long ago.
    fn resend(&mut self, connection: &mut Connection) {
        let next_id = &mut self.next_id;
        for message in self.outcomes.due(|| fresh(next_id)) {
            connection.queue(&message);
        }
    }

    /// What the hub says: an answer to a request is given to who asked, the rest is an event.
    fn hear(&mut self, said: ToDevice) -> Option<DeviceEvent> {
        match said {
            ToDevice::Ack { id, position, .. } => {
                self.settle(id, Ok(Ack { position }));
                None
            }
            ToDevice::Error { id, code, message, field, retryable, .. } => {
                let error = RequestError::Refused {
                    code: code.into_owned(),
                    message: message.into_owned(),
                    field: field.map(Into::into),
                    retryable,
                };
                let told = self.settle(id, Err(error.clone()));
                (!told).then_some(DeviceEvent::Complaint(error))
            }
            other => DeviceEvent::of(other),
        }
    }

    /// Ends the request that an answer is about. Says whether its caller was told.
    fn settle(&mut self, id: Option<u32>, with: Result<Ack, RequestError>) -> bool {
        let Some(id) = id else { return false };
        if let Some(done) = self.asked.remove(&id) {
            answer(done, with);
            return true;
        }
        // A refused outcome has no caller who waits: it is an event, unless it is sent again.
        let refused = with.as_ref().err();
        let final_no = matches!(refused, Some(RequestError::Refused { retryable: false, .. }));
        self.outcomes.settle(id, refused) && !final_no
    }
}

/// The next id of a request.
fn fresh(last: &mut u32) -> u32 {
    *last = last.wrapping_add(1);
    *last
}

/// Asks a hub that has been silent for as long as it would let a device be, and gives it up after
/// half as long again. While the user takes no events nothing is read, and silence means nothing.
fn check_silence(
    connection: &mut Connection,
    keepalive: Duration,
    reading: bool,
) -> Result<(), Closed> {
    let silence = connection.last_heard().elapsed();
    if reading && silence >= keepalive + keepalive / 2 {
        let text = format!("the hub has been silent for {} s", silence.as_secs());
        return Err(Closed::network(text));
    }
    if reading && silence >= keepalive && !connection.has_queued() {
        connection.queue(&FromDevice::Ping { id: None });
    }
    Ok(())
}

/// Reads and writes, or only writes. Cancel safe.
async fn step(connection: &mut Connection, wants_input: bool) -> Result<Option<ToDevice>, Closed> {
    if wants_input {
        return connection.next().await.map(Some);
    }
    if !connection.has_queued() {
        std::future::pending::<()>().await;
    }
    connection.flush().await.map(|()| None)
}

/// `None` where the user closes the device before `work` is done.
async fn unless_closing<T>(
    closing: &mut watch::Receiver<bool>,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        // First: there is nobody left to connect for.
        _ = closing.wait_for(|closing| *closing) => None,
        done = work => Some(done),
    }
}

fn answer(done: Done, with: Result<Ack, RequestError>) {
    if done.send(with).is_err() {
        tracing::trace!("the answer came after its caller had left");
    }
}
