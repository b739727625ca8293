//! One connection for subscriptions to one server. It carries nothing but subscriptions, and each
//! confirmation is checked by its channel's name, so that no answer is taken for another's. Written
//! here because the client's own subscriptions do not survive a cluster: it takes a channel that the
//! server withdraws for the answer to whatever was asked last.

mod resp;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::target::{Address, Stream, Target};

use resp::Frame;

/// How many bytes are read at once.
const READ: usize = 64 << 10;
/// How many writes may wait for the socket; each may be a whole batch of channels.
const WRITES: usize = 1_024;

/// Tells the feeds of a node apart, the former ones too.
pub(super) type FeedId = u64;

/// What a feed brings.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Something was published.
    Message { channel: String, bytes: Bytes },
    /// The server withdrew a channel: another one has it now.
    Withdrawn { channel: String },
    /// The connection is no good, and why.
    Broken(String),
}

/// Why a channel is not subscribed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unconfirmed {
    /// The server refused: another one has this channel, or a right is missing.
    Refused(String),
    /// No answer, or not the right one: the connection is no good.
    Broken(String),
}

/// What is expected next from the server.
struct Expected {
    word: &'static str,
    channel: String,
    done: oneshot::Sender<Result<(), Unconfirmed>>,
}

/// A connection for subscriptions.
pub(super) struct Feed {
    pub(super) id: FeedId,
    pub(super) address: Address,
    pub(super) asking: Asking,
    _tasks: JoinSet<()>,
}

/// The asking side of a connection.
#[derive(Clone)]
pub(super) struct Asking {
    verbs: &'static Verbs,
    asked: Arc<Mutex<Asked>>,
    broken: Arc<AtomicBool>,
}

/// What was asked, in order; the writing and the noting of it are one step.
struct Asked {
    expected: VecDeque<Expected>,
    writes: mpsc::Sender<Vec<u8>>,
}

/// How subscriptions are called.
#[derive(Debug)]
pub(crate) struct Verbs {
    subscribe: (&'static str, &'static str),
    unsubscribe: (&'static str, &'static str),
    message: &'static [u8],
    pub(crate) publish: &'static str,
}

/// In one database.
pub(crate) static PLAIN: Verbs = Verbs {
    subscribe: ("SUBSCRIBE", "subscribe"),
    unsubscribe: ("UNSUBSCRIBE", "unsubscribe"),
    message: b"message",
    publish: "PUBLISH",
};

/// In a cluster, where a channel lives with the slot of its name.
pub(crate) static SHARDED: Verbs = Verbs {
    subscribe: ("SSUBSCRIBE", "ssubscribe"),
    unsubscribe: ("SUNSUBSCRIBE", "sunsubscribe"),
    message: b"smessage",
    publish: "SPUBLISH",
};

// === impl Feed ===

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Feed({} to {})", self.id, self.address)
    }
}

impl Feed {
    /// Connects; what arrives goes to `incoming` with the feed's id.
    pub(super) async fn open(
        id: FeedId,
        target: &Target,
        address: Address,
        limit: Duration,
        incoming: mpsc::Sender<(FeedId, Incoming)>,
    ) -> Result<Self, String> {
        let work = async {
            let mut stream = target.dial(&address).await.map_err(|error| error.to_string())?;
            if let Some(words) = target.auth() {
                greet(&mut stream, &words).await?;
            }
            Ok::<_, String>(stream)
        };
        let stream = tokio::time::timeout(limit, work)
            .await
            .map_err(|_| format!("{address} did not answer within {limit:?}"))?
            .map_err(|error| format!("{address}: {error}"))?;
        let verbs = if target.is_cluster() { &SHARDED } else { &PLAIN };
        let (read, write) = tokio::io::split(stream);
        let (writes, to_write) = mpsc::channel(WRITES);
        let asked = Arc::new(Mutex::new(Asked { expected: VecDeque::new(), writes }));
        let broken = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        tasks.spawn(write_all(write, to_write));
        let reader = Reader { id, verbs, read, asked: Arc::clone(&asked), incoming };
        let flag = Arc::clone(&broken);
        tasks.spawn(async move {
            let (incoming, asked) = (reader.incoming.clone(), Arc::clone(&reader.asked));
            let reason = reader.run().await;
            flag.store(true, Ordering::Release);
            // Who waits for a confirmation is told by the end of its channel.
            asked.lock().expected.clear();
            // Nobody is told if the node stops.
            drop(incoming.send((id, Incoming::Broken(reason))).await);
        });
        Ok(Self { id, address, asking: Asking { verbs, asked, broken }, _tasks: tasks })
    }
}

// === impl Asking ===

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asking")
    }
}

impl Asking {
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Asks for channels, each by a command of its own, all written at once.
    pub(super) fn subscribe(&self, channels: Vec<String>) -> Vec<Confirmation> {
        self.ask(self.verbs.subscribe, channels)
    }

    pub(super) fn unsubscribe(&self, channels: Vec<String>) -> Vec<Confirmation> {
        self.ask(self.verbs.unsubscribe, channels)
    }

    /// Asks for a sign of life.
    pub(super) fn ping(&self) -> Confirmation {
        let (done, confirmed) = oneshot::channel();
        let mut bytes = Vec::new();
        resp::write(&mut bytes, &["PING"]);
        let expected = Expected { word: "pong", channel: String::new(), done };
        self.write(bytes, vec![expected]);
        Confirmation(confirmed)
    }

    fn ask(&self, verb: (&str, &'static str), channels: Vec<String>) -> Vec<Confirmation> {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        let mut confirmations = Vec::with_capacity(channels.len());
        for channel in channels {
            resp::write(&mut bytes, &[verb.0, &channel]);
            let (done, confirmed) = oneshot::channel();
            expected.push(Expected { word: verb.1, channel, done });
            confirmations.push(Confirmation(confirmed));
        }
        self.write(bytes, expected);
        confirmations
    }

    fn write(&self, bytes: Vec<u8>, expected: Vec<Expected>) {
        let mut asked = self.asked.lock();
        // A socket that takes nothing any more fails the next PING too; what is not written is not
        // confirmed.
        if !self.is_broken() && asked.writes.try_send(bytes).is_ok() {
            asked.expected.extend(expected);
        }
    }
}

/// The answer that is awaited.
#[derive(Debug)]
pub(super) struct Confirmation(oneshot::Receiver<Result<(), Unconfirmed>>);

impl Confirmation {
    /// Waits for it: twice as long as the limit, in two halves. A process that had no turn for the whole of
    /// the first has the answer unread; to give up the connection for that would make everything be
    /// subscribed and confirmed again, on a machine that is too busy as it is.
    pub(super) async fn wait(mut self, limit: Duration) -> Result<(), Unconfirmed> {
        for _ in 0..2 {
            if let Ok(answered) = tokio::time::timeout(limit, &mut self.0).await {
                let broke = |_| Err(Unconfirmed::Broken("the connection broke".into()));
                return answered.unwrap_or_else(broke);
            }
        }
        Err(Unconfirmed::Broken("Redis does not confirm".into()))
    }
}

async fn greet(stream: &mut Box<dyn Stream>, words: &[&str]) -> Result<(), String> {
    let mut bytes = Vec::new();
    resp::write(&mut bytes, words);
    stream.write_all(&bytes).await.map_err(|error| error.to_string())?;
    let mut buffer = BytesMut::new();
    loop {
        match resp::parse(&buffer)? {
            Some((Frame::Word(_), _)) => return Ok(()),
            Some((Frame::Error(error), _)) => return Err(error),
            Some(_) => return Err("an answer that AUTH does not have".into()),
            None => {}
        }
        let read = stream.read_buf(&mut buffer).await.map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("the connection was closed".into());
        }
    }
}

async fn write_all(mut write: WriteHalf<Box<dyn Stream>>, mut writes: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = writes.recv().await {
        let written = async {
            write.write_all(&bytes).await?;
            write.flush().await
        };
        if written.await.is_err() {
            // The reading side finds that out too, and says so.
            return;
        }
    }
}

struct Reader {
    id: FeedId,
    verbs: &'static Verbs,
    read: ReadHalf<Box<dyn Stream>>,
    asked: Arc<Mutex<Asked>>,
    incoming: mpsc::Sender<(FeedId, Incoming)>,
}

// === impl Reader ===

impl Reader {
    /// Reads until the connection is no good, and says why.
    async fn run(mut self) -> String {
        let mut buffer = BytesMut::with_capacity(READ);
        loop {
            if let Err(reason) = self.take_all(&mut buffer).await {
                return reason;
            }
            buffer.reserve(READ);
            match self.read.read_buf(&mut buffer).await {
                Ok(0) => return "Redis closed the connection".into(),
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Takes in every frame that is whole.
    async fn take_all(&mut self, buffer: &mut BytesMut) -> Result<(), String> {
        while let Some((frame, length)) =
            resp::parse(buffer).map_err(|what| format!("Redis wrote {what}"))?
        {
            drop(buffer.split_to(length));
            if let Some(incoming) = self.take(frame)? {
                let passed = self.incoming.send((self.id, incoming)).await;
                passed.map_err(|_| "the node stops".to_owned())?;
            }
        }
        Ok(())
    }

    fn take(&self, frame: Frame) -> Result<Option<Incoming>, String> {
        match frame {
            Frame::Error(error) => {
                let expected = self.asked.lock().expected.pop_front();
                let expected = expected.ok_or_else(|| format!("Redis refused: {error}"))?;
                // Nobody is told if its maker is gone.
                drop(expected.done.send(Err(Unconfirmed::Refused(error))));
                Ok(None)
            }
            Frame::Word(word) => self.confirm(&word.to_ascii_lowercase(), "").map(|()| None),
            Frame::Words(mut words) => {
                let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
                match words.as_mut_slice() {
                    [kind, channel, payload] if kind == self.verbs.message => {
                        let bytes = std::mem::take(payload);
                        Ok(Some(Incoming::Message { channel: text(channel), bytes }))
                    }
                    [kind, channel, _] => Ok(self.note(kind, &text(channel))?),
                    [kind, _] => self.confirm(kind, "").map(|()| None),
                    _ => Err("Redis wrote a list that belongs to nothing".into()),
                }
            }
        }
    }

    /// A channel was subscribed or left, by us or by the server.
    fn note(&self, kind: &[u8], channel: &str) -> Result<Option<Incoming>, String> {
        let ours = self
            .asked
            .lock()
            .expected
            .front()
            .is_some_and(|next| next.word.as_bytes() == kind && next.channel == channel);
        if !ours && kind == self.verbs.unsubscribe.1.as_bytes() {
            return Ok(Some(Incoming::Withdrawn { channel: channel.to_owned() }));
        }
        self.confirm(kind, channel).map(|()| None)
    }

    fn confirm(&self, word: &[u8], channel: &str) -> Result<(), String> {
        let next = self.asked.lock().expected.pop_front();
        let fits = |next: &Expected| next.word.as_bytes() == word && next.channel == channel;
        let next = next.filter(fits).ok_or_else(|| {
            let word = String::from_utf8_lossy(word);
            format!("Redis answered {word} {channel:?}, which is not what was asked next")
        })?;
        // Nobody is told if its maker is gone.
        drop(next.done.send(Ok(())));
        Ok(())
    }
}
