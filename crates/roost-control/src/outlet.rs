//! The queue of one Subscribe stream: bounded, and never silent about what it could not keep. Which
//! messages come here is decided in `fanout.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use roost_types::Message;
use tokio::sync::Notify;

/// What a message costs beside its payload, roughly: it stands in the queue of one stream only as a
/// pointer, but keeps the message alive.
const OVERHEAD: usize = 256;

/// What a stream gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    /// A message.
    Message(Arc<Message>),
    /// Messages may be missing here: this many, where it is known.
    Gap(Option<u64>),
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It is in the queue, behind a gap if messages before it found no room.
    Taken,
    /// Another filter of the same stream matched it before.
    Repeated,
    /// There was no room.
    Dropped,
}

/// The queue between the bus and a client that may be slow.
#[derive(Debug)]
pub(crate) struct Outlet {
    queue: Mutex<Queue>,
    ready: Notify,
    max_messages: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    /// How many messages found no room since the last gap was said. While it is not 0, nothing is
    /// taken until half of the queue is free: one long gap instead of many short ones.
    dropped: u64,
    /// The number of the message that came last.
    last: u64,
}

// === impl Outlet ===

impl Outlet {
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self { queue: Mutex::default(), ready: Notify::new(), max_messages, max_bytes }
    }

    /// Takes a message that has the number `number` among all that this node fans out, if there is
    /// room. Never waits.
    pub(crate) fn offer(&self, number: u64, message: &Arc<Message>) -> Offered {
        let mut queue = self.queue.lock();
        if queue.last == number {
            return Offered::Repeated;
        }
        queue.last = number;
        let gap = queue.dropped > 0;
        let share = if gap { 2 } else { 1 };
        let bytes = queue.bytes + cost(message);
        // An empty queue takes any message, whatever the bounds are.
        let fits = queue.items.len() < self.max_messages / share && bytes <= self.max_bytes / share;
        if !fits && !queue.items.is_empty() {
            queue.dropped += 1;
            return Offered::Dropped;
        }
        if gap {
            let dropped = std::mem::take(&mut queue.dropped);
            queue.items.push_back(Item::Gap(Some(dropped)));
        }
        queue.bytes = bytes;
        queue.items.push_back(Item::Message(Arc::clone(message)));
        drop(queue);
        self.ready.notify_one();
        Offered::Taken
    }

    /// Says that messages may be missing here, once in a row.
    pub(crate) fn gap(&self) {
        let mut queue = self.queue.lock();
        if queue.items.back() != Some(&Item::Gap(None)) {
            queue.items.push_back(Item::Gap(None));
        }
        drop(queue);
        self.ready.notify_one();
    }

    /// The next item, waiting for one. Cancel safe; for one consumer.
    pub(crate) async fn next(&self) -> Item {
        loop {
            if let Some(item) = self.take() {
                return item;
            }
            self.ready.notified().await;
        }
    }

    fn take(&self) -> Option<Item> {
        let mut queue = self.queue.lock();
        match queue.items.pop_front() {
            Some(Item::Message(message)) => {
                queue.bytes -= cost(&message);
                Some(Item::Message(message))
            }
            None if queue.dropped > 0 => Some(Item::Gap(Some(std::mem::take(&mut queue.dropped)))),
            other => other,
        }
    }
}

fn cost(message: &Message) -> usize {
    let headers = message.headers.iter().map(|(name, value)| name.len() + value.len());
    message.payload.len() + message.topic.as_str().len() + headers.sum::<usize>() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_types::{Origin, Payload, Qos, Topic, UnixMillis};

    fn message(text: &str) -> Arc<Message> {
        Arc::new(Message {
            topic: Topic::new("t").unwrap(),
            payload: Payload::text(text.into()),
            headers: vec![],
            qos: Qos::BestEffort,
            time: UnixMillis(0),
            from: Origin::Service("s".into()),
            position: None,
        })
    }

    #[tokio::test]
    async fn a_message_is_taken_once_and_in_order() {
        let outlet = Outlet::new(10, 1 << 20);
        assert_eq!(outlet.offer(1, &message("a")), Offered::Taken);
        assert_eq!(outlet.offer(1, &message("a")), Offered::Repeated);
        assert_eq!(outlet.offer(2, &message("b")), Offered::Taken);
        assert_eq!(outlet.next().await, Item::Message(message("a")));
        assert_eq!(outlet.next().await, Item::Message(message("b")));
        assert_eq!(outlet.take(), None);
    }

    #[tokio::test]
    async fn what_found_no_room_is_said_where_it_is_missing() {
        let outlet = Outlet::new(4, 1 << 20);
        for number in 1..=4 {
            assert_eq!(outlet.offer(number, &message("x")), Offered::Taken);
        }
        assert_eq!(outlet.offer(5, &message("x")), Offered::Dropped);
        outlet.next().await;
        assert_eq!(outlet.offer(6, &message("x")), Offered::Dropped, "not half free yet");
        outlet.next().await;
        outlet.next().await;
        assert_eq!(outlet.offer(7, &message("y")), Offered::Taken);
        assert_eq!(outlet.next().await, Item::Message(message("x")));
        assert_eq!(outlet.next().await, Item::Gap(Some(2)));
        assert_eq!(outlet.next().await, Item::Message(message("y")));
    }

    #[tokio::test]
    async fn a_gap_at_the_end_needs_no_further_message() {
        let outlet = Outlet::new(1, 1 << 20);
        outlet.offer(1, &message("x"));
        outlet.offer(2, &message("x"));
        outlet.next().await;
        assert_eq!(outlet.next().await, Item::Gap(Some(1)));
        assert_eq!(outlet.take(), None);
    }

    #[test]
    fn bytes_are_bounded_and_one_message_always_fits() {
        let outlet = Outlet::new(10, 10);
        assert_eq!(outlet.offer(1, &message("xxxx")), Offered::Taken);
        assert_eq!(outlet.offer(2, &message("x")), Offered::Dropped);
        outlet.take();
        assert_eq!(outlet.offer(3, &message("x")), Offered::Taken);
    }

    #[test]
    fn interruptions_in_a_row_are_one_gap() {
        let outlet = Outlet::new(10, 1000);
        outlet.gap();
        outlet.gap();
        assert_eq!(outlet.take(), Some(Item::Gap(None)));
        assert_eq!(outlet.take(), None);
    }
}
