//! What waits for a socket that was full, and what follows from its being full. It exists only
//! while something waits; the ordinary write goes straight to the socket (`conn/send.rs`).

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;

use bytes::{Buf, Bytes};
use roost_types::{CommandId, Topic};
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::transport::Transport;

/// How many frames go into one vectored write.
const BATCH: usize = 64;
/// What a queued frame costs beside its bytes: its place in the queue and its allocation. Without it
/// half a million empty pongs would fit a queue of 1 MiB.
const FRAME_COST: usize = 128;
/// How many topics are remembered one by one as missed; more are told as "all of them".
const MISSED_TOPICS: usize = 16;

/// Frames that wait for one socket, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Bytes>,
    /// The bytes of all of `queue`.
    bytes: usize,
    /// Whether part of the first frame is with the socket already, so that it must be finished.
    begun: bool,
    /// Publications that found no room.
    pub(crate) missed: Missed,
    /// Commands that count as sent once everything is written.
    pub(crate) unreported: Vec<CommandId>,
    /// Whether commands in the mailbox wait for room.
    pub(crate) mail_waits: bool,
    /// Woken when everything is written, or nothing will be any more.
    pub(crate) drained: Option<Rc<Notify>>,
}

/// Which topics a device missed publications of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Missed {
    /// None.
    #[default]
    Nothing,
    /// These.
    Topics(Vec<Topic>),
    /// Too many to tell them apart.
    Everything,
}

/// What a round of writing led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Everything is with the socket.
    All,
    /// The socket is full again.
    Some,
}

// === impl Outbox ===

impl Outbox {
    /// Begins with the rest of a frame of which the socket took `taken` bytes.
    pub(crate) fn beginning_with(mut frame: Bytes, taken: usize) -> Self {
        frame.advance(taken);
        let mut outbox = Self::default();
        // Over TLS the whole frame may be taken while its record is not with the socket.
        if !frame.is_empty() {
            outbox.begun = taken > 0;
            outbox.push(frame);
        }
        outbox
    }

    /// An outbox without frames: only the socket's readiness is awaited.
    pub(crate) fn waiting_to_read_mail() -> Self {
        let mut outbox = Self::default();
        outbox.mail_waits = true;
        outbox
    }

    pub(crate) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.queue.push_back(frame);
    }

    /// How many bytes wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a frame of `len` bytes fits, where all that waits may take `limit` bytes of memory.
    pub(crate) fn has_room_for(&self, len: usize, limit: usize) -> bool {
        self.bytes + len + (self.queue.len() + 1) * FRAME_COST <= limit
    }

    /// Drops every frame that the socket has nothing of yet: all but a first one that is begun.
    pub(crate) fn truncate(&mut self) {
        self.queue.truncate(usize::from(self.begun));
        self.bytes = self.queue.iter().map(Bytes::len).sum();
    }

    /// Writes until everything is written or the socket is full.
    pub(crate) fn write(&mut self, transport: &Transport) -> io::Result<Written> {
        while !self.queue.is_empty() {
            let slices: SmallVec<[IoSlice<'_>; BATCH]> =
                self.queue.iter().take(BATCH).map(|frame| IoSlice::new(frame)).collect();
            let written = transport.try_write_vectored(&slices);
            drop(slices);
            match written {
                Ok(taken) => self.take(taken),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Written::Some);
                }
                Err(error) => return Err(error),
            }
        }
        match transport.try_flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Written::Some),
            flushed => flushed.map(|()| Written::All),
        }
    }

    fn take(&mut self, mut taken: usize) {
        self.bytes -= taken;
        while let Some(first) = self.queue.front_mut() {
            if taken < first.len() {
                first.advance(taken);
                self.begun |= taken > 0;
                return;
            }
            taken -= first.len();
            self.begun = false;
            self.queue.pop_front();
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        if let Some(drained) = &self.drained {
            drained.notify_one();
        }
    }
}

// === impl Missed ===

impl Missed {
    /// Adds a topic; says whether it was not there before.
    pub(crate) fn add(&mut self, topic: &Topic) {
        match self {
            Self::Nothing => *self = Self::Topics(vec![topic.clone()]),
            Self::Topics(topics) if topics.contains(topic) => {}
            Self::Topics(topics) if topics.len() < MISSED_TOPICS => topics.push(topic.clone()),
            Self::Topics(_) => *self = Self::Everything,
            Self::Everything => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(outbox: &Outbox) -> Vec<&[u8]> {
        outbox.queue.iter().map(|frame| &frame[..]).collect()
    }

    #[test]
    fn partial_writes_keep_the_byte_order() {
        let mut outbox = Outbox::beginning_with(Bytes::from_static(b"hello"), 2);
        outbox.push(Bytes::from_static(b"world"));
        assert_eq!(queue(&outbox), [&b"llo"[..], b"world"]);
        outbox.take(4);
        assert_eq!((queue(&outbox), outbox.bytes()), (vec![&b"orld"[..]], 4));
        assert!(outbox.begun);
        outbox.take(4);
        assert_eq!((outbox.bytes(), outbox.begun), (0, false));
    }

    #[test]
    fn truncating_finishes_a_frame_that_is_begun_and_nothing_else() {
        let mut fresh = Outbox::beginning_with(Bytes::from_static(b"ab"), 0);
        fresh.truncate();
        assert_eq!(fresh.bytes(), 0);
        let mut begun = Outbox::beginning_with(Bytes::from_static(b"ab"), 1);
        begun.push(Bytes::from_static(b"cd"));
        begun.truncate();
        assert_eq!(queue(&begun), [b"b"]);
    }

    #[test]
    fn small_frames_fill_a_queue_by_what_they_cost() {
        let mut outbox = Outbox::default();
        let mut count = 0;
        while outbox.has_room_for(2, 1 << 20) {
            outbox.push(Bytes::from_static(b"\x8a\0"));
            count += 1;
        }
        assert!(count < 10_000, "{count} empty pongs fit 1 MiB");
    }

    #[test]
    fn many_missed_topics_become_all() {
        let mut missed = Missed::default();
        for n in 0..MISSED_TOPICS {
            missed.add(&Topic::new(&format!("t/{n}")).unwrap());
            missed.add(&Topic::new("t/0").unwrap());
        }
        assert!(matches!(&missed, Missed::Topics(topics) if topics.len() == MISSED_TOPICS));
        missed.add(&Topic::new("t/x").unwrap());
        assert_eq!(missed, Missed::Everything);
    }
}
