//! The connections for subscriptions: kept, watched, replaced, and read without ever waiting for
//! anything, since Redis cuts off a reader that falls behind. There is one, or one to each master of a
//! cluster, where a channel lives with the slot of its name. A channel that is lost, with its connection or
//! because its slot moved, is subscribed again at its owner of then (`repair.rs`). What arrives is
//! understood in `reader.rs`, the connection itself is in `feed/`.

mod reader;
mod repair;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use roost_cluster::StoreError;
use roost_telemetry::metrics::labels::{RedisCommand, RedisOutcome, RedisRole};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::error::StartError;
use crate::target::Address;

use super::feed::{Feed, FeedId, Incoming, Unconfirmed};
use super::inbox::Inbox;
use super::{BusNode, Request};

/// How often each connection is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_millis(400);
/// The table of wildcard filters is compared with the original at every so many of these.
const CHECK_EVERY: u32 = 5;
/// What the connections brought and nobody has taken in yet. They wait beyond it, and Redis with them.
const INCOMING: usize = 1_024;

/// How often a channel is asked for elsewhere at once; then a repair does, with pauses. Two servers may send
/// it to each other.
const HOPS: u8 = 4;

/// Something that goes on beside the reading, and what came of it.
type Work = FuturesUnordered<BoxFuture<'static, Done>>;

/// What came of work beside the reading.
enum Done {
    /// Nothing more to do.
    Fine,
    /// A connection is no good.
    Broken(FeedId, String),
    /// A channel is subscribed; somebody may wait to hear that.
    Confirmed(FeedId, String),
    /// A channel is another server's by now, or may not be had.
    Refused(FeedId, Wish, String),
    /// What a repair achieved.
    Repaired(repair::Outcome),
    /// This node's wildcard filters were gone from the table for a while.
    PutBack,
}

/// A channel that somebody waits for.
struct Wish {
    channel: String,
    done: oneshot::Sender<Result<(), StoreError>>,
    since: Instant,
    /// How often it was sent from one server to another.
    hops: u8,
}

/// Where a channel is subscribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nowhere; a repair will see to it, or does.
    Lost,
    /// Asked for there.
    Asked(FeedId),
    /// There.
    At(FeedId),
}

/// Keeps the subscriptions of a node.
#[derive(Debug)]
pub(crate) struct BusTask {
    bus: Arc<BusNode>,
    requests: mpsc::Receiver<Request>,
    /// Every channel that is wanted, the node's own and `wild` among them.
    wanted: HashMap<String, Place>,
    feeds: HashMap<FeedId, Feed>,
    next_feed: FeedId,
    incoming: mpsc::Receiver<(FeedId, Incoming)>,
    /// For feeds to come.
    into: mpsc::Sender<(FeedId, Incoming)>,
    moves: watch::Receiver<u64>,
    inbox: Inbox,
    own_channel: String,
    wild_channel: String,
    presence_channel: String,
    /// Something is lost, or a master has no connection.
    unwell: bool,
    /// Whether a repair is under way, and how many in a row left something lost.
    repairing: bool,
    tries: u32,
    /// Channels that were withdrawn while a repair was under way.
    withdrawn: HashSet<String>,
    /// The filter table was not read since its channel was lost.
    table_is_old: bool,
    unreadable: u64,
}

// === impl BusTask ===

impl BusTask {
    pub(super) async fn start(
        bus: Arc<BusNode>,
        requests: mpsc::Receiver<Request>,
        inbox: Inbox,
    ) -> Result<Self, StartError> {
        let keys = &bus.link.keys;
        let own_channel = keys.node_channel(&bus.node.id);
        let wild_channel = keys.wild_channel();
        let (into, incoming) = mpsc::channel(INCOMING);
        let mut task = Self {
            wanted: HashMap::from([
                (own_channel.clone(), Place::Lost),
                (wild_channel.clone(), Place::Lost),
            ]),
            own_channel,
            wild_channel,
            presence_channel: keys.presence_channel(),
            moves: bus.link.moves(),
            bus,
            requests,
            feeds: HashMap::new(),
            next_feed: 0,
            incoming,
            into,
            inbox,
            unwell: true,
            repairing: false,
            tries: 0,
            withdrawn: HashSet::new(),
            table_is_old: true,
            unreadable: 0,
        };
        let outcome = task.repair(Duration::ZERO).await;
        if let Some(trouble) = &outcome.trouble {
            return Err(StartError::Unreachable(trouble.clone()));
        }
        task.take_over(outcome, false);
        Ok(task)
    }

    /// Keeps the subscriptions until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let bus = Arc::clone(&self.bus);
        // Only waits and socket reads are cut short here.
        stop.run_until_cancelled(self.serve()).await;
        bus.ready.store(false, Ordering::Release);
    }

    /// Reads, and does what there is to do beside it.
    async fn serve(&mut self) {
        let mut work = Work::new();
        let mut tick = tokio::time::interval(PING_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0u32;
        loop {
            if !self.repairing && self.unwell {
                self.repairing = true;
                let wait = repair::pause(self.tries, self.bus.link.target().is_cluster());
                work.push(Box::pin(self.repair_work(wait)));
            }
            tokio::select! {
                biased;
                // Few, and others wait for them; behind a flood of messages they never had a turn.
                Some(done) = work.next() => work.extend(self.finish(done)),
                Some(request) = self.requests.recv() => work.extend(self.begin(request)),
                Ok(()) = self.moves.changed() => self.follow_moves(),
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.inbox.say_what_is_missing();
                    work.extend(self.pings());
                    if ticks.is_multiple_of(CHECK_EVERY) && !self.table_is_old {
                        work.push(reader::check_table(Arc::clone(&self.bus)));
                    }
                }
                Some((feed, incoming)) = self.incoming.recv() => {
                    work.extend(self.take(feed, incoming));
                }
            }
        }
    }

    fn take(&mut self, feed: FeedId, incoming: Incoming) -> Option<BoxFuture<'static, Done>> {
        match incoming {
            Incoming::Message { channel, bytes } => self.take_in(&channel, &bytes),
            Incoming::Withdrawn { channel } => {
                self.bus.link.look_again();
                match self.wanted.get(&channel) {
                    Some(Place::At(at) | Place::Asked(at)) if *at == feed => {
                        self.lose(|name, _| *name == channel);
                    }
                    // A repair may have it already, and bring it as confirmed.
                    Some(Place::Lost) if self.repairing => {
                        self.withdrawn.insert(channel);
                    }
                    _ => {}
                }
                None
            }
            Incoming::Broken(reason) => {
                self.drop_feed(feed, &reason);
                None
            }
        }
    }

    fn finish(&mut self, done: Done) -> Option<BoxFuture<'static, Done>> {
        match done {
            Done::Fine => {}
            Done::Broken(feed, reason) => self.drop_feed(feed, &reason),
            Done::Confirmed(feed, channel) => {
                if let Some(place) = self.wanted.get_mut(&channel)
                    && *place == Place::Asked(feed)
                {
                    *place = Place::At(feed);
                }
            }
            Done::Refused(feed, wish, error) => return self.wish_again(feed, wish, &error),
            Done::Repaired(outcome) => {
                self.repairing = false;
                self.take_over(outcome, true);
            }
            // What matched them meanwhile was not sent here.
            Done::PutBack => self.inbox.resubscribed(false, true),
        }
        None
    }

    /// A channel was refused: it is asked for at its owner of now, if that is why.
    fn wish_again(
        &mut self,
        feed: FeedId,
        mut wish: Wish,
        error: &str,
    ) -> Option<BoxFuture<'static, Done>> {
        let link = &self.bus.link;
        wish.hops += 1;
        let in_time = wish.since.elapsed() < link.confirm_timeout() && wish.hops <= HOPS;
        let is_ours = self.wanted.get(&wish.channel) == Some(&Place::Asked(feed));
        if link.follow(error) && in_time && is_ours {
            return self.begin_subscribe(wish);
        }
        self.lose(|name, place| *name == wish.channel && place == Place::Asked(feed));
        // Nobody is told if its maker is gone.
        drop(wish.done.send(Err(StoreError::NotSent(format!("Redis refused: {error}")))));
        None
    }

    /// Starts to change the channels. The order of changes is kept by the connection.
    fn begin(&mut self, request: Request) -> Option<BoxFuture<'static, Done>> {
        match request {
            Request::Subscribe(channel, done) => {
                self.begin_subscribe(Wish { channel, done, since: Instant::now(), hops: 0 })
            }
            Request::Unsubscribe(channel) => {
                let Some(Place::At(feed) | Place::Asked(feed)) = self.wanted.remove(&channel)
                else {
                    return None;
                };
                let left = self.feeds.get(&feed)?.asking.unsubscribe(vec![channel]).pop()?;
                let limit = self.bus.link.confirm_timeout();
                Some(Box::pin(async move {
                    match left.wait(limit).await {
                        Err(Unconfirmed::Broken(reason)) => Done::Broken(feed, reason),
                        Ok(()) | Err(Unconfirmed::Refused(_)) => Done::Fine,
                    }
                }))
            }
        }
    }

    fn begin_subscribe(&mut self, wish: Wish) -> Option<BoxFuture<'static, Done>> {
        let owner = self.bus.link.owner(&wish.channel);
        let feed = owner.and_then(|owner| self.feeds.values().find(|feed| feed.address == owner));
        let Some(feed) = feed.filter(|feed| !feed.asking.is_broken()) else {
            // Nobody is told if its maker is gone.
            drop(wish.done.send(Err(StoreError::NotSent("the subscriptions are down".into()))));
            return None;
        };
        let (id, bus) = (feed.id, Arc::clone(&self.bus));
        let confirmed = feed.asking.subscribe(vec![wish.channel.clone()]).pop()?;
        self.wanted.insert(wish.channel.clone(), Place::Asked(id));
        Some(Box::pin(async move {
            let confirmed = confirmed.wait(bus.link.confirm_timeout()).await;
            let (outcome, answer, came) = match confirmed {
                Ok(()) => (RedisOutcome::Ok, Ok(()), Done::Confirmed(id, wish.channel)),
                Err(Unconfirmed::Refused(error)) => return Done::Refused(id, wish, error),
                Err(Unconfirmed::Broken(reason)) => (
                    RedisOutcome::Connection,
                    Err(StoreError::Indeterminate(reason.clone())),
                    Done::Broken(id, reason),
                ),
            };
            bus.link.metrics().observe(RedisCommand::Subscribe, outcome, wish.since.elapsed());
            // Nobody is told if its maker is gone.
            drop(wish.done.send(answer));
            came
        }))
    }

    fn pings(&self) -> Vec<BoxFuture<'static, Done>> {
        let limit = self.bus.link.connect_timeout();
        let ping = |feed: &Feed| -> BoxFuture<'static, Done> {
            let (id, pong) = (feed.id, feed.asking.ping());
            Box::pin(async move {
                match pong.wait(limit).await {
                    Ok(()) => Done::Fine,
                    Err(Unconfirmed::Broken(reason) | Unconfirmed::Refused(reason)) => {
                        Done::Broken(id, reason)
                    }
                }
            })
        };
        self.feeds.values().map(ping).collect()
    }

    /// Channels may have other owners: those are lost where they are.
    fn follow_moves(&mut self) {
        let link = Arc::clone(&self.bus.link);
        let feeds: HashMap<FeedId, _> =
            self.feeds.iter().map(|(id, feed)| (*id, feed.address.clone())).collect();
        let elsewhere = |channel: &String, place: Place| match place {
            Place::At(feed) | Place::Asked(feed) => {
                let owner = link.owner(channel);
                owner.is_some() && owner.as_ref() != feeds.get(&feed)
            }
            Place::Lost => false,
        };
        for (feed, channels) in self.lose(elsewhere) {
            // Not confirmed by anybody's leave: what it still brings is what is wanted.
            if let Some(feed) = self.feeds.get(&feed) {
                drop(feed.asking.unsubscribe(channels));
            }
        }
        let owners = self.bus.link.owners();
        self.feeds.retain(|_, feed| owners.contains(&feed.address));
        self.unwell |= self.misses_something();
    }

    fn drop_feed(&mut self, id: FeedId, reason: &str) {
        if self.feeds.remove(&id).is_some() {
            tracing::warn!(reason, "lost the subscriptions");
            self.lose(|_, place| place == Place::At(id) || place == Place::Asked(id));
            self.unwell = true;
        }
    }

    /// Marks channels as lost; gives them, by where they were.
    fn lose(&mut self, which: impl Fn(&String, Place) -> bool) -> HashMap<FeedId, Vec<String>> {
        let mut lost: HashMap<FeedId, Vec<String>> = HashMap::new();
        for (channel, place) in &mut self.wanted {
            if !which(channel, *place) {
                continue;
            }
            if let Place::At(feed) | Place::Asked(feed) = *place {
                lost.entry(feed).or_default().push(channel.clone());
            }
            *place = Place::Lost;
        }
        if self.is_lost(&self.wild_channel) || self.is_lost(&self.own_channel) {
            // Filters may be missed, and what was asked of this node.
            self.bus.ready.store(false, Ordering::Release);
            self.table_is_old = true;
        }
        if !lost.is_empty() {
            self.unwell = true;
            self.bus.link.metrics().set_up(RedisRole::Pubsub, false);
        }
        lost
    }

    fn is_lost(&self, channel: &str) -> bool {
        self.wanted.get(channel) == Some(&Place::Lost)
    }

    /// Looks through everything: not to be asked for each message.
    fn misses_something(&self) -> bool {
        let has_feed = |owner: &Address| self.feeds.values().any(|feed| feed.address == *owner);
        self.table_is_old
            || self.wanted.values().any(|place| *place == Place::Lost)
            || !self.bus.link.owners().iter().all(has_feed)
    }
}

#[cfg(test)]
mod tests;
