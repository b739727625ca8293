//! Devices that keep the ids of commands that they have done, and what keeps them busy: commands to all of
//! them, publications to all and from all.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use roost_client::device::{ClosedBy, Connection, Hello};
use roost_proto::control::v1::payload::Body;
use roost_proto::control::v1::{self as pb, CommandState};
use roost_testkit::backend::{TestBackend, command, payload, with_id, with_ttl};
use roost_testkit::eventually;
use roost_types::{CommandId, Payload, Qos, ResultStatus, Topic, TopicFilter};
use roost_wire::device::{FromDevice, ToDevice};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::row::{Balancer, Row, Seat};

/// Between two commands; each goes to another device.
const COMMANDS: Duration = Duration::from_millis(10);
/// Between two publications to all devices.
const NEWS: Duration = Duration::from_secs(1);
/// Between two publications of a device.
const REPORTS: Duration = Duration::from_secs(5);
/// A command takes a device up to so long: some are half done when it is sent away.
const WORK: Duration = Duration::from_secs(1);
/// What a device adds to what it was told to wait, at random, as docs/device-protocol.md asks.
const JITTER: Duration = Duration::from_secs(1);
/// How long commands live: longer than all of this takes.
const TTL: Duration = Duration::from_secs(600);
/// Before a restart the fleet is watched for so long.
const SETTLE: Duration = Duration::from_secs(1);
/// Before a command that was not accepted is offered again.
const RETRY: Duration = Duration::from_millis(100);
/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(180);

/// One end of a connection.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) edge: String,
    /// The close code; 1006 where the connection broke.
    pub(super) code: u16,
    pub(super) at: Instant,
    /// How long the device was away; `None` while it is.
    pub(super) away: Option<Duration>,
}

/// What devices tell of.
#[derive(Debug, Default)]
struct Seen {
    ends: Mutex<Vec<End>>,
    /// How often each command was carried out, by `device/command`.
    done: Mutex<HashMap<String, u32>>,
    /// Commands that came again and were not carried out again.
    repeated: AtomicUsize,
    online: AtomicUsize,
    refused: AtomicUsize,
    news: AtomicUsize,
}

/// The fleet and what it is busy with.
pub(super) struct Load {
    seen: Arc<Seen>,
    count: usize,
    /// Ends the back ends.
    enough: Arc<AtomicBool>,
    busy: JoinSet<Vec<(String, String)>>,
    _devices: JoinSet<()>,
    backend: TestBackend,
    /// The longest that this process itself was held up: what it measures is worth no more.
    stalls: Arc<Mutex<Duration>>,
    _watch: JoinSet<()>,
}

/// What it came to.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) devices: usize,
    pub(super) accepted: usize,
    pub(super) lost: Vec<String>,
    pub(super) twice: Vec<String>,
    pub(super) unfinished: Vec<String>,
    pub(super) repeated: usize,
    pub(super) refused: usize,
    pub(super) news: usize,
    pub(super) stall: Duration,
}

// === impl Load ===

impl Load {
    /// Connects so many devices and begins to keep them busy.
    pub(super) async fn start(row: &Row, count: usize) -> Self {
        let seen = Arc::new(Seen::default());
        let mut devices = JoinSet::new();
        for number in 0..count {
            let name = format!("d-{number}");
            let device = Device {
                token: row.keys.token(&name),
                name,
                balancer: Arc::clone(&row.balancer),
                seen: Arc::clone(&seen),
                kept: HashSet::new(),
                unacknowledged: vec![],
            };
            devices.spawn(device.run());
            if number % 20 == 19 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let enough = Arc::new(AtomicBool::new(false));
        let backend = row.backend().await;
        let mut busy = JoinSet::new();
        busy.spawn(send_commands(backend.clone(), count, enough.clone()));
        busy.spawn(publish(backend.clone(), enough.clone()));
        let stalls = Arc::new(Mutex::new(Duration::ZERO));
        let mut watch = JoinSet::new();
        watch.spawn(watch_stalls(Arc::clone(&stalls)));
        let load =
            Self { seen, count, enough, busy, _devices: devices, backend, stalls, _watch: watch };
        load.all_back().await;
        load
    }

    /// Lets the fleet run for a moment.
    pub(super) async fn settle(&self) {
        self.all_back().await;
        tokio::time::sleep(SETTLE).await;
    }

    /// Waits until every device is connected.
    pub(super) async fn all_back(&self) {
        let all = async || {
            let online = self.seen.online.load(Ordering::Acquire);
            (online == self.count).then_some(())
        };
        eventually("every device is connected", PATIENCE, all).await;
    }

    /// Waits until so many devices have noticed that their edge is gone.
    pub(super) async fn gone_from(&self, edge: &str, since: Instant, devices: usize) {
        let noticed = async || (self.ends(edge, since).len() >= devices).then_some(());
        eventually("every device of the edge noticed", PATIENCE, noticed).await;
    }

    /// Ends of connections to an edge since then.
    pub(super) fn ends(&self, edge: &str, since: Instant) -> Vec<End> {
        let ends = self.seen.ends.lock().unwrap();
        ends.iter().filter(|end| end.edge == edge && end.at >= since).cloned().collect()
    }

    /// Every end of a connection.
    pub(super) fn all_ends(&self) -> Vec<End> {
        self.seen.ends.lock().unwrap().clone()
    }

    /// Sends no more, waits until every command that was accepted is done, and says what it came to.
    pub(super) async fn finish(mut self) -> Summary {
        self.enough.store(true, Ordering::Release);
        let mut accepted = vec![];
        while let Some(sent) = self.busy.join_next().await {
            accepted.extend(sent.unwrap());
        }
        let key = |(device, id): &(String, String)| format!("{device}/{id}");
        let missing = || {
            let done = self.seen.done.lock().unwrap();
            accepted.iter().map(key).filter(|key| !done.contains_key(key)).collect::<Vec<_>>()
        };
        let until = Instant::now() + PATIENCE;
        while !missing().is_empty() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let lost = missing();
        let mut unfinished = vec![];
        for (device, id) in &accepted {
            let request =
                pb::GetCommandRequest { device_id: device.clone(), command_id: id.clone() };
            let end = async || {
                let mut commands = self.backend.backend.commands();
                let answer = commands.get_command(request.clone()).await.ok()?.into_inner();
                let state = answer.command?.state();
                (state >= CommandState::Succeeded).then_some(state)
            };
            let end = eventually("the hub knows how a command ended", PATIENCE, end).await;
            if end != CommandState::Succeeded {
                unfinished.push(format!("{device}/{id}: {end:?}"));
            }
        }
        let done = self.seen.done.lock().unwrap();
        let twice = done.iter().filter(|(_, times)| **times > 1).map(|(key, _)| key.clone());
        Summary {
            devices: self.count,
            accepted: accepted.len(),
            lost,
            twice: twice.collect(),
            unfinished,
            repeated: self.seen.repeated.load(Ordering::Relaxed),
            refused: self.seen.refused.load(Ordering::Relaxed),
            news: self.seen.news.load(Ordering::Relaxed),
            stall: *self.stalls.lock().unwrap(),
        }
    }
}

/// Sends commands to all devices in turn; gives those that the hub accepted.
async fn send_commands(
    backend: TestBackend,
    devices: usize,
    enough: Arc<AtomicBool>,
) -> Vec<(String, String)> {
    let mut accepted = vec![];
    let mut tick = tokio::time::interval(COMMANDS);
    for number in 0usize.. {
        tick.tick().await;
        if enough.load(Ordering::Acquire) {
            break;
        }
        // Neighbours are on different edges.
        let (device, id) = (format!("d-{}", number * 7 % devices), format!("c-{number}"));
        let offer = || with_ttl(TTL, with_id(&id, command(&device, "do")));
        // What a slow machine does not answer in time is offered again with the same id.
        while backend.try_send(offer()).await.is_err() {
            tokio::time::sleep(RETRY).await;
        }
        accepted.push((device, id));
    }
    accepted
}

/// Publishes to all devices.
async fn publish(backend: TestBackend, enough: Arc<AtomicBool>) -> Vec<(String, String)> {
    let mut tick = tokio::time::interval(NEWS);
    while !enough.load(Ordering::Acquire) {
        tick.tick().await;
        let news = pb::PublishRequest {
            topic: "fleet/news".to_owned(),
            payload: Some(payload(Body::Json("{\"rate\":5}".to_owned()))),
            ..Default::default()
        };
        // Best effort, as publications are: how many came is shown.
        backend.backend.messages().publish(news).await.ok();
    }
    vec![]
}

async fn watch_stalls(longest: Arc<Mutex<Duration>>) {
    let pause = Duration::from_millis(20);
    loop {
        let before = Instant::now();
        tokio::time::sleep(pause).await;
        let late = before.elapsed().saturating_sub(pause);
        let mut longest = longest.lock().unwrap();
        *longest = late.max(*longest);
    }
}

/// One device, which comes back whenever it is sent away.
struct Device {
    name: String,
    token: String,
    balancer: Arc<Balancer>,
    seen: Arc<Seen>,
    /// The ids of the commands that it has done.
    kept: HashSet<CommandId>,
    /// Results that the hub has not acknowledged: they are sent again on the next connection.
    unacknowledged: Vec<CommandId>,
}

// === impl Device ===

impl Device {
    async fn run(mut self) {
        // The place of its last end among all, to note how long it was away.
        let mut ended: Option<usize> = None;
        loop {
            let seat = self.balancer.seat();
            let Some(connection) = self.connect(&seat).await else {
                self.seen.refused.fetch_add(1, Ordering::Relaxed);
                drop(seat);
                tokio::time::sleep(random(JITTER)).await;
                continue;
            };
            if let Some(ended) = ended {
                let end = &mut self.seen.ends.lock().unwrap()[ended];
                end.away = Some(end.at.elapsed());
            }
            self.seen.online.fetch_add(1, Ordering::AcqRel);
            let (code, wait) = self.live(connection).await;
            self.seen.online.fetch_sub(1, Ordering::AcqRel);
            let end = End { edge: seat.edge.clone(), code, at: Instant::now(), away: None };
            drop(seat);
            ended = {
                let mut ends = self.seen.ends.lock().unwrap();
                ends.push(end);
                Some(ends.len() - 1)
            };
            tokio::time::sleep(wait + random(JITTER)).await;
        }
    }

    async fn connect(&self, seat: &Seat) -> Option<Connection> {
        let hello =
            Hello { keepalive: None, subscriptions: vec![TopicFilter::new("fleet/news").unwrap()] };
        let url = seat.url.parse().unwrap();
        Some(Connection::open(&url, Some(&self.token), &hello).await.ok()?.0)
    }

    /// One connection; gives how it ended, and how long the hub asked to stay away.
    async fn live(&mut self, mut connection: Connection) -> (u16, Duration) {
        for id in &self.unacknowledged {
            connection.queue(&succeeded(id));
        }
        let mut wait = Duration::ZERO;
        let first = Instant::now() + random(REPORTS);
        let mut report = tokio::time::interval_at(first, REPORTS);
        let mut working: Vec<(Instant, CommandId)> = vec![];
        loop {
            let ready = working.iter().map(|(at, _)| *at).min();
            let ready = ready.unwrap_or_else(|| Instant::now() + REPORTS);
            let said = tokio::select! {
                _ = report.tick() => {
                    connection.queue(&self.report());
                    continue;
                }
                () = tokio::time::sleep_until(ready), if !working.is_empty() => {
                    let now = Instant::now();
                    for (_, id) in working.extract_if(.., |(at, _)| *at <= now) {
                        connection.queue(&succeeded(&id));
                    }
                    continue;
                }
                said = connection.next() => said,
            };
            match said {
                Ok(ToDevice::Command { command_id, .. }) => {
                    self.carry_out(&command_id);
                    working.push((Instant::now() + random(WORK), command_id));
                }
                Ok(ToDevice::Ack { command_id: Some(done), .. }) => {
                    self.unacknowledged.retain(|id| *id != done);
                }
                Ok(ToDevice::Error { command_id: Some(id), retryable: true, .. }) => {
                    connection.queue(&succeeded(&id));
                }
                Ok(ToDevice::Message(_)) => {
                    self.seen.news.fetch_add(1, Ordering::Relaxed);
                }
                Ok(ToDevice::Goaway { retry_after_ms, .. }) => {
                    wait = Duration::from_millis(retry_after_ms.unwrap_or_default());
                }
                Ok(_) => {}
                Err(closed) if closed.by == ClosedBy::Network => return (1006, Duration::ZERO),
                Err(closed) => return (closed.code, wait),
            }
        }
    }

    /// Does a command that it has not done yet.
    fn carry_out(&mut self, id: &CommandId) {
        if self.kept.insert(id.clone()) {
            let mut done = self.seen.done.lock().unwrap();
            *done.entry(format!("{}/{id}", self.name)).or_default() += 1;
        } else {
            self.seen.repeated.fetch_add(1, Ordering::Relaxed);
        }
        if !self.unacknowledged.contains(id) {
            self.unacknowledged.push(id.clone());
        }
    }

    fn report(&self) -> FromDevice {
        FromDevice::Publish {
            id: None,
            topic: Topic::new(&format!("fleet/{}", self.name)).unwrap(),
            payload: Payload::json("{\"ok\":true}".into()),
            qos: Qos::BestEffort,
            headers: vec![],
        }
    }
}

fn succeeded(id: &CommandId) -> FromDevice {
    FromDevice::Result {
        id: Some(1),
        command_id: id.clone(),
        status: ResultStatus::Succeeded,
        payload: None,
        error: None,
        trace: None,
    }
}

/// Anything up to `most`.
fn random(most: Duration) -> Duration {
    let bytes = *roost_types::SessionId::random().as_bytes();
    let draw = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    most.mul_f64(f64::from(draw) / f64::from(u32::MAX))
}
