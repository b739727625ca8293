//! A device of the fleet: it connects to any edge, keeps the ids of what it has done, sends a result until
//! the hub acknowledges it, and writes down all that it sees. One connection's part is in
//! `connection.rs`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use roost_checker::Kind;
use roost_client::device::{Closed, Connection, Hello, OpenError, Welcome};
use roost_types::{CommandId, ResultStatus, TopicFilter};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::connection::{End, serve};
use crate::journal::{Count, Journal};
use crate::names::{Keys, Name};
use crate::rng::Rng;

/// A command of this name crashes its device each time.
pub const POISON: &str = "poison";
/// The least and the most that a device waits before it connects again, in ms.
const BACKOFF: (u64, u64) = (100, 800);
/// After how long another attempt's claim must have lost its force: 1 s, and what clocks and
/// schedulers take.
const CLAIM_LIMIT: Duration = Duration::from_secs(3);

/// What a scenario asks of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Leave the connection in order and connect to this edge only, from now on.
    MoveTo(usize),
    /// Vanish without a word: the socket stays open and nobody reads it; connect again after this, or
    /// with the next order.
    Vanish(Duration),
    /// Leave and stay away until the next order.
    Stay,
    /// Connect to any edge again.
    Roam,
}

/// What all devices of a run share.
#[derive(Debug)]
pub struct Surroundings {
    /// `ws://…` of every edge.
    pub edges: Vec<String>,
    /// Where everything is written down.
    pub journal: Arc<Journal>,
    /// What lets them in.
    pub keys: Arc<Keys>,
    /// Chance.
    pub rng: Arc<Rng>,
    /// What devices that follow topics subscribe to.
    pub topics: Vec<String>,
}

/// What others may know of a device.
#[derive(Debug, Default)]
pub struct Seen {
    /// The session that its live connection was welcomed with.
    pub session: Mutex<Option<String>>,
    /// Which edge that is with.
    pub edge: Mutex<Option<usize>>,
}

/// Two devices that claim to be the same one.
#[derive(Debug, Default)]
pub struct Duel {
    /// When either of them was welcomed last.
    welcomed: Mutex<Option<Instant>>,
    /// How long it took at the most from a welcome until the other one was closed.
    pub slowest: Mutex<Duration>,
    /// How often one was replaced.
    pub takeovers: Count,
}

/// A device between and over its connections.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) name: Name,
    pub(crate) around: Arc<Surroundings>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) orders: mpsc::Receiver<Order>,
    /// Whether it follows the run's topics.
    pub(crate) follows: bool,
    /// What it has done, and how that went.
    pub(crate) done: HashMap<CommandId, ResultStatus>,
    /// What the hub has not acknowledged, in the order in which it happened.
    pub(crate) unacknowledged: VecDeque<CommandId>,
    /// Numbers of its requests.
    pub(crate) next_id: u32,
    /// With whom it fights for its name.
    pub(crate) duel: Option<Arc<Duel>>,
    /// The one edge that it may connect to.
    pub(crate) pinned: Option<usize>,
    away: bool,
    /// Connections that it vanished from.
    abandoned: Vec<Connection>,
    /// When the attempt before the present one began.
    earlier: Option<Instant>,
}

// === impl Device ===

impl Device {
    pub(crate) fn new(
        name: Name,
        around: Arc<Surroundings>,
        seen: Arc<Seen>,
        orders: mpsc::Receiver<Order>,
        follows: bool,
    ) -> Self {
        Self {
            name,
            around,
            seen,
            orders,
            follows,
            done: HashMap::new(),
            unacknowledged: VecDeque::new(),
            next_id: 0,
            duel: None,
            pinned: None,
            away: false,
            abandoned: vec![],
            earlier: None,
        }
    }

    /// Lives until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            if self.away {
                match self.orders.recv().await {
                    Some(order) => self.obey(order),
                    None => return,
                }
                continue;
            }
            let began = Instant::now();
            match self.open().await {
                Ok((edge, connection, welcome)) => {
                    *self.seen.edge.lock() = Some(edge);
                    self.live(connection, &welcome, began).await;
                    *self.seen.edge.lock() = None;
                }
                Err(error) => self.note_refusal(&error),
            }
            self.earlier = Some(began);
            if !self.away {
                self.wait().await;
            }
        }
    }

    /// One connection from its welcome to its end.
    async fn live(&mut self, connection: Connection, welcome: &Welcome, began: Instant) {
        let session = welcome.session_id.to_string();
        self.around.journal.connections.add();
        *self.seen.session.lock() = Some(session.clone());
        if let Some(duel) = &self.duel {
            *duel.welcomed.lock() = Some(Instant::now());
        }
        self.note_subscriptions(Kind::Subscribed);
        let (connection, end) = serve(self, connection, &session).await;
        *self.seen.session.lock() = None;
        self.note_subscriptions(Kind::Gap);
        match end {
            End::Closed(closed) => self.note_close(&closed, began),
            End::Crashed => {}
            End::Ordered(Order::Vanish(pause)) => {
                self.abandoned.push(connection);
                self.pause(pause).await;
            }
            End::Ordered(order) => {
                self.obey(order);
                drop(connection);
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::MoveTo(edge) => (self.pinned, self.away) = (Some(edge), false),
            Order::Roam => (self.pinned, self.away) = (None, false),
            Order::Stay => self.away = true,
            Order::Vanish(_) => {}
        }
    }

    async fn open(&mut self) -> Result<(usize, Connection, Welcome), OpenError> {
        let edges = &self.around.edges;
        let edge = self.pinned.unwrap_or_else(|| self.around.rng.index(edges.len()));
        let url = edges[edge].parse().expect("edges of a run have URLs");
        let filter = |topic: &String| TopicFilter::new(topic).expect("topics of a run are filters");
        let topics = self.around.topics.iter().filter(|_| self.follows);
        let subscriptions = topics.map(filter).collect();
        let hello = Hello { keepalive: Some(Duration::from_secs(10)), subscriptions };
        let token = self.around.keys.token(&self.name);
        let (connection, welcome) = Connection::open(&url, Some(&token), &hello).await?;
        Ok((edge, connection, welcome))
    }

    /// Waits before the next attempt; an order ends the wait.
    async fn wait(&mut self) {
        if self.duel.is_some() {
            // At once: the other one is to have no peace.
            while let Ok(order) = self.orders.try_recv() {
                self.obey(order);
            }
            return;
        }
        self.pause(Duration::from_millis(self.around.rng.between(BACKOFF.0, BACKOFF.1))).await;
    }

    async fn pause(&mut self, pause: Duration) {
        if let Ok(Some(order)) = tokio::time::timeout(pause, self.orders.recv()).await {
            self.obey(order);
        }
    }

    fn note_subscriptions(&self, kind: Kind) {
        for topic in self.around.topics.iter().filter(|_| self.follows) {
            let event = roost_checker::Event {
                subscriber: self.name.device.as_str().into(),
                topic: topic.as_str().into(),
                tenant: self.name.tenant().into(),
                ..roost_checker::Event::new(kind)
            };
            self.around.journal.add(event);
        }
    }

    /// A device has one attempt at a time: if its connection is told that a newer session took it over,
    /// then an older attempt's claim came later, which is right only while that could still be.
    fn note_close(&self, closed: &Closed, began: Instant) {
        if closed.code != 4409 {
            return;
        }
        self.around.journal.replaced.add();
        if let Some(duel) = &self.duel {
            duel.note();
            return;
        }
        let since = self.earlier.map(|earlier| began.duration_since(earlier));
        if since.is_none_or(|since| since > CLAIM_LIMIT) {
            let journal = &self.around.journal;
            journal.broken(format!(
                "OneSession: {}/{} was told that a newer session replaced it, and there was none \
                 (the attempt before began {since:?} earlier)",
                self.name.tenant(),
                self.name.device
            ));
        }
    }

    fn note_refusal(&self, error: &OpenError) {
        let known =
            matches!(error, OpenError::Connect(_) | OpenError::Timeout | OpenError::Closed(_))
                || matches!(error, OpenError::Refused(refusal) if refusal.status >= 429);
        if !known {
            let name = &self.name;
            let what = format!("{}/{} could not connect: {error}", name.tenant(), name.device);
            self.around.journal.broken(what);
        }
    }
}

// === impl Duel ===

impl Duel {
    /// One of the two was told that the other has replaced it.
    fn note(&self) {
        self.takeovers.add();
        let Some(welcomed) = *self.welcomed.lock() else { return };
        let mut slowest = self.slowest.lock();
        *slowest = slowest.max(welcomed.elapsed());
    }
}
