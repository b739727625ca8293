//! Sending devices away in order: all or some of them, at random over all workers, paced for the node,
//! and within what the hub as a whole may shed. Who asks for it is in `handle.rs` (SIGTERM) and
//! `orders.rs` (operators); how one connection goes is in `worker/drain.rs`.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::edge::Edge;
use crate::random::Random;
use crate::worker::{Job, Place};

/// Between two batches.
const STEP: Duration = Duration::from_millis(100);
/// The slowest pace, in devices a second: a few devices are not worth minutes.
const FLOOR: f64 = 10.0;
/// How long leave to shed is waited for: without an answer the drain goes on at its own pace.
const LEAVE: Duration = Duration::from_millis(250);
/// Devices that go at their pace come back at it: so far apart at the most.
const PACED_RETRY: Duration = Duration::from_secs(2);
/// Where all go at once, so many are to come back in a second.
const RETRIES_PER_SECOND: u64 = 500;
/// Between two looks at whether the last one has gone.
const LOOK: Duration = Duration::from_millis(50);

/// Why devices are sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The node goes away, or is drained by an operator.
    Draining,
    /// Another node has room for them.
    Rebalancing,
    /// Their connection is old enough.
    Age,
}

/// What is to be sent away, and how fast.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) why: Why,
    /// At most so many devices; `None` for every connection.
    pub(crate) most: Option<u64>,
    /// Over how long. Zero: all at once, whatever the hub as a whole may shed.
    pub(crate) over: Duration,
    /// When the rest goes at once.
    pub(crate) until: Option<Instant>,
    /// Once cancelled, the rest goes at once.
    pub(crate) hurry: CancellationToken,
    /// Whether nobody is sent away while the store is out of reach: no node could take them.
    pub(crate) patient: bool,
}

/// What a device is told when it is sent away.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Farewell {
    pub(crate) why: Why,
    /// Devices come back at random within so much after the least there is.
    pub(crate) spread: Duration,
}

// === impl Why ===

impl Why {
    /// As devices and the device's record have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Rebalancing => "rebalancing",
            Self::Age => "connection_age",
        }
    }
}

// === impl Plan ===

impl Plan {
    pub(crate) fn new(why: Why, over: Duration) -> Self {
        Self { why, most: None, over, until: None, hurry: CancellationToken::new(), patient: false }
    }

    /// Whether the pace does not count, or no longer.
    fn at_once(&self) -> bool {
        self.over.is_zero()
            || self.hurry.is_cancelled()
            || self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// Sends away what the plan says; gives how many connections were told. They may not be gone yet.
///
/// Cancel safe: those that were not told yet stay.
pub(crate) async fn run(edge: &Edge, plan: &Plan) -> u64 {
    let mut left = roster(edge, plan.most.is_some()).await;
    Random::new().shuffle(&mut left);
    if let Some(most) = plan.most {
        left.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    }
    let all = left.len();
    let mut pace = Pace::new(all, plan.over);
    let mut step = tokio::time::interval(STEP);
    step.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !left.is_empty() {
        tokio::select! {
            biased;
            // A hurried drain waits for nothing.
            () = plan.hurry.cancelled() => {}
            _ = step.tick() => {}
        }
        let (count, spread) = if plan.at_once() {
            if !plan.over.is_zero() {
                tracing::warn!(left = left.len(), "the rest of the devices is sent away at once");
            }
            let spread = Duration::from_secs(left.len() as u64 / RETRIES_PER_SECOND);
            (left.len(), spread.clamp(Duration::from_secs(1), Duration::from_secs(30)))
        } else if plan.patient && !edge.store_is_up() {
            continue;
        } else {
            let granted = leave(edge, pace.due().min(left.len())).await;
            pace.spend(granted);
            (granted, PACED_RETRY)
        };
        let some = left.split_off(left.len() - count);
        send_away(edge, some, Farewell { why: plan.why, spread }).await;
    }
    all as u64
}

/// Waits until no connection is left. Those whose handshake was under way when the plan was made are told
/// to go as they come.
pub(crate) async fn until_empty(edge: &Edge) {
    while edge.connections() > 0 {
        tokio::time::sleep(LOOK).await;
    }
}

/// Every connection of this node, or every device.
async fn roster(edge: &Edge, devices_only: bool) -> Vec<Place> {
    let mut all = Vec::new();
    for inbox in edge.inboxes() {
        let (answer, places) = oneshot::channel();
        // A worker that has ended has none.
        if inbox.send(Job::Roster { devices_only, answer }).await {
            all.extend(places.await.unwrap_or_default());
        }
    }
    all
}

/// How many of `wanted` may go now, as the hub as a whole is to shed no faster than it may. A store that
/// does not answer holds nothing up.
async fn leave(edge: &Edge, wanted: usize) -> usize {
    let per_second = edge.config.shed_rate;
    let asked = u32::try_from(wanted).unwrap_or(u32::MAX);
    if wanted == 0 || per_second == 0 {
        return wanted;
    }
    let asking = edge.store.nodes.shed(asked, per_second);
    match tokio::time::timeout(LEAVE, asking).await {
        Ok(Ok(granted)) => usize::try_from(granted).unwrap_or(wanted).min(wanted),
        Ok(Err(error)) => {
            tracing::debug!(%error, "no leave to shed can be had; going on at the node's own pace");
            wanted
        }
        Err(_) => wanted,
    }
}

async fn send_away(edge: &Edge, places: Vec<Place>, farewell: Farewell) {
    let mut by_worker: Vec<Vec<Place>> = edge.inboxes().iter().map(|_| Vec::new()).collect();
    for place in places {
        if let Some(some) = by_worker.get_mut(usize::from(place.worker)) {
            some.push(place);
        }
    }
    for (inbox, some) in edge.inboxes().iter().zip(by_worker) {
        if !some.is_empty() {
            inbox.send(Job::SendAway(some, farewell)).await;
        }
    }
}

/// How many are due, by time. Time in which nothing ran is not made up for: a pace is a promise not to be
/// faster.
#[derive(Debug)]
struct Pace {
    per_second: f64,
    credit: f64,
    last: Instant,
}

// === impl Pace ===

impl Pace {
    #[expect(clippy::cast_precision_loss, reason = "a node has far fewer than 2^52 connections")]
    fn new(count: usize, over: Duration) -> Self {
        let per_second = (count as f64 / over.as_secs_f64().max(0.001)).max(FLOOR);
        Self { per_second, credit: 0.0, last: Instant::now() }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small positive number"
    )]
    fn due(&mut self) -> usize {
        let now = Instant::now();
        let passed = now.duration_since(self.last).min(2 * STEP);
        self.last = now;
        self.credit += self.per_second * passed.as_secs_f64();
        // What the hub did not grant is not saved up for long either.
        self.credit = self.credit.min(self.per_second * (2 * STEP).as_secs_f64() + 1.0);
        self.credit as usize
    }

    #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
    fn spend(&mut self, count: usize) {
        self.credit -= count as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pace_is_kept_and_never_made_up_for() {
        let mut pace = Pace::new(1_000, Duration::from_secs(10));
        let mut sent = 0;
        for _ in 0..50 {
            tokio::time::advance(STEP).await;
            let due = pace.due();
            pace.spend(due);
            sent += due;
        }
        assert!((498..=500).contains(&sent), "{sent} in 5 s at 100/s");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(pace.due() <= 21, "a minute in which nothing ran is lost");
        let pace = Pace::new(3, Duration::from_secs(300));
        assert!(pace.per_second >= FLOOR);
    }
}
