//! The event streams of the partitions, and places in them. Who watches is in `presence.rs`.
//!
//! One XREAD names all streams, so that what it gives is one moment of them all. Stream ids begin with
//! Redis' time, hence events of different partitions have an order too; it is exact between
//! milliseconds. A cursor is an event's place in it: `epoch-ms-seq-partition`. Resuming there repeats at
//! most events of the same millisecond in other partitions.
//!
//! In a cluster each stream is read by itself, at a moment of its own and by the clock of its master.
//! Events of different partitions have an order up to [`CLUSTER_SKEW`] only, and so much is repeated.

use std::collections::HashMap;
use std::sync::Arc;

use redis::Value;
use roost_cluster::{LastClose, PresenceEvent, PresenceKind, StoreError};
use roost_telemetry::metrics::labels::RedisCommand;
use roost_types::{NodeId, Partition, UnixMillis};

use crate::error::corrupt;
use crate::keys::parse_dev;
use crate::link::Link;
use crate::reply::{Fields, Reply, parse};
use crate::sessions::{last_close, session_id};
use crate::store::PARTITIONS_AT_ONCE;

/// By how many milliseconds streams of different masters may disagree about what came first: how far
/// their clocks are apart, and what it takes to read all streams.
const CLUSTER_SKEW: u64 = 5_000;

/// A stream id.
pub(crate) type Id = (u64, u64);

/// Where a watch can resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) epoch: u64,
    id: Id,
    partition: u8,
}

/// An event with its place.
pub(crate) struct Placed {
    pub(crate) id: Id,
    pub(crate) partition: u8,
    pub(crate) event: PresenceEvent,
}

/// The streams of all partitions.
pub(crate) struct Streams {
    link: Arc<Link>,
    /// By partition.
    keys: Vec<String>,
    partitions: HashMap<String, u8>,
}

// === impl Cursor ===

impl Cursor {
    pub(crate) fn parse(text: &str) -> Result<Self, StoreError> {
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

    /// After which ids to read each stream, where their order is known up to so many milliseconds.
    fn starts(self, skew: u64) -> Vec<Id> {
        let start = |partition| match partition {
            p if p == self.partition => self.id,
            // Events of the same millisecond may have come before or after.
            _ => (self.id.0.saturating_sub(1 + skew), u64::MAX),
        };
        (0..=u8::MAX).map(start).collect()
    }
}

// === impl Streams ===

impl Streams {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        let keys: Vec<String> = Partition::all().map(|p| link.keys.events(p)).collect();
        let partitions = keys.iter().cloned().zip(0..=u8::MAX).collect();
        Self { link, keys, partitions }
    }

    /// After which ids to read each stream to resume at a cursor.
    pub(crate) fn starts(&self, cursor: Cursor) -> Vec<Id> {
        cursor.starts(if self.is_spread() { CLUSTER_SKEW } else { 0 })
    }

    /// Whether the streams are not all on one master.
    fn is_spread(&self) -> bool {
        self.link.target().is_cluster()
    }

    /// The places before everything.
    pub(crate) fn beginnings(&self) -> Vec<Id> {
        vec![(0, 0); self.keys.len()]
    }

    /// The last id of each stream.
    pub(crate) async fn ends(&self) -> Result<Vec<Id>, StoreError> {
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
    pub(crate) async fn read(&self, after: &[Id], epoch: u64) -> Result<Vec<Placed>, StoreError> {
        let mut events = self.read_some(&self.keys, after, epoch).await?;
        events.sort_by_key(|placed| (placed.id, placed.partition));
        Ok(events)
    }

    /// The events after `after` and up to `to`, in order. They may be as many as are kept, so that the
    /// streams are read some at a time, not to hold up whatever else there is to ask.
    pub(crate) async fn read_back(
        &self,
        after: &[Id],
        to: &[Id],
        epoch: u64,
    ) -> Result<Vec<Placed>, StoreError> {
        let mut events = Vec::new();
        let (keys, after) =
            (self.keys.chunks(PARTITIONS_AT_ONCE), after.chunks(PARTITIONS_AT_ONCE));
        for (keys, after) in keys.zip(after) {
            events.extend(self.read_some(keys, after, epoch).await?);
        }
        events.retain(|placed| placed.id <= to[usize::from(placed.partition)]);
        events.sort_by_key(|placed| (placed.id, placed.partition));
        Ok(events)
    }

    async fn read_some(
        &self,
        keys: &[String],
        after: &[Id],
        epoch: u64,
    ) -> Result<Vec<Placed>, StoreError> {
        let at_once = if self.is_spread() { 1 } else { keys.len() };
        let mut pipe = redis::pipe();
        for (keys, after) in keys.chunks(at_once).zip(after.chunks(at_once)) {
            pipe.cmd("XREAD").arg("STREAMS").arg(keys);
            for (ms, seq) in after {
                pipe.arg(format!("{ms}-{seq}"));
            }
        }
        let mut events = Vec::new();
        for found in self.link.ask(RedisCommand::Lookup, &mut pipe).await? {
            let mut streams = Reply::new(found)?;
            while !streams.is_done() {
                self.take_events(streams.list()?, epoch, &mut events)?;
            }
        }
        Ok(events)
    }

    /// Adds what was read of one stream.
    fn take_events(
        &self,
        mut stream: Reply,
        epoch: u64,
        events: &mut Vec<Placed>,
    ) -> Result<(), StoreError> {
        let key = stream.text()?;
        let partition = *self
            .partitions
            .get(&key)
            .ok_or_else(|| corrupt(format!("{key:?} is no event stream")))?;
        let mut entries = stream.list()?;
        while !entries.is_done() {
            let mut entry = entries.list()?;
            let id = parse_id(&entry.text()?)?;
            let place = Cursor { epoch, id, partition };
            match entry.fields().and_then(|fields| event(place, fields)) {
                Ok(event) => events.push(Placed { id, partition, event }),
                Err(error) => tracing::error!(%error, key, "passed over a spoiled event"),
            }
        }
        Ok(())
    }

    /// Whether any stream lost entries after these ids to its bound.
    pub(crate) async fn was_trimmed(&self, after: &[Id]) -> Result<bool, StoreError> {
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

fn event(place: Cursor, mut fields: Fields) -> Result<PresenceEvent, StoreError> {
    let kind = fields.needed_text("e")?;
    let kind = PresenceKind::parse(&kind)
        .ok_or_else(|| corrupt(format!("{kind:?} is no presence event")))?;
    let device = fields.needed_text("d")?;
    let device = parse_dev(&device).ok_or_else(|| corrupt(format!("{device:?} is no device")))?;
    let time = UnixMillis(fields.needed("t")?);
    let close: Option<LastClose> = match kind {
        PresenceKind::Disconnected => Some(last_close(&mut fields, time)?),
        PresenceKind::Connected | PresenceKind::TakenOver | PresenceKind::Contested => None,
    };
    let cursor = place.text();
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
        let starts = cursor.starts(0);
        assert_eq!(starts[200], cursor.id);
        assert_eq!(starts[199], (1_699_999_999_999, u64::MAX));
        assert_eq!(cursor.starts(CLUSTER_SKEW)[199], (1_699_999_994_999, u64::MAX));
    }
}
