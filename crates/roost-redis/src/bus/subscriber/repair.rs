//! Subscribing again what was lost, at whoever has it now.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use roost_cluster::StoreHealth;
use roost_telemetry::metrics::labels::RedisRole;
use tokio::sync::mpsc;

use crate::link::{Link, back_off};
use crate::target::Address;

use super::super::BusNode;
use super::super::feed::{Asking, Feed, FeedId, Incoming, Unconfirmed};
use super::{BusTask, Done, Place};

/// Slots that move take their channels along one by one: some are gathered.
const GATHER: Duration = Duration::from_millis(30);
/// How many channels are asked for before their confirmations are awaited.
const BATCH: usize = 1_000;

/// What a repair achieved.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    feeds: Vec<Feed>,
    confirmed: Vec<(String, FeedId)>,
    /// Connections that turned out to be no good.
    broken: Vec<FeedId>,
    /// The filter table was joined and read.
    table: bool,
    /// Why something is still lost, if it is.
    pub(super) trouble: Option<String>,
}

/// A feed that a repair can use: an open one, or a new one.
type Usable = (FeedId, Address);

/// How long to wait before trying.
pub(super) fn pause(tries: u32, gather: bool) -> Duration {
    match (tries, gather) {
        (0, true) => GATHER,
        _ => back_off(tries),
    }
}

// === impl BusTask: what is lost is subscribed again ===

impl BusTask {
    /// Subscribes all that is lost, in the background.
    pub(super) fn repair_work(&mut self, wait: Duration) -> impl Future<Output = Done> + use<> {
        let repair = self.repair(wait);
        async move { Done::Repaired(repair.await) }
    }

    pub(super) fn repair(&mut self, wait: Duration) -> impl Future<Output = Outcome> + use<> {
        let bus = Arc::clone(&self.bus);
        let (into, next) = (self.into.clone(), self.next_feed);
        // One for each master is enough; nobody counts beyond the masters of a cluster.
        self.next_feed += 4_096;
        let lost: Vec<String> = self
            .wanted
            .iter()
            .filter(|(_, place)| **place == Place::Lost)
            .map(|(channel, _)| channel.clone())
            .collect();
        let core = [self.own_channel.clone(), self.wild_channel.clone()];
        let table = self.table_is_old;
        let known: Vec<(Usable, Asking)> = self
            .feeds
            .values()
            .filter(|feed| !feed.asking.is_broken())
            .map(|feed| ((feed.id, feed.address.clone()), feed.asking.clone()))
            .collect();
        async move {
            wait_or_come_back(&bus.link, wait).await;
            let mut outcome = Outcome::default();
            // Each master has a connection, for whatever channel comes first.
            let mut by_owner: HashMap<Address, Vec<String>> =
                bus.link.owners().into_iter().map(|owner| (owner, Vec::new())).collect();
            for channel in &lost {
                match bus.link.owner(channel) {
                    Some(owner) => by_owner.entry(owner).or_default().push(channel.clone()),
                    None => outcome.trouble = Some("no master has some channels".into()),
                }
            }
            let open = by_owner.into_iter().enumerate().map(|(at, (owner, channels))| {
                let known = known.iter().find(|((_, address), _)| *address == owner);
                let asking = known.map(|((id, _), asking)| (*id, asking.clone()));
                let id = next + at as FeedId;
                resubscribe(&bus, asking, (id, owner), channels, into.clone())
            });
            for part in join_all(open).await {
                outcome.add(part);
            }
            let is_back = |channel: &String| {
                !lost.contains(channel) || outcome.confirmed.iter().any(|(back, _)| back == channel)
            };
            if table && core.iter().all(is_back) {
                match bus.join_table().await {
                    Ok(()) => outcome.table = true,
                    Err(error) => outcome.trouble = Some(error.to_string()),
                }
            }
            outcome
        }
    }

    /// Takes over what a repair achieved; `again` if there were subscriptions before.
    pub(super) fn take_over(&mut self, outcome: Outcome, again: bool) {
        let Outcome { feeds, confirmed, broken, table, trouble } = outcome;
        for feed in feeds {
            self.feeds.insert(feed.id, feed);
        }
        let mut back = HashSet::new();
        let mut unwanted: HashMap<FeedId, Vec<String>> = HashMap::new();
        let withdrawn = std::mem::take(&mut self.withdrawn);
        for (channel, feed) in confirmed {
            // Its slot may have moved on since it was confirmed there.
            let stands = !withdrawn.contains(&channel)
                && self.feeds.get(&feed).is_some_and(|feed| {
                    self.bus.link.owner(&channel).is_none_or(|owner| owner == feed.address)
                });
            match self.wanted.get_mut(&channel) {
                Some(place) if *place == Place::Lost && stands => {
                    *place = Place::At(feed);
                    back.insert(channel);
                }
                Some(_) => {}
                None => unwanted.entry(feed).or_default().push(channel),
            }
        }
        for (feed, channels) in unwanted {
            if let Some(feed) = self.feeds.get(&feed) {
                drop(feed.asking.unsubscribe(channels));
            }
        }
        let dead: Vec<FeedId> = self
            .feeds
            .values()
            .filter(|feed| feed.asking.is_broken())
            .map(|feed| feed.id)
            .collect();
        for feed in broken.into_iter().chain(dead) {
            self.drop_feed(feed, trouble.as_deref().unwrap_or("it broke at once"));
        }
        let core = [&self.own_channel, &self.wild_channel];
        if table && core.into_iter().all(|channel| !self.is_lost(channel)) {
            self.table_is_old = false;
            self.bus.ready.store(true, Ordering::Release);
        }
        self.unwell = self.misses_something();
        self.tries = if trouble.is_none() { 0 } else { self.tries.saturating_add(1) };
        if let Some(trouble) = trouble {
            tracing::debug!(trouble, "cannot subscribe everything yet");
        }
        self.tell(&back, again);
    }

    /// Says what came back: everything on it may have been missed.
    fn tell(&mut self, back: &HashSet<String>, again: bool) {
        let whole = !self.unwell;
        if whole {
            self.bus.link.metrics().set_up(RedisRole::Pubsub, true);
        }
        if !again || back.is_empty() {
            return;
        }
        if whole {
            self.bus.link.metrics().reconnects.inc(RedisRole::Pubsub);
            tracing::info!(channels = self.wanted.len(), "the subscriptions are back");
        }
        let own = back.contains(&self.own_channel);
        let others = [&self.own_channel, &self.wild_channel, &self.presence_channel];
        let topics = back.iter().any(|channel| !others.contains(&channel));
        // What matches this node's wildcards comes on its own channel.
        self.inbox.resubscribed(own, topics || own);
        if back.contains(&self.presence_channel) || own {
            self.bus.bell.notify_one();
        }
    }
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.feeds.extend(other.feeds);
        self.confirmed.extend(other.confirmed);
        self.broken.extend(other.broken);
        self.trouble = self.trouble.take().or(other.trouble);
    }
}

/// Waits, but not longer than until Redis is back.
async fn wait_or_come_back(link: &Link, time: Duration) {
    let mut health = link.health();
    let was_up = *health.borrow_and_update() == StoreHealth::Up;
    let link_is_back = async {
        if was_up || health.wait_for(|health| *health == StoreHealth::Up).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        // At once where the other connection shows that it can be.
        () = link_is_back => {}
        () = tokio::time::sleep(time) => {}
    }
}

/// Subscribes channels of one owner, on the feed that there is or on a new one.
async fn resubscribe(
    bus: &Arc<BusNode>,
    known: Option<(FeedId, Asking)>,
    (id, owner): Usable,
    channels: Vec<String>,
    into: mpsc::Sender<(FeedId, Incoming)>,
) -> Outcome {
    let mut outcome = Outcome::default();
    let limit = bus.link.connect_timeout();
    let (id, asking) = match known {
        Some(known) => known,
        None => match Feed::open(id, bus.link.target(), owner, limit, into).await {
            Ok(feed) => {
                let asking = feed.asking.clone();
                outcome.feeds.push(feed);
                (id, asking)
            }
            Err(error) => {
                bus.link.look_again();
                outcome.trouble = Some(error);
                return outcome;
            }
        },
    };
    for batch in channels.chunks(BATCH) {
        let confirmations = asking.subscribe(batch.to_vec());
        for (channel, confirmation) in batch.iter().zip(confirmations) {
            match confirmation.wait(bus.link.confirm_timeout()).await {
                Ok(()) => outcome.confirmed.push((channel.clone(), id)),
                Err(Unconfirmed::Refused(error)) => {
                    bus.link.look_again();
                    outcome.trouble = Some(error);
                }
                Err(Unconfirmed::Broken(reason)) => {
                    outcome.broken.push(id);
                    outcome.trouble = Some(reason);
                    return outcome;
                }
            }
        }
    }
    outcome
}
