//! A simulated device: what it does with commands, and what it publishes. Its connection is in
//! `roost-client`; how many there are is decided by `simulate` and `demo`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use roost_client::device::{
    Device, DeviceEvent, DeviceEvents, DeviceOptions, IncomingCommand, Outcome,
};
use roost_types::{Message, Payload, Text, Topic};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

/// What simulated devices do with a command, as `--help` shows it.
pub const VOCABULARY: &str = "\
The devices know these commands:
  echo    answers with the payload it was given
  read    answers with a made-up temperature
  reboot  reports progress three times, then that it is up again
  wait    answers after {\"ms\": N}, 1000 if not said, at most 60000
  fail    fails
and reject any other.";

/// What all simulated devices together have seen.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connected now.
    pub online: AtomicU64,
    /// Connections made, again ones included.
    pub connects: AtomicU64,
    /// Commands that came.
    pub commands: AtomicU64,
    /// Messages that came for subscriptions.
    pub messages: AtomicU64,
    /// Telemetry published.
    pub telemetry: AtomicU64,
    /// Attempts to connect that failed.
    pub failures: AtomicU64,
}

/// What a simulated device tells whoever watches it.
#[derive(Debug)]
pub enum Seen {
    /// It is connected.
    Online(String),
    /// A message came for one of its subscriptions.
    Message(String, Message),
    /// Its connection ended, or could not be made, for this reason.
    Offline(String, String),
}

/// How a simulated device lives.
#[derive(Debug)]
pub struct Simulated {
    /// Its name, for whoever watches.
    pub name: String,
    /// How it connects.
    pub options: DeviceOptions,
    /// How often it publishes a temperature to `telemetry/NAME`; `None` for never.
    pub telemetry: Option<Duration>,
    /// Where it counts.
    pub counts: Arc<Counts>,
    /// Who watches. One that does not keep up misses something.
    pub watcher: Option<mpsc::Sender<Seen>>,
}

// === impl Simulated ===

impl Simulated {
    /// Lives until the hub asks it not to come back. Dropping it cuts its connection.
    pub async fn live(self) {
        let (device, mut events) = Device::start(self.options.clone());
        let mut telemetry = self.telemetry.map(|every| {
            // Spread over the interval, so that a thousand devices are no thundering herd.
            let share = f64::from(hash(&self.name)) / f64::from(u32::MAX);
            let first = tokio::time::Instant::now() + every.mul_f64(share);
            let mut interval = tokio::time::interval_at(first, every);
            interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
            interval
        });
        let mut online = Online(Arc::clone(&self.counts), false);
        let mut sent = 0;
        loop {
            let event = tokio::select! {
                biased;
                // Commands before telemetry.
                event = events.recv() => event,
                () = due(&mut telemetry), if online.1 => {
                    sent += 1;
                    self.publish(&device, sent).await;
                    continue;
                }
            };
            let Some(event) = event else { return };
            self.handle(event, &device, &mut events, &mut online).await;
        }
    }

    async fn handle(
        &self,
        event: DeviceEvent,
        device: &Device,
        events: &mut DeviceEvents,
        online: &mut Online,
    ) {
        match event {
            DeviceEvent::Connected(_) => {
                self.counts.connects.fetch_add(1, Ordering::Relaxed);
                online.set(true);
                self.tell(Seen::Online(self.name.clone()));
            }
            DeviceEvent::Command(command) => {
                self.counts.commands.fetch_add(1, Ordering::Relaxed);
                let outcome = obey(device, command, &self.name).await;
                if device.finish(outcome).await.is_err() {
                    events.close();
                }
            }
            DeviceEvent::Message(message) => {
                self.counts.messages.fetch_add(1, Ordering::Relaxed);
                self.tell(Seen::Message(self.name.clone(), message));
            }
            DeviceEvent::Disconnected { closed, .. } => {
                online.set(false);
                self.tell(Seen::Offline(self.name.clone(), closed.to_string()));
            }
            DeviceEvent::Unreachable { reason, .. } => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                self.tell(Seen::Offline(self.name.clone(), reason));
            }
            // Also before each planned close: nothing to shout about.
            DeviceEvent::Complaint(error) => {
                tracing::info!(device.id = %self.name, %error, "the hub complains");
            }
            DeviceEvent::Cancel(_) | DeviceEvent::Gap { .. } | DeviceEvent::Goaway { .. } => {}
        }
    }

    fn tell(&self, seen: Seen) {
        if let Some(watcher) = &self.watcher
            && watcher.try_send(seen).is_err()
        {
            tracing::debug!(device.id = %self.name, "the watcher does not keep up");
        }
    }

    async fn publish(&self, device: &Device, sent: u64) {
        let topic = Topic::new(&format!("telemetry/{}", self.name));
        let Ok(topic) = topic else { return };
        let text = format!("{{\"celsius\":{},\"sent\":{sent}}}", temperature(&self.name));
        if device.tell(topic, Payload::json(text.into())).await.is_ok() {
            self.counts.telemetry.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counts a device as online, once, however it ends.
struct Online(Arc<Counts>, bool);

impl Online {
    fn set(&mut self, online: bool) {
        if std::mem::replace(&mut self.1, online) != online {
            let count = &self.0.online;
            let change = if online { 1 } else { u64::MAX };
            count.fetch_add(change, Ordering::Relaxed);
        }
    }
}

impl Drop for Online {
    fn drop(&mut self) {
        self.set(false);
    }
}

async fn due(telemetry: &mut Option<Interval>) {
    match telemetry {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// Does what a command says, and answers how that went.
async fn obey(device: &Device, command: IncomingCommand, name: &str) -> Outcome {
    let id = command.command_id;
    let answer = |text: String| Some(Payload::json(Text::from(text)));
    match &*command.name {
        "echo" => Outcome::succeeded(id).with_payload(command.payload),
        "read" => {
            let text = format!("{{\"celsius\":{}}}", temperature(name));
            Outcome::succeeded(id).with_payload(answer(text))
        }
        "reboot" => {
            for (percent, note) in [(10, "stopping"), (50, "starting"), (90, "checking")] {
                let told = device.progress(id.clone(), Some(percent), Some(note)).await;
                if told.is_err() {
                    break;
                }
            }
            Outcome::succeeded(id).with_payload(answer("{\"uptime_s\":0}".to_owned()))
        }
        "wait" => {
            let millis = wait_millis(command.payload.as_ref());
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Outcome::succeeded(id).with_payload(answer(format!("{{\"waited_ms\":{millis}}}")))
        }
        "fail" => Outcome::failed(id, "asked to fail"),
        other => {
            let error =
                format!("{other:?} is not known here; echo, read, reboot, wait and fail are");
            Outcome::rejected(id, &error)
        }
    }
}

fn wait_millis(payload: Option<&Payload>) -> u64 {
    let text = payload.and_then(Payload::as_str).unwrap_or_default();
    let value: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let millis = value.and_then(|value| value["ms"].as_u64());
    millis.unwrap_or(1_000).min(60_000)
}

/// Made up, but a device's own: 15.0 to 24.9.
fn temperature(name: &str) -> f64 {
    15.0 + f64::from(hash(name) % 100) / 10.0
}

fn hash(name: &str) -> u32 {
    name.bytes().fold(2_166_136_261, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619))
}
