//! The bounded queue between the reading side, which never waits, and the node. What does not fit is
//! counted, and said to be missing as soon as there is room.

use roost_cluster::{BusEvent, NodeEvent, Resubscribed};
use tokio::sync::mpsc;

/// How many events wait for a node that is busy: about a second of full load.
const QUEUE: usize = 65_536;
/// Publications leave this much of it to events for the node itself.
const RESERVE: usize = 4_096;

/// The writing end, and what could not be written.
#[derive(Debug)]
pub(super) struct Inbox {
    sender: mpsc::Sender<BusEvent>,
    /// Publications dropped since the last gap was said.
    dropped: u64,
    /// Whether events for the node were dropped.
    events_missing: bool,
}

// === impl Inbox ===

impl Inbox {
    pub(super) fn new() -> (Self, mpsc::Receiver<BusEvent>) {
        Self::bounded(QUEUE)
    }

    fn bounded(size: usize) -> (Self, mpsc::Receiver<BusEvent>) {
        let (sender, receiver) = mpsc::channel(size);
        (Self { sender, dropped: 0, events_missing: false }, receiver)
    }

    /// Takes a publication; gives whether there was room.
    pub(super) fn message(&mut self, message: BusEvent) -> bool {
        self.say_what_is_missing();
        let taken = self.has_room() && self.sender.try_send(message).is_ok();
        self.dropped += u64::from(!taken);
        taken
    }

    /// Takes an event for the node; gives whether there was room.
    pub(super) fn event(&mut self, event: NodeEvent) -> bool {
        self.say_what_is_missing();
        let taken = self.sender.try_send(BusEvent::Node(Box::new(event))).is_ok();
        self.events_missing |= !taken;
        taken
    }

    /// Says what was interrupted: what comes for the node itself, topics.
    pub(super) fn resubscribed(&mut self, node: bool, topics: bool) {
        self.events_missing |= node;
        self.say_what_is_missing();
        if !topics {
            return;
        }
        let topics = BusEvent::Resubscribed(Resubscribed::Topics);
        if self.sender.try_send(topics).is_err() {
            self.dropped += 1;
        }
    }

    /// To be called now and then, so that a gap is said even if nothing follows it.
    pub(super) fn say_what_is_missing(&mut self) {
        if self.events_missing {
            let node = BusEvent::Resubscribed(Resubscribed::Node);
            self.events_missing = self.sender.try_send(node).is_err();
        }
        let dropped = self.dropped;
        if dropped > 0 && self.has_room() && self.sender.try_send(BusEvent::Gap { dropped }).is_ok()
        {
            self.dropped = 0;
        }
    }

    /// Whether there is room for a publication.
    fn has_room(&self) -> bool {
        let reserve = RESERVE.min(self.sender.max_capacity() / 4);
        self.sender.capacity() > reserve
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_types::SessionId;

    fn event() -> NodeEvent {
        NodeEvent::ReplacedDone { session: SessionId::from_bytes([1; 16]) }
    }

    fn gap() -> BusEvent {
        BusEvent::Gap { dropped: 0 }
    }

    #[test]
    fn publications_leave_room_for_events_and_a_gap_is_said() {
        let (mut inbox, mut receiver) = Inbox::bounded(8);
        let taken = (0..10).filter(|_| inbox.message(gap())).count();
        assert_eq!(taken, 6, "a quarter is kept free");
        assert!(inbox.event(event()) && inbox.event(event()));
        assert!(!inbox.event(event()), "full at last");
        for _ in 0..8 {
            receiver.try_recv().unwrap();
        }
        inbox.say_what_is_missing();
        assert!(matches!(receiver.try_recv(), Ok(BusEvent::Resubscribed(Resubscribed::Node))));
        assert!(matches!(receiver.try_recv(), Ok(BusEvent::Gap { dropped: 4 })));
        assert!(receiver.try_recv().is_err());
    }
}
