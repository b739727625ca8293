//! Which topics this node wants, counted over all its subscribers, and the handing-out of what the
//! bus brings. Who of the node's own subscribers gets a message is the sinks' affair.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::{Mutex, RwLock};
use roost_types::{Message, TenantId, TopicFilter};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Bus, BusEvent, NodeEvent, Resubscribed, StoreError};

/// How long a filter stays declared after its last subscriber left: a reconnecting device finds its
/// channel still open, and churn costs the store nothing.
const LINGER: Duration = Duration::from_secs(10);

/// Somebody on this node who wants what the bus brings. Must not block.
pub trait NodeSink: Send + Sync {
    /// A publication that at least one filter subscribed on this node matches.
    fn message(&self, tenant: &TenantId, message: &Arc<Message>);
    /// Publications may be missing here: every subscriber is to be told.
    fn gap(&self);
    /// An event for this node; those that are not for this sink are to be ignored.
    fn node_event(&self, event: &NodeEvent);
    /// This node's own channel was interrupted: events may be missing.
    fn resubscribed(&self);
}

type Key = (TenantId, TopicFilter);

/// Where a declaration stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Declared {
    /// Under way; so is a withdrawal, which must be over before the filter is declared anew.
    Pending,
    Done,
    Withdrawn,
    Failed(StoreError),
}

#[derive(Debug)]
struct Interest {
    subscribers: u32,
    /// `None` once it is confirmed, so that a settled interest keeps no channel.
    pending: Option<watch::Receiver<Declared>>,
}

/// Counts interest and hands out what comes.
pub struct Switchboard {
    bus: Arc<dyn Bus>,
    interests: DashMap<Key, Interest, foldhash::fast::RandomState>,
    /// Filters without subscribers, oldest first, each to be withdrawn at its time if still so.
    leaving: Mutex<VecDeque<(Instant, Key)>>,
    sinks: RwLock<Vec<Arc<dyn NodeSink>>>,
}

/// What a new subscriber finds.
enum Counted {
    /// The filter is declared already.
    Settled,
    /// It is the first: it declares the filter.
    First(watch::Sender<Declared>),
    /// Another is at it.
    Waits(watch::Receiver<Declared>),
}

/// Settles a declaration that its maker dropped half way.
struct Settle<'a> {
    board: &'a Switchboard,
    key: &'a Key,
    done: watch::Sender<Declared>,
}

// === impl Switchboard ===

impl std::fmt::Debug for Switchboard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Switchboard({} filters)", self.interests.len())
    }
}

impl Switchboard {
    /// A switchboard without sinks.
    pub fn new(bus: Arc<dyn Bus>) -> Self {
        Self {
            bus,
            interests: DashMap::default(),
            leaving: Mutex::default(),
            sinks: RwLock::default(),
        }
    }

    /// Adds a sink. To be done before [`Switchboard::run`].
    pub fn attach(&self, sink: Arc<dyn NodeSink>) {
        self.sinks.write().push(sink);
    }

    /// Counts one more subscriber of a filter; returns when publications made from now on reach this
    /// node. After an error the subscriber is not counted.
    ///
    /// Cancel safe in that counts stay right only if the future is run to its end: drop it only
    /// together with the node.
    pub async fn subscribe(
        &self,
        tenant: &TenantId,
        filter: &TopicFilter,
    ) -> Result<(), StoreError> {
        let key = (tenant.clone(), filter.clone());
        loop {
            let mut pending = match self.count_one(&key) {
                Counted::Settled => return Ok(()),
                Counted::First(done) => return self.declare(&key, done).await,
                Counted::Waits(pending) => pending,
            };
            let settled = pending.wait_for(|state| *state != Declared::Pending).await;
            match settled.as_deref() {
                Ok(Declared::Withdrawn) => {}
                Ok(Declared::Failed(error)) => return Err(error.clone()),
                Ok(_) => return Ok(()),
                Err(_) => return Err(StoreError::NotSent("the subscription was abandoned".into())),
            }
        }
    }

    fn count_one(&self, key: &Key) -> Counted {
        match self.interests.entry(key.clone()) {
            Entry::Occupied(mut entry) => {
                let interest = entry.get_mut();
                interest.subscribers += 1;
                interest.pending.clone().map_or(Counted::Settled, Counted::Waits)
            }
            Entry::Vacant(entry) => {
                let (done, pending) = watch::channel(Declared::Pending);
                entry.insert(Interest { subscribers: 1, pending: Some(pending) });
                Counted::First(done)
            }
        }
    }

    async fn declare(&self, key: &Key, done: watch::Sender<Declared>) -> Result<(), StoreError> {
        let settle = Settle { board: self, key, done };
        let outcome = self.bus.declare(&key.0, &key.1).await;
        settle.with(outcome)
    }

    /// Counts one subscriber less. The filter is withdrawn a little later, if nobody comes back.
    pub fn unsubscribe(&self, tenant: &TenantId, filter: &TopicFilter) {
        let key = (tenant.clone(), filter.clone());
        let Some(mut interest) = self.interests.get_mut(&key) else {
            return;
        };
        interest.subscribers = interest.subscribers.saturating_sub(1);
        let unwanted = interest.subscribers == 0;
        drop(interest);
        if unwanted {
            self.leaving.lock().push_back((Instant::now() + LINGER, key));
        }
    }

    /// Sends what the bus brings to the sinks, and withdraws what nobody wants any more, until told
    /// to stop.
    pub async fn run(&self, mut events: mpsc::Receiver<BusEvent>, stop: CancellationToken) {
        let hand_out = async {
            while let Some(event) = events.recv().await {
                self.hand_out(event);
            }
        };
        tokio::select! {
            biased;
            // Stopping comes first, or a flood would keep the node alive.
            () = stop.cancelled() => {}
            () = hand_out => {}
            // Last: withdrawing late is harmless. Beside the others: a slow store delays no event.
            () = self.keep_withdrawing() => {}
        }
    }

    async fn keep_withdrawing(&self) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tick.tick().await;
            self.withdraw_unwanted().await;
        }
    }

    fn hand_out(&self, event: BusEvent) {
        let sinks = self.sinks.read();
        match event {
            BusEvent::Message { tenant, message } => {
                sinks.iter().for_each(|sink| sink.message(&tenant, &message));
            }
            BusEvent::Node(event) => sinks.iter().for_each(|sink| sink.node_event(&event)),
            BusEvent::Gap { dropped } => {
                tracing::warn!(dropped, "this node was too slow for the bus");
                sinks.iter().for_each(|sink| sink.gap());
            }
            BusEvent::Resubscribed(Resubscribed::Topics) => {
                sinks.iter().for_each(|sink| sink.gap());
            }

            BusEvent::Resubscribed(Resubscribed::Node) => {
                sinks.iter().for_each(|sink| sink.resubscribed());
            }
        }
    }

    async fn withdraw_unwanted(&self) {
        while let Some((key, done)) = self.next_unwanted() {
            let (tenant, filter) = &key;
            if let Err(error) = self.bus.withdraw(tenant, filter).await {
                tracing::debug!(%filter, %error, "could not withdraw a filter; the store forgets it with this node");
            }
            // Whoever came meanwhile was counted on an entry that ends here, and declares anew.
            self.interests.remove(&key);
            done.send_replace(Declared::Withdrawn);
        }
    }

    /// The next filter whose linger time is over and that nobody came back for, marked as under way.
    fn next_unwanted(&self) -> Option<(Key, watch::Sender<Declared>)> {
        let now = Instant::now();
        let mut leaving = self.leaving.lock();
        while leaving.front().is_some_and(|(at, _)| *at <= now) {
            let (_, key) = leaving.pop_front()?;
            let Some(mut interest) = self.interests.get_mut(&key) else {
                continue;
            };
            if interest.subscribers == 0 && interest.pending.is_none() {
                let (done, pending) = watch::channel(Declared::Pending);
                interest.pending = Some(pending);
                drop(interest);
                return Some((key, done));
            }
        }
        None
    }
}

// === impl Settle ===

impl Settle<'_> {
    fn with(self, outcome: Result<(), StoreError>) -> Result<(), StoreError> {
        match &outcome {
            Ok(()) => {
                if let Some(mut interest) = self.board.interests.get_mut(self.key) {
                    interest.pending = None;
                }
                self.done.send_replace(Declared::Done);
            }
            Err(error) => {
                self.board.interests.remove(self.key);
                self.done.send_replace(Declared::Failed(error.clone()));
            }
        }
        outcome
    }
}

impl Drop for Settle<'_> {
    /// A declaration that was neither done nor failed: nobody can count on it.
    fn drop(&mut self) {
        if *self.done.borrow() == Declared::Pending {
            self.board.interests.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests;
