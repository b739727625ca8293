//! The task behind a [`super::Device`]: connects, asks and answers, connects again. Which end of a
//! connection calls for what is in `retry.rs`.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use roost_types::{CommandId, Payload, Qos, Topic, TopicFilter};
use roost_wire::device::{FromDevice, ToDevice};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use super::{
    Ack, Backoff, Closed, Connection, DeviceEvent, DeviceOptions, Hello, IncomingCommand, Outcome,
    RequestError, Retry, Welcome,
};

/// How often results that the hub has not acknowledged are looked at, and how old one must be to
/// be sent again on the same connection.
const RESEND: Duration = Duration::from_secs(10);

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
    /// Outcomes that the hub has not acknowledged; all are sent again on the next connection.
    outcomes: Vec<Unacknowledged>,
}

struct Unacknowledged {
    outcome: Outcome,
    /// The id and time under which it was sent last on this connection.
    sent: Option<(u32, Instant)>,
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
            outcomes: vec![],
        }
    }

    /// Connects again and again until told to stop, or until the hub asks not to.
    pub(super) async fn run(mut self) {
        loop {
            let token = (self.options.token)();
            let hello = Hello {
                keepalive: self.options.keepalive,
                subscriptions: self.options.subscriptions.clone(),
            };
            let url = self.options.url.clone();
            let retry_in = match Connection::open(&url, token.as_deref(), &hello).await {
                Ok((connection, welcome)) => {
                    self.backoff.connected();
                    match self.serve(connection, welcome).await {
                        End::User => return,
                        End::Closed(closed, after) => self.disconnected(closed, after).await,
                    }
                }
                Err(error) => {
                    let retry_in = self.retry_in(Retry::of_open(&error));
                    let reason = error.to_string();
                    self.tell(DeviceEvent::Unreachable { reason, retry_in }).await;
                    retry_in
                }
            };
            let Some(retry_in) = retry_in else { return };
            tokio::time::sleep(retry_in).await;
        }
    }

    /// Forgets what was under way, tells the user, and says when to come back.
    async fn disconnected(&mut self, closed: Closed, after: Option<Duration>) -> Option<Duration> {
        for (_, done) in self.asked.drain() {
            answer(done, Err(RequestError::Disconnected));
        }
        for waiting in &mut self.outcomes {
            waiting.sent = None;
        }
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
        let mut outbox = VecDeque::from([DeviceEvent::Connected(welcome)]);
        let mut resend = tokio::time::interval(RESEND);
        resend.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                _ = resend.tick() => self.resend(&mut connection),
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

    fn fresh_id(&mut self) -> u32 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    fn ask(&mut self, op: Op, connection: &mut Connection) {
        let id = Some(self.fresh_id());
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
                self.outcomes.retain(|kept| kept.outcome.command_id != outcome.command_id);
                self.outcomes.push(Unacknowledged { outcome, sent: None });
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
        let now = Instant::now();
        for waiting in &mut self.outcomes {
            if waiting.sent.is_some_and(|(_, at)| now.duration_since(at) < RESEND) {
                continue;
            }
            self.next_id = self.next_id.wrapping_add(1);
            waiting.sent = Some((self.next_id, now));
            let outcome = waiting.outcome.clone();
            connection.queue(&FromDevice::Result {
                id: Some(self.next_id),
                command_id: outcome.command_id,
                status: outcome.status,
                payload: outcome.payload,
                error: outcome.error,
            });
        }
    }

    /// What the hub says: an answer to a request is given to who asked, the rest is an event.
    fn hear(&mut self, said: ToDevice) -> Option<DeviceEvent> {
        match said {
            ToDevice::Ack { id, command_id, position } => {
                self.settle(id, command_id.as_ref(), Ok(Ack { position }));
                None
            }
            ToDevice::Error { id, command_id, code, message, field, retryable } => {
                let error = RequestError::Refused {
                    code: code.into_owned(),
                    message: message.into_owned(),
                    field: field.map(Into::into),
                    retryable,
                };
                let told = self.settle(id, command_id.as_ref(), Err(error.clone()));
                (!told).then_some(DeviceEvent::Complaint(error))
            }
            other => event(other),
        }
    }

    /// Ends what an answer is about; says whether there was such a thing.
    fn settle(
        &mut self,
        id: Option<u32>,
        command_id: Option<&CommandId>,
        with: Result<Ack, RequestError>,
    ) -> bool {
        if let Some(done) = id.and_then(|id| self.asked.remove(&id)) {
            answer(done, with);
            return true;
        }
        let about = |waiting: &Unacknowledged| {
            let same_id = id.is_some() && waiting.sent.map(|(sent, _)| sent) == id;
            same_id || (id.is_none() && Some(&waiting.outcome.command_id) == command_id)
        };
        let Some(at) = self.outcomes.iter().position(about) else {
            return with.is_ok();
        };
        match with {
            // It may be taken later: the next round sends it again.
            Err(RequestError::Refused { retryable: true, .. }) => true,
            outcome => {
                self.outcomes.remove(at);
                outcome.is_ok()
            }
        }
    }
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

fn answer(done: Done, with: Result<Ack, RequestError>) {
    if done.send(with).is_err() {
        tracing::trace!("the answer came after its caller had left");
    }
}

/// What is an event by itself.
fn event(said: ToDevice) -> Option<DeviceEvent> {
    Some(match said {
        ToDevice::Command {
            command_id,
            name,
            payload,
            headers,
            expires_ms,
            expires_in_ms,
            attempt,
        } => DeviceEvent::Command(IncomingCommand {
            command_id,
            name,
            payload,
            headers,
            expires: expires_ms,
            expires_in: Duration::from_millis(expires_in_ms),
            attempt,
        }),
        ToDevice::Cancel { command_id } => DeviceEvent::Cancel(command_id),
        ToDevice::Message(message) => DeviceEvent::Message(message),
        ToDevice::Gap { topic, from, to } => DeviceEvent::Gap { topic, from, to },
        ToDevice::Goaway { reason, retry_after_ms } => DeviceEvent::Goaway {
            reason: reason.into_owned(),
            retry_after: retry_after_ms.map(Duration::from_millis),
        },
        ToDevice::Welcome { .. }
        | ToDevice::Pong { .. }
        | ToDevice::Ack { .. }
        | ToDevice::Error { .. } => return None,
    })
}
