//! A device that a test drives: everything that the hub says to it comes when the test asks, and
//! nothing is answered by itself but pings.

use std::collections::VecDeque;
use std::time::Duration;

use roost_client::device::{Closed, Connection, Hello, OpenError, Retry, Url, Welcome};
use roost_types::{CommandId, Message, Payload, Qos, ResultStatus, Topic, TopicFilter};
use roost_wire::device::{FromDevice, ToDevice};
use tokio::time::sleep;

use crate::soon;

/// One connection of a device, welcomed by the hub.
#[derive(Debug)]
pub struct TestDevice {
    /// The connection, for everything that has no helper here.
    pub connection: Connection,
    /// What the hub said first.
    pub welcome: Welcome,
    next_id: u32,
    /// What came while the answer to a request was awaited.
    earlier: VecDeque<ToDevice>,
}

/// A command as it reached the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its id.
    pub id: CommandId,
    /// What to do.
    pub name: String,
    /// With what.
    pub payload: Option<Payload>,
    /// How often it was handed out, this time included.
    pub attempt: u32,
}

/// What the hub said to a request that it refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The stable code.
    pub code: String,
    /// Which field.
    pub field: Option<String>,
}

/// Between two tries of what the hub could not do just then.
const PAUSE: Duration = Duration::from_millis(100);

// === impl TestDevice ===

impl TestDevice {
    /// Connects to `ws://host:port` with a token.
    pub async fn connect(url: &str, token: &str) -> Self {
        Self::connect_subscribed(url, token, &[]).await
    }

    /// Connects and subscribes with its `hello`. Comes again, as a device should, where the hub says
    /// so: on a busy machine Redis may not answer in time.
    pub async fn connect_subscribed(url: &str, token: &str, filters: &[&str]) -> Self {
        let connecting = async {
            loop {
                match Self::open(url, token, filters).await {
                    Ok(opened) => return opened,
                    Err(error) => match Retry::of_open(&error) {
                        Retry::After(after) if !matches!(error, OpenError::Connect(_)) => {
                            sleep(after.max(PAUSE)).await;
                        }
                        _ => panic!("cannot connect to {url}: {error}"),
                    },
                }
            }
        };
        soon("the hub to take a device", connecting).await
    }

    /// The same where it may fail.
    pub async fn open(url: &str, token: &str, filters: &[&str]) -> Result<Self, OpenError> {
        Self::open_at(&url.parse().unwrap(), token, filters).await
    }

    /// The same at a URL that says whom to trust.
    pub async fn open_at(url: &Url, token: &str, filters: &[&str]) -> Result<Self, OpenError> {
        let filters = filters.iter().map(|filter| TopicFilter::new(filter).unwrap());
        let hello = Hello { keepalive: None, subscriptions: filters.collect() };
        let opening = Connection::open(url, Some(token), &hello);
        let (connection, welcome) = soon("a welcome", opening).await?;
        Ok(Self { connection, welcome, next_id: 0, earlier: VecDeque::new() })
    }

    /// The next thing that the hub says, whatever it is.
    pub async fn next(&mut self) -> Result<ToDevice, Closed> {
        if let Some(said) = self.earlier.pop_front() {
            return Ok(said);
        }
        soon("something from the hub", self.connection.next()).await
    }

    /// The next command; it must be the next thing that is no `ack`.
    pub async fn command(&mut self) -> Command {
        match self.said().await {
            ToDevice::Command { command_id, name, payload, attempt, .. } => {
                Command { id: command_id, name: name.to_string(), payload, attempt }
            }
            other => panic!("expected a command, not {other:?}"),
        }
    }

    /// The next message; it must be the next thing that is no `ack`.
    pub async fn message(&mut self) -> Message {
        match self.said().await {
            ToDevice::Message(message) => message,
            other => panic!("expected a message, not {other:?}"),
        }
    }

    async fn said(&mut self) -> ToDevice {
        loop {
            match self.next().await.unwrap() {
                ToDevice::Ack { .. } => {}
                said => return said,
            }
        }
    }

    /// Says that a command was done, again and again until the hub has stored that.
    pub async fn succeed(&mut self, command: &Command, payload: Option<Payload>) {
        loop {
            let id = self.fresh_id();
            self.connection.queue(&FromDevice::Result {
                id: Some(id),
                command_id: command.id.clone(),
                status: ResultStatus::Succeeded,
                payload: payload.clone(),
                error: None,
                trace: None,
            });
            match self.answer(id).await {
                Err(refused) if refused.code == "UNAVAILABLE" => sleep(PAUSE).await,
                done => return done.unwrap(),
            }
        }
    }

    /// Subscribes; when this returns, a publication made anywhere arrives.
    pub async fn subscribe(&mut self, filter: &str) -> Result<(), Refused> {
        let id = self.fresh_id();
        self.connection.queue(&FromDevice::Subscribe {
            id: Some(id),
            topic: TopicFilter::new(filter).unwrap(),
            qos: Qos::BestEffort,
            position: None,
        });
        self.answer(id).await
    }

    /// Publishes, and waits for the hub's word that it took it.
    pub async fn publish(&mut self, topic: &str, payload: Payload) -> Result<(), Refused> {
        let id = self.fresh_id();
        self.queue_publish(Some(id), topic, payload);
        self.answer(id).await
    }

    /// Puts a publication in line, which is written with what follows.
    pub fn queue_publish(&mut self, id: Option<u32>, topic: &str, payload: Payload) {
        let (topic, qos, headers) = (Topic::new(topic).unwrap(), Qos::BestEffort, vec![]);
        self.connection.queue(&FromDevice::Publish { id, topic, payload, qos, headers });
    }

    /// The answer to a request. What else the hub says meanwhile is kept for later.
    pub async fn answer(&mut self, asked: u32) -> Result<(), Refused> {
        loop {
            match soon("an answer", self.connection.next()).await.unwrap() {
                ToDevice::Ack { id, .. } if id == Some(asked) => return Ok(()),
                ToDevice::Error { id, code, field, .. } if id == Some(asked) => {
                    let field = field.map(Into::into);
                    return Err(Refused { code: code.into_owned(), field });
                }
                other => self.earlier.push_back(other),
            }
        }
    }

    /// Reads to the end of the connection; what comes before it is handed out with it.
    pub async fn end(mut self) -> (Vec<ToDevice>, Closed) {
        let mut before = vec![];
        loop {
            match self.next().await {
                Ok(said) => before.push(said),
                Err(closed) => return (before, closed),
            }
        }
    }

    fn fresh_id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }
}
