//! Interest that lingers, withdrawals that overlap declarations, and who learns of failures.

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
    assert_eq!(board.interests.len(), 1, "a declaration that was dropped leaves nothing behind");
}
