//! The connection for subscriptions: kept, watched, replaced, and read without ever waiting for
//! anything, since Redis cuts off a reader that falls behind. It carries nothing but subscriptions. What
//! arrives is understood in `reader.rs`.

mod reader;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use redis::aio::{PubSubSink, PubSubStream};
use roost_cluster::{StoreError, StoreHealth};
use roost_telemetry::metrics::labels::{RedisCommand, RedisOutcome, RedisRole};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::error::StartError;
use crate::link::back_off;

use super::inbox::Inbox;
use super::{BusNode, Request};

/// How often the connection is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_millis(400);
/// The table of wildcard filters is compared with the original at every so many of these.
const CHECK_EVERY: u32 = 5;
/// How many channels one SUBSCRIBE names after an interruption.
const BATCH: usize = 200;
/// How long Redis may take to confirm a channel.
const CONFIRM_WITHIN: Duration = Duration::from_millis(900);

/// Something that goes on beside the reading. An error means that the connection is no good.
type Work = FuturesUnordered<BoxFuture<'static, Result<(), String>>>;

/// Keeps the subscriptions of a node.
#[derive(Debug)]
pub(crate) struct BusTask {
    bus: Arc<BusNode>,
    requests: mpsc::Receiver<Request>,
    /// Channels besides the node's own and `wild`.
    wanted: HashSet<String>,
    inbox: Inbox,
    own_channel: String,
    wild_channel: String,
    presence_channel: String,
    connection: Option<Connection>,
    unreadable: u64,
}

struct Connection {
    sink: PubSubSink,
    stream: PubSubStream,
}

// === impl Connection ===

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

// === impl BusTask ===

impl BusTask {
    pub(super) async fn start(
        bus: Arc<BusNode>,
        requests: mpsc::Receiver<Request>,
        inbox: Inbox,
    ) -> Result<Self, StartError> {
        let keys = &bus.link.keys;
        let mut task = Self {
            own_channel: keys.node_channel(&bus.node.id),
            wild_channel: keys.wild_channel(),
            presence_channel: keys.presence_channel(),
            bus,
            requests,
            wanted: HashSet::new(),
            inbox,
            connection: None,
            unreadable: 0,
        };
        task.connection = Some(task.connect().await.map_err(StartError::Unreachable)?);
        Ok(task)
    }

    /// Keeps the subscriptions until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let bus = Arc::clone(&self.bus);
        // Only waits and socket reads are cut short here.
        stop.run_until_cancelled(self.keep()).await;
        bus.ready.store(false, Ordering::Release);
    }

    async fn keep(&mut self) {
        loop {
            if let Some(connection) = self.connection.take() {
                let reason = self.serve(connection).await;
                self.bus.ready.store(false, Ordering::Release);
                self.bus.link.metrics().set_up(RedisRole::Pubsub, false);
                tracing::warn!(reason, "lost the subscriptions");
            }
            self.reconnect().await;
        }
    }

    async fn reconnect(&mut self) {
        let mut tries = 0;
        while self.connection.is_none() {
            self.refuse_for(back_off(tries)).await;
            tries += 1;
            match self.connect().await {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => tracing::debug!(error, "cannot subscribe yet"),
            }
        }
        self.bus.link.metrics().reconnects.inc(RedisRole::Pubsub);
        tracing::info!(channels = self.wanted.len(), "the subscriptions are back");
        self.inbox.resubscribed();
        self.bus.bell.notify_one();
    }

    /// Waits, and refuses what is asked meanwhile.
    async fn refuse_for(&mut self, time: Duration) {
        let mut health = self.bus.link.health();
        let was_up = *health.borrow_and_update() == StoreHealth::Up;
        let link_is_back = async {
            if was_up || health.wait_for(|health| *health == StoreHealth::Up).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let wake = tokio::time::sleep(time);
        tokio::pin!(wake, link_is_back);
        loop {
            tokio::select! {
                biased;
                // Reconnecting comes first, and at once where the other connection shows that it can be.
                () = &mut wake => return,
                () = &mut link_is_back => return,
                Some(request) = self.requests.recv() => self.refuse(request),
            }
        }
    }

    fn refuse(&mut self, request: Request) {
        match request {
            Request::Subscribe(_, done) => {
                // Nobody is told if its maker is gone.
                drop(done.send(Err(StoreError::NotSent("the subscriptions are down".into()))));
            }
            Request::Unsubscribe(channel) => {
                self.wanted.remove(&channel);
            }
        }
    }

    /// A connection with all channels confirmed and the table read.
    async fn connect(&self) -> Result<Connection, String> {
        let link = &self.bus.link;
        let limit = link.connect_timeout();
        let pubsub = tokio::time::timeout(limit, link.client().get_async_pubsub())
            .await
            .map_err(|_| format!("no answer within {limit:?}"))?
            .map_err(|error| error.to_string())?;
        let (sink, stream) = pubsub.split();
        let own = [self.own_channel.clone(), self.wild_channel.clone()];
        let all: Vec<String> = own.into_iter().chain(self.wanted.iter().cloned()).collect();
        for batch in all.chunks(BATCH) {
            confirm(sink.clone(), batch.to_vec()).await?;
        }
        self.bus.join_table().await.map_err(|error| error.to_string())?;
        self.bus.ready.store(true, Ordering::Release);
        link.metrics().set_up(RedisRole::Pubsub, true);
        Ok(Connection { sink, stream })
    }

    /// Reads until the connection is no good, and says why.
    async fn serve(&mut self, connection: Connection) -> String {
        let Connection { sink, mut stream } = connection;
        let mut work = Work::new();
        let mut tick = tokio::time::interval(PING_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0u32;
        loop {
            tokio::select! {
                biased;
                // Few, and others wait for them; behind a flood of messages they never had a turn.
                Some(done) = work.next() => if let Err(reason) = done { return reason },
                Some(request) = self.requests.recv() => work.push(self.begin(request, &sink)),
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.inbox.say_what_is_missing();
                    work.push(Box::pin(ping(sink.clone())));
                    if ticks.is_multiple_of(CHECK_EVERY) {
                        work.push(reader::check_table(Arc::clone(&self.bus)));
                    }
                }
                message = stream.next() => match message {
                    Some(message) => {
                        let channel = message.get_channel_name();
                        let bytes = message.get_payload_bytes().to_vec();
                        work.extend(self.take_in(channel, bytes));
                    }
                    None => return "Redis closed the connection".into(),
                },
            }
        }
    }

    /// Starts to change the channels. The order of changes is kept by the connection.
    fn begin(
        &mut self,
        request: Request,
        sink: &PubSubSink,
    ) -> BoxFuture<'static, Result<(), String>> {
        let mut sink = sink.clone();
        let bus = Arc::clone(&self.bus);
        match request {
            Request::Subscribe(channel, done) => {
                self.wanted.insert(channel.clone());
                Box::pin(async move {
                    let asked = Instant::now();
                    let confirmed = confirm(sink, vec![channel]).await;
                    let outcome =
                        if confirmed.is_ok() { RedisOutcome::Ok } else { RedisOutcome::Connection };
                    bus.link.metrics().observe(RedisCommand::Subscribe, outcome, asked.elapsed());
                    let answer = confirmed.clone().map_err(StoreError::Indeterminate);
                    // Nobody is told if its maker is gone.
                    drop(done.send(answer));
                    confirmed
                })
            }
            Request::Unsubscribe(channel) => {
                self.wanted.remove(&channel);
                Box::pin(async move {
                    let left = sink.unsubscribe(channel);
                    match tokio::time::timeout(CONFIRM_WITHIN, left).await {
                        Ok(left) => left.map_err(|error| error.to_string()),
                        Err(_) => Err("Redis does not confirm".into()),
                    }
                })
            }
        }
    }
}

async fn confirm(mut sink: PubSubSink, channels: Vec<String>) -> Result<(), String> {
    match tokio::time::timeout(CONFIRM_WITHIN, sink.subscribe(channels)).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("Redis does not confirm".into()),
    }
}

async fn ping(mut sink: PubSubSink) -> Result<(), String> {
    match tokio::time::timeout(Duration::from_millis(500), sink.ping::<redis::Value>()).await {
        Ok(answer) => answer.map(drop).map_err(|error| error.to_string()),
        Err(_) => Err("Redis does not answer".into()),
    }
}
