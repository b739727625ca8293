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
mod tests {
    use super::*;
    use crate::{HubClock, MemoryHub, NodeRef, Store, StoreSettings};
    use roost_types::{DeviceId, NodeId, Origin, Payload, Qos, Text, Topic, UnixMillis};

    /// Notes what it is given.
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl NodeSink for Notes {
        fn message(&self, _: &TenantId, message: &Arc<Message>) {
            self.0.lock().push(message.topic.to_string());
        }
        fn gap(&self) {
            self.0.lock().push("gap".into());
        }
        fn node_event(&self, _: &NodeEvent) {
            self.0.lock().push("event".into());
        }
        fn resubscribed(&self) {
            self.0.lock().push("resubscribed".into());
        }
    }

    fn store() -> Store {
        let hub = MemoryHub::new(StoreSettings::default(), Arc::new(HubClock::new()));
        hub.node(NodeRef::start(NodeId::new("a").unwrap()))
    }

    async fn publish(store: &Store, topic: &str) {
        let message = Message {
            topic: Topic::new(topic).unwrap(),
            payload: Payload::text(Text::from("x")),
            headers: vec![],
            qos: Qos::BestEffort,
            time: UnixMillis(1),
            from: Origin::Device(DeviceId::new("d").unwrap()),
            position: None,
        };
        store.bus.publish(&TenantId::default(), Arc::new(message)).await.unwrap();
    }

    async fn run_until(
        board: &Switchboard,
        events: &mut Option<mpsc::Receiver<BusEvent>>,
        wait: Duration,
    ) {
        // `run` takes the receiver for good, so the test pumps by hand what `run` would.
        tokio::time::sleep(wait).await;
        board.withdraw_unwanted().await;
        let events = events.as_mut().expect("taken once");
        while let Ok(event) = events.try_recv() {
            board.hand_out(event);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_filter_stays_declared_while_anybody_may_come_back() {
        let store = store();
        let board = Switchboard::new(Arc::clone(&store.bus));
        let notes = Arc::new(Notes::default());
        board.attach(Arc::clone(&notes) as _);
        let mut events = store.bus.take_events();
        let home = TenantId::default();
        let filter = TopicFilter::new("t/+").unwrap();
        board.subscribe(&home, &filter).await.unwrap();
        board.subscribe(&home, &filter).await.unwrap();
        board.unsubscribe(&home, &filter);
        publish(&store, "t/two-less-one").await;
        run_until(&board, &mut events, LINGER * 2).await;
        board.unsubscribe(&home, &filter);
        publish(&store, "t/lingering").await;
        run_until(&board, &mut events, LINGER / 2).await;
        board.subscribe(&home, &filter).await.unwrap();
        run_until(&board, &mut events, LINGER * 2).await;
        publish(&store, "t/came-back").await;
        board.unsubscribe(&home, &filter);
        run_until(&board, &mut events, LINGER * 2).await;
        publish(&store, "t/nobody").await;
        run_until(&board, &mut events, Duration::ZERO).await;
        assert_eq!(*notes.0.lock(), ["t/two-less-one", "t/lingering", "t/came-back"]);
        assert_eq!(board.interests.len(), 0);
        board.unsubscribe(&home, &filter);
    }

    /// A bus that withdraws and declares only when told, and remembers in which order.
    #[derive(Debug)]
    struct SlowBus {
        gate: tokio::sync::Semaphore,
        done: Mutex<Vec<&'static str>>,
        fail: Mutex<Option<StoreError>>,
    }

    impl Default for SlowBus {
        fn default() -> Self {
            let gate = tokio::sync::Semaphore::new(0);
            Self { gate, done: Mutex::default(), fail: Mutex::default() }
        }
    }

    #[async_trait::async_trait]
    impl Bus for SlowBus {
        async fn publish(&self, _: &TenantId, _: Arc<Message>) -> Result<(), StoreError> {
            Ok(())
        }
        async fn declare(&self, _: &TenantId, _: &TopicFilter) -> Result<(), StoreError> {
            self.gate.acquire().await.expect("open").forget();
            self.done.lock().push("declared");
            self.fail.lock().clone().map_or(Ok(()), Err)
        }
        async fn withdraw(&self, _: &TenantId, _: &TopicFilter) -> Result<(), StoreError> {
            self.gate.acquire().await.expect("open").forget();
            self.done.lock().push("withdrawn");
            Ok(())
        }
        async fn send(&self, _: &crate::NodeRef, _: &NodeEvent) -> Result<(), StoreError> {
            Ok(())
        }
        async fn send_to(&self, _: &NodeId, _: &NodeEvent) -> Result<(), StoreError> {
            Ok(())
        }
        fn take_events(&self) -> Option<mpsc::Receiver<BusEvent>> {
            None
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_who_comes_during_a_withdrawal_declares_after_it() {
        let bus = Arc::new(SlowBus::default());
        let board = Switchboard::new(Arc::clone(&bus) as _);
        let (home, filter) = (TenantId::default(), TopicFilter::new("t").unwrap());
        bus.gate.add_permits(1);
        board.subscribe(&home, &filter).await.unwrap();
        board.unsubscribe(&home, &filter);
        tokio::time::advance(LINGER).await;
        let ((), subscribed, ()) =
            tokio::join!(board.withdraw_unwanted(), board.subscribe(&home, &filter), async {
                bus.gate.add_permits(2);
            },);
        subscribed.unwrap();
        assert_eq!(*bus.done.lock(), ["declared", "withdrawn", "declared"]);
        assert_eq!(board.interests.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_withdrawal_that_hangs_holds_up_no_event() {
        let bus = Arc::new(SlowBus::default());
        let board = Switchboard::new(Arc::clone(&bus) as _);
        let notes = Arc::new(Notes::default());
        board.attach(Arc::clone(&notes) as _);
        let (home, filter) = (TenantId::default(), TopicFilter::new("t").unwrap());
        bus.gate.add_permits(1);
        board.subscribe(&home, &filter).await.unwrap();
        board.unsubscribe(&home, &filter);
        let (sender, events) = mpsc::channel(1);
        let late = async {
            tokio::time::sleep(LINGER * 2).await;
            sender.send(BusEvent::Gap { dropped: 1 }).await.unwrap();
            drop(sender);
        };
        // Ends when the events do; the withdrawal has no permit and never does.
        tokio::join!(board.run(events, CancellationToken::new()), late);
        assert_eq!(*notes.0.lock(), ["gap"]);
    }

    #[tokio::test]
    async fn everybody_who_waits_for_a_declaration_learns_that_it_failed() {
        let bus = Arc::new(SlowBus::default());
        let board = Switchboard::new(Arc::clone(&bus) as _);
        let (home, filter) = (TenantId::default(), TopicFilter::new("t").unwrap());
        let error = StoreError::NotSent("down".into());
        *bus.fail.lock() = Some(error.clone());
        let (one, two, ()) =
            tokio::join!(board.subscribe(&home, &filter), board.subscribe(&home, &filter), async {
                bus.gate.add_permits(1);
            },);
        assert_eq!((one, two), (Err(error.clone()), Err(error)));
        *bus.fail.lock() = None;
        bus.gate.add_permits(1);
        board.subscribe(&home, &filter).await.unwrap();
        let other = TopicFilter::new("u").unwrap();
        let dropped = board.subscribe(&home, &other);
        assert!(tokio::time::timeout(Duration::ZERO, dropped).await.is_err());
        assert_eq!(
            board.interests.len(),
            1,
            "a declaration that was dropped leaves nothing behind"
        );
    }
}
