//! Watches of presence: one task per node reads the partitions' event streams while anybody watches,
//! and hands each event to the watches of its tenant.
//!
//! One XREAD names all streams, so that what it gives is one moment of them all. Stream ids begin with
//! Redis' time, hence events of different partitions have an order too; it is exact between
//! milliseconds. A cursor is an event's place in it: `epoch-ms-seq-partition`. Resuming there repeats at
//! most events of the same millisecond in other partitions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use roost_cluster::{LastClose, PresenceEvent, PresenceItem, PresenceKind, StoreError};
use roost_telemetry::metrics::labels::RedisCommand;
use roost_types::{NodeId, Partition, TenantId, UnixMillis};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::bus::BusNode;
use crate::error::corrupt;
use crate::keys::parse_dev;
use crate::link::Link;
use crate::reply::{Fields, Reply, parse};
use crate::sessions::{last_close, session_id};

/// The streams are read this often even if nobody rang: a ring may be lost.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long rings are gathered before the streams are read.
const GATHER: Duration = Duration::from_millis(5);
/// How many events a watcher may lag behind before it gets a gap.
const WATCH_QUEUE: usize = 4_096;

/// A stream id.
type Id = (u64, u64);

/// Where a watch can resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    epoch: u64,
    id: Id,
    partition: u8,
}

/// Asks the task for a watch.
#[derive(Debug)]
pub(crate) struct WatchRequest {
    tenant: TenantId,
    cursor: Option<Cursor>,
    done: oneshot::Sender<Result<mpsc::Receiver<PresenceItem>, StoreError>>,
}

/// Sets a watch up; returns when nothing that happens from now on is missed.
pub(crate) async fn watch(
    requests: &mpsc::Sender<WatchRequest>,
    tenant: &TenantId,
    cursor: Option<&str>,
) -> Result<mpsc::Receiver<PresenceItem>, StoreError> {
    let gone = || StoreError::NotSent("the watches have stopped".into());
    let cursor = cursor.map(Cursor::parse).transpose()?;
    let (done, answer) = oneshot::channel();
    let request = WatchRequest { tenant: tenant.clone(), cursor, done };
    requests.send(request).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

/// Reads and hands out until told to stop.
pub(crate) async fn run(
    link: Arc<Link>,
    bus: Arc<BusNode>,
    requests: mpsc::Receiver<WatchRequest>,
    stop: CancellationToken,
) {
    let keys: Vec<String> = Partition::all().map(|p| link.keys.events(p)).collect();
    let partitions = keys.iter().cloned().zip(0..=u8::MAX).collect();
    let task = Tail { link, bus, keys, partitions, at: None, epoch: 0, watchers: Vec::new() }
        .work(requests);
    // Only waits and reads are cut short here.
    stop.run_until_cancelled(task).await;
}

#[derive(Debug)]
struct Watcher {
    tenant: TenantId,
    sender: mpsc::Sender<PresenceItem>,
    /// Something was dropped; to be said before the next event.
    lagged: bool,
}

struct Tail {
    link: Arc<Link>,
    bus: Arc<BusNode>,
    /// The streams, by partition.
    keys: Vec<String>,
    partitions: HashMap<String, u8>,
    /// The last event read of each stream; `None` while nobody watches.
    at: Option<Vec<Id>>,
    /// Which data `at` belongs to.
    epoch: u64,
    watchers: Vec<Watcher>,
}

/// An event with its place.
struct Placed {
    id: Id,
    partition: u8,
    event: PresenceEvent,
}

// === impl Cursor ===

impl Cursor {
    fn parse(text: &str) -> Result<Self, StoreError> {
        let parts: Option<Vec<u64>> = text.split('-').map(|part| part.parse().ok()).collect();
        let cursor = match parts.as_deref() {
            Some(&[epoch, ms, seq, partition]) => u8::try_from(partition)
                .ok()
                .map(|partition| Self { epoch, id: (ms, seq), partition }),
            _ => None,
        };
        cursor.ok_or_else(|| StoreError::Invalid("this cursor is not one of this hub's".into()))
    }

    fn text(self) -> String {
        format!("{}-{}-{}-{}", self.epoch, self.id.0, self.id.1, self.partition)
    }

    /// After which ids to read each stream.
    fn starts(self) -> Vec<Id> {
        let start = |partition| match partition {
            p if p == self.partition => self.id,
            // Events of the same millisecond may have come before or after.
            _ => (self.id.0.saturating_sub(1), u64::MAX),
        };
        (0..=u8::MAX).map(start).collect()
    }
}

// === impl Watcher ===

impl Watcher {
    /// Whether the watcher is still there.
    fn offer(&mut self, event: &PresenceEvent) -> bool {
        if event.device.tenant == self.tenant {
            self.say_gap();
            let item = PresenceItem::Event(event.clone());
            self.lagged |= self.sender.try_send(item).is_err();
        }
        !self.sender.is_closed()
    }

    fn say_gap(&mut self) {
        if self.lagged {
            self.lagged = self.sender.try_send(PresenceItem::Gap).is_err();
        }
    }
}

// === impl Tail ===

impl Tail {
    async fn work(mut self, mut requests: mpsc::Receiver<WatchRequest>) {
        let bus = Arc::clone(&self.bus);
        loop {
            tokio::select! {
                biased;
                // Few; a flood of events must not keep a watch from being set up.
                request = requests.recv() => match request {
                    Some(request) => self.join(request).await,
                    None => return,
                },
                () = bus.bell.notified(), if self.at.is_some() => {
                    tokio::time::sleep(GATHER).await;
                    self.look_and_log().await;
                }
                () = tokio::time::sleep(LOOK_EVERY), if self.at.is_some() => self.look_and_log().await,
            }
        }
    }

    async fn join(&mut self, request: WatchRequest) {
        let WatchRequest { tenant, cursor, done } = request;
        let joined = self.try_join(tenant, cursor).await;
        // Nobody is told if the watcher is gone; the next look finds that too.
        drop(done.send(joined));
    }

    async fn try_join(
        &mut self,
        tenant: TenantId,
        cursor: Option<Cursor>,
    ) -> Result<mpsc::Receiver<PresenceItem>, StoreError> {
        if self.at.is_none() {
            self.bus.subscribe(self.link.keys.presence_channel()).await?;
            self.epoch = self.link.facts().epoch;
            self.at = Some(self.ends().await?);
        }
        self.look().await?;
        let (missed, lagged) = match cursor {
            Some(cursor) => self.missed(cursor).await?,
            None => (Vec::new(), false),
        };
        let (sender, receiver) = mpsc::channel(WATCH_QUEUE + missed.len());
        let mut watcher = Watcher { tenant, sender, lagged };
        watcher.say_gap();
        for placed in &missed {
            watcher.offer(&placed.event);
        }
        self.watchers.push(watcher);
        Ok(receiver)
    }

    /// What came after a cursor and was read already, and whether something may be missing.
    async fn missed(&self, cursor: Cursor) -> Result<(Vec<Placed>, bool), StoreError> {
        let same = cursor.epoch == self.epoch;
        let starts = if same { cursor.starts() } else { vec![(0, 0); self.keys.len()] };
        let trimmed = !same || self.was_trimmed(&starts).await?;
        let mut events = self.read(&starts).await?;
        if let Some(at) = &self.at {
            // What is newer comes with the next look.
            events.retain(|placed| placed.id <= at[usize::from(placed.partition)]);
        }
        Ok((events, trimmed))
    }

    async fn look_and_log(&mut self) {
        if let Err(error) = self.look().await {
            tracing::debug!(%error, "could not read presence events; will look again");
        }
        if self.watchers.is_empty() {
            self.at = None;
            self.bus.unsubscribe(self.link.keys.presence_channel()).await;
        }
    }

    /// Reads what is new and hands it out.
    async fn look(&mut self) -> Result<(), StoreError> {
        let Some(at) = self.at.clone() else {
            return Ok(());
        };
        let events = self.read(&at).await?;
        // Asked after the reading, which cannot have succeeded on the old data after a loss.
        let epoch = self.link.facts().epoch;
        if epoch != self.epoch {
            self.epoch = epoch;
            self.watchers.iter_mut().for_each(|watcher| watcher.lagged = true);
        }
        for placed in events {
            if let Some(at) = self.at.as_mut() {
                at[usize::from(placed.partition)] = placed.id;
            }
            self.watchers.retain_mut(|watcher| watcher.offer(&placed.event));
        }
        self.watchers.iter_mut().for_each(Watcher::say_gap);
        self.watchers.retain(|watcher| !watcher.sender.is_closed());
        Ok(())
    }

    /// The last id of each stream.
    async fn ends(&self) -> Result<Vec<Id>, StoreError> {
        let mut pipe = redis::pipe();
        for key in &self.keys {
            pipe.cmd("XREVRANGE").arg(key).arg("+").arg("-").arg("COUNT").arg(1);
        }
        let found = self.link.ask(RedisCommand::Lookup, &mut pipe).await?;
        let end = |entries| {
            let mut entries = Reply::new(entries)?;
            if entries.is_done() {
                return Ok((0, 0));
            }
            parse_id(&entries.list()?.text()?)
        };
        found.into_iter().map(end).collect()
    }

    /// All events after these ids, in order.
    async fn read(&self, after: &[Id]) -> Result<Vec<Placed>, StoreError> {
        let mut pipe = redis::pipe();
        pipe.cmd("XREAD").arg("STREAMS").arg(&self.keys);
        for (ms, seq) in after {
            pipe.arg(format!("{ms}-{seq}"));
        }
        let found = self.link.ask(RedisCommand::Lookup, &mut pipe).await?;
        let mut events = Vec::new();
        let mut streams = Reply::new(found.into_iter().next().unwrap_or(Value::Nil))?;
        while !streams.is_done() {
            let mut stream = streams.list()?;
            let key = stream.text()?;
            let partition = *self
                .partitions
                .get(&key)
                .ok_or_else(|| corrupt(format!("{key:?} is no event stream")))?;
            let mut entries = stream.list()?;
            while !entries.is_done() {
                let mut entry = entries.list()?;
                let id = parse_id(&entry.text()?)?;
                match self.event(id, partition, entry.fields()?) {
                    Ok(event) => events.push(Placed { id, partition, event }),
                    Err(error) => tracing::error!(%error, key, "passed over a spoiled event"),
                }
            }
        }
        events.sort_by_key(|placed| (placed.id, placed.partition));
        Ok(events)
    }

    fn event(
        &self,
        id: Id,
        partition: u8,
        mut fields: Fields,
    ) -> Result<PresenceEvent, StoreError> {
        let kind = fields.needed_text("e")?;
        let kind = PresenceKind::parse(&kind)
            .ok_or_else(|| corrupt(format!("{kind:?} is no presence event")))?;
        let device = fields.needed_text("d")?;
        let device =
            parse_dev(&device).ok_or_else(|| corrupt(format!("{device:?} is no device")))?;
        let time = UnixMillis(fields.needed("t")?);
        let close: Option<LastClose> = match kind {
            PresenceKind::Disconnected => Some(last_close(&mut fields, time)?),
            PresenceKind::Connected | PresenceKind::TakenOver => None,
        };
        let cursor = Cursor { epoch: self.epoch, id, partition }.text();
        Ok(PresenceEvent {
            id: cursor.clone(),
            cursor,
            device,
            kind,
            session: session_id(&fields.needed_text("i")?)?,
            node: NodeId::new(fields.needed_text("n")?).map_err(corrupt)?,
            time,
            close,
        })
    }

    /// Whether any stream lost entries after these ids to its bound.
    async fn was_trimmed(&self, after: &[Id]) -> Result<bool, StoreError> {
        let mut pipe = redis::pipe();
        for key in &self.keys {
            pipe.cmd("XINFO").arg("STREAM").arg(key);
        }
        let found = self.link.ask_all(RedisCommand::Lookup, &mut pipe).await?;
        for (info, start) in found.into_iter().zip(after) {
            // A stream that does not exist has lost nothing.
            let Ok(info) = info else { continue };
            if stream_lost(info, *start)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a stream, by its XINFO, may have lost entries after an id. Redis trims the oldest: whatever
/// went was older than the first that is left.
fn stream_lost(info: Value, after: Id) -> Result<bool, StoreError> {
    let mut info = Reply::new(info)?;
    let (mut length, mut added, mut first) = (0, 0, (u64::MAX, u64::MAX));
    while !info.is_done() {
        match info.text()?.as_str() {
            "length" => length = info.number()?,
            "entries-added" => added = info.number()?,
            "first-entry" => {
                if let Ok(mut entry) = info.list()
                    && !entry.is_done()
                {
                    first = parse_id(&entry.text()?)?;
                }
            }
            _ => info.skip(),
        }
    }
    Ok(added > length && first > after)
}

fn parse_id(text: &str) -> Result<Id, StoreError> {
    let (ms, seq) =
        text.split_once('-').ok_or_else(|| corrupt(format!("{text:?} is no stream id")))?;
    Ok((parse(ms)?, parse(seq)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_round_trips_and_others_are_refused() {
        let cursor = Cursor { epoch: 7, id: (1_700_000_000_000, 3), partition: 200 };
        assert_eq!(Cursor::parse(&cursor.text()), Ok(cursor));
        for bad in ["", "no cursor", "1-2-3", "1-2-3-256", "1-2-3-4-5", "1-2-3--4"] {
            assert!(matches!(Cursor::parse(bad), Err(StoreError::Invalid(_))), "{bad}");
        }
        let starts = cursor.starts();
        assert_eq!(starts[200], cursor.id);
        assert_eq!(starts[199], (1_699_999_999_999, u64::MAX));
    }
}
