//! The load of a run: commands at a rate from back ends that retry, some cancelled, some short-lived; and
//! publications at a low rate, which some devices follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use roost_checker::{Event, Kind};
use roost_proto::control::v1 as pb;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::backend::{Backends, Sent, Wish};
use crate::names::{Name, TENANTS};
use crate::rng::Rng;

/// How long most commands live: longer than anything that is done to the hub takes.
pub const LONG: Duration = Duration::from_secs(240);
/// How long short-lived ones live.
const SHORT: Duration = Duration::from_secs(3);
/// Of a thousand commands: so many are short-lived, waited for, cancelled, in an order of their own.
const SHORT_LIVED: u64 = 50;
const WAITED_FOR: u64 = 400;
const CANCELLED: u64 = 20;
const KEYED: u64 = 100;
/// Commands under way at once; further ones are left out.
const UNDER_WAY: usize = 20_000;
/// Between two publications.
const PUBLISH: Duration = Duration::from_millis(250);

/// What the load is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which devices get commands.
    pub devices: Vec<Name>,
    /// Commands a second.
    pub rate: u32,
    /// Topics that are published to.
    pub topics: Vec<String>,
}

/// A load that runs.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    left_out: Arc<AtomicU64>,
}

// === impl Load ===

impl Load {
    /// Starts it.
    pub fn start(backends: &Arc<Backends>, rng: &Arc<Rng>, plan: Plan) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let left_out = Arc::new(AtomicU64::new(0));
        let topics = plan.topics.clone();
        tasks.spawn(send_all(
            Arc::clone(backends),
            Arc::clone(rng),
            plan,
            stopped.clone(),
            Arc::clone(&left_out),
        ));
        tasks.spawn(publish_all(Arc::clone(backends), topics, stopped));
        Self { stop, tasks, left_out }
    }

    /// Ends it, and waits until every command under way has its answer.
    pub async fn finish(mut self, within: Duration) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        timeout(within, all).await?;
        Ok(())
    }

    /// How many commands were not sent since too many were under way.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}

async fn send_all(
    backends: Arc<Backends>,
    rng: Arc<Rng>,
    plan: Plan,
    mut stopped: watch::Receiver<bool>,
    left_out: Arc<AtomicU64>,
) {
    let mut tick = interval(Duration::from_secs(1) / plan.rate);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = JoinSet::new();
    let mut number = 0_u64;
    loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => break,
            _ = tick.tick() => {
                while under_way.try_join_next().is_some() {}
                number += 1;
                if under_way.len() >= UNDER_WAY {
                    left_out.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let device = &plan.devices[rng.index(plan.devices.len())];
                let wish = wish(&backends, &rng, device, number);
                under_way.spawn(send_one(Arc::clone(&backends), Arc::clone(&rng), wish));
            }
        }
    }
    while under_way.join_next().await.is_some() {}
}

fn wish(backends: &Backends, rng: &Rng, device: &Name, number: u64) -> Wish {
    let ttl = if rng.happens(SHORT_LIVED) { SHORT } else { LONG };
    // The same ids in both tenants, so that what crosses shows.
    let mut wish = Wish::new(device, format!("c-{number}"), backends.journal(), ttl);
    if rng.happens(WAITED_FOR) {
        wish.wait = Duration::from_secs(5);
    }
    if rng.happens(KEYED) {
        wish.key = format!("k-{}", rng.between(0, 2));
    }
    wish
}

async fn send_one(backends: Arc<Backends>, rng: Arc<Rng>, wish: Wish) {
    let cancel = wish.wait.is_zero() && rng.happens(CANCELLED);
    let sent = backends.send(&wish).await;
    if cancel && matches!(sent, Sent::Accepted(_)) {
        sleep(Duration::from_millis(rng.between(0, 100))).await;
        backends.cancel(&wish.device, &wish.id).await;
    }
}

/// Publishes to the topics in turn, in both tenants, until told to stop.
async fn publish_all(
    backends: Arc<Backends>,
    topics: Vec<String>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut tick = interval(PUBLISH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut number = 0;
    while !topics.is_empty() {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return,
            _ = tick.tick() => {}
        }
        number += 1;
        publish(&backends, &topics[number % topics.len()], number % TENANTS.len(), number).await;
    }
}

async fn publish(backends: &Backends, topic: &str, tenant: usize, number: usize) {
    let body = format!("{}/{topic}/{number}", TENANTS[tenant]);
    let op = backends.journal().invoke(Event {
        tenant: TENANTS[tenant].into(),
        topic: topic.into(),
        body: body.as_str().into(),
        ..Event::new(Kind::Publish)
    });
    let request = pb::PublishRequest {
        topic: topic.to_owned(),
        payload: Some(pb::Payload {
            body: Some(pb::payload::Body::Text(body.clone())),
            content_type: String::new(),
        }),
        ..Default::default()
    };
    let mut messages = backends.any(tenant).messages();
    let published = timeout(Duration::from_secs(2), messages.publish(request)).await;
    let kind = if matches!(published, Ok(Ok(_))) { Kind::Ok } else { Kind::Unknown };
    backends.journal().answer(kind, op);
}
