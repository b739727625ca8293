//! Writing to a device: straight to the socket where it takes the frame, into the bounded outbox
//! where it does not.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use roost_telemetry::metrics::labels::{Direction, DropReason, GapCause, SlowAction};
use roost_types::{CommandId, ErrorCode, HubError, Topic, TopicFilter};
use roost_wire::device::ToDevice;
use tokio::sync::Notify;

use super::{Conn, Stage, timers};
use crate::adapter;
use crate::outbox::{Missed, Outbox, Written};
use crate::session;
use crate::wheel::ticks;

/// How much may wait for a device that has no session: it is owed answers to pings and no more.
const GREETING_QUEUE: usize = 4 << 10;

/// What becomes of a frame that finds the outbox full.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Class<'a> {
    /// The device must have it: a device too slow even for this is closed.
    Control,
    /// Best effort: it is dropped, counted, and told as a gap of this topic when there is room.
    Publication(&'a Topic),
    /// It waits in the mailbox, not here, since it must not be handed over after its time: it is
    /// queued only where the socket took its beginning.
    Command,
}

/// Where a frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// To the socket.
    Written,
    /// Behind others.
    Queued,
    /// Nowhere.
    Dropped,
    /// Nowhere, since the socket is full: the mailbox is read again when it is not.
    Postponed,
}

impl Conn {
    /// Says something to the device; once the connection is closing nothing is said any more.
    pub(crate) fn say(self: &Rc<Self>, message: &ToDevice) -> Sent {
        if !self.is_open() {
            return Sent::Dropped;
        }
        let kind = adapter::kind_of(message);
        let frame = adapter::encode(self.speech, message);
        let class = match message {
            ToDevice::Command { .. } => Class::Command,
            _ => Class::Control,
        };
        let sent = self.send(&frame, class);
        if matches!(sent, Sent::Written | Sent::Queued) {
            self.worker.edge.metrics().messages.inc((Direction::Out, kind));
            self.worker.edge.metrics().message_sized(Direction::Out, frame.len());
        }
        sent
    }

    /// Answers a request with an error; the connection stays.
    pub(crate) fn refuse(self: &Rc<Self>, id: Option<u32>, error: HubError) {
        self.say(&ToDevice::error(id, error));
    }

    /// Hands a whole frame to the socket or, if that is full, to the outbox. Never waits.
    pub(crate) fn send(self: &Rc<Self>, frame: &Bytes, class: Class<'_>) -> Sent {
        if !self.is_open() {
            return Sent::Dropped;
        }
        if self.outbox.borrow().is_some() {
            return self.queue(frame, class);
        }
        self.write(frame, class)
    }

    /// Writes what fits and starts an outbox for the rest.
    fn write(self: &Rc<Self>, frame: &Bytes, class: Class<'_>) -> Sent {
        let taken = match self.transport.try_write(frame) {
            Ok(taken) => {
                self.count_written(taken);
                if taken == frame.len() && self.transport.is_flushed() {
                    return Sent::Written;
                }
                taken
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.break_off();
                return Sent::Dropped;
            }
        };
        let postponed = taken == 0 && matches!(class, Class::Command);
        let outbox = if postponed {
            Outbox::waiting_to_read_mail()
        } else {
            Outbox::beginning_with(frame.clone(), taken)
        };
        self.count_queued(outbox.bytes());
        *self.outbox.borrow_mut() = Some(Box::new(outbox));
        let stall = ticks(self.worker.edge.config.timeouts.stall);
        self.timers.stalled_by.set(self.worker.now.get() + stall);
        self.arm();
        tokio::task::spawn_local(flush(Rc::clone(self)));
        if postponed { Sent::Postponed } else { Sent::Queued }
    }

    fn queue(self: &Rc<Self>, frame: &Bytes, class: Class<'_>) -> Sent {
        let limit = match self.stage.get() {
            Stage::Greeting => GREETING_QUEUE,
            _ => self.worker.edge.config.send_queue_bytes,
        };
        let metrics = self.worker.edge.metrics();
        {
            let mut slot = self.outbox.borrow_mut();
            let outbox = slot.as_mut().expect("the caller saw an outbox");
            if let Class::Command = class {
                outbox.mail_waits = true;
                return Sent::Postponed;
            }
            if outbox.has_room_for(frame.len(), limit) {
                outbox.push(frame.clone());
                self.count_queued(frame.len());
                return Sent::Queued;
            }
            if let Class::Publication(topic) = class {
                outbox.missed.add(topic);
                metrics.messages_dropped.inc(DropReason::QueueFull);
                metrics.slow_consumers.inc(SlowAction::DroppedNewest);
                return Sent::Dropped;
            }
        }
        self.close_slow("the send queue is full: the device does not read what it is sent");
        Sent::Dropped
    }

    /// Closes a device that does not read, dropping what waits for it.
    pub(super) fn close_slow(self: &Rc<Self>, message: &'static str) {
        if let Some(outbox) = self.outbox.borrow_mut().as_mut() {
            let before = outbox.bytes();
            outbox.truncate();
            self.count_dequeued(before - outbox.bytes());
        }
        self.worker.edge.metrics().slow_consumers.inc(SlowAction::Closed);
        self.close(HubError::new(ErrorCode::SlowConsumer, message));
    }

    /// Sends the last frames of a connection, whatever waits before them.
    pub(super) fn send_last(self: &Rc<Self>, frame: &Bytes) {
        let mut slot = self.outbox.borrow_mut();
        if let Some(outbox) = slot.as_mut() {
            outbox.push(frame.clone());
            self.count_queued(frame.len());
            return;
        }
        drop(slot);
        self.write(frame, Class::Control);
    }

    /// Whether the socket takes everything: commands are delivered only then.
    pub(crate) fn has_room(&self) -> bool {
        self.outbox.borrow().is_none()
    }

    /// Asks for the mailbox to be read when there is room; `false` where there is room now.
    pub(crate) fn read_mail_when_room(&self) -> bool {
        self.outbox.borrow_mut().as_mut().is_some_and(|outbox| {
            outbox.mail_waits = true;
            true
        })
    }

    /// Lets a queued command count as sent when the queue is written; `false` where nothing waits.
    pub(crate) fn report_when_written(&self, command: &CommandId) -> bool {
        self.outbox.borrow_mut().as_mut().is_some_and(|outbox| {
            outbox.unreported.push(command.clone());
            true
        })
    }

    /// Waits until everything is written, or nothing will be.
    pub(super) async fn drained(&self) {
        let waiting =
            self.outbox.borrow_mut().as_mut().map(|outbox| {
                Rc::clone(outbox.drained.get_or_insert_with(|| Rc::new(Notify::new())))
            });
        if let Some(drained) = waiting {
            drained.notified().await;
        }
    }

    fn write_queued(&self) -> io::Result<Written> {
        let mut slot = self.outbox.borrow_mut();
        let Some(outbox) = slot.as_mut() else {
            return Ok(Written::All);
        };
        let before = outbox.bytes();
        let written = outbox.write(&self.transport);
        self.count_dequeued(before - outbox.bytes());
        self.count_written(before - outbox.bytes());
        written
    }

    /// The socket takes everything again.
    fn on_room(self: &Rc<Self>) {
        self.timers.stalled_by.set(timers::NEVER);
        let Some(mut outbox) = self.outbox.borrow_mut().take() else {
            return;
        };
        let Some(session) = self.live_session() else {
            return;
        };
        for command in outbox.unreported.drain(..) {
            session::mail::report_sent(self, session, command);
        }
        match std::mem::take(&mut outbox.missed) {
            Missed::Nothing => {}
            Missed::Topics(topics) => session::tell_gap(self, GapCause::Dropped, |filter| {
                topics.iter().any(|topic| filter.matches(topic))
            }),
            Missed::Everything => session::tell_gap(self, GapCause::Dropped, |_| true),
        }
        if outbox.mail_waits {
            session::mail::read(self);
        }
    }

    /// Tells of a gap in a subscription whose extent is not known.
    pub(crate) fn say_gap(self: &Rc<Self>, topic: TopicFilter, cause: GapCause) {
        self.worker.edge.metrics().gaps.inc(cause);
        let (from, to) = (None, None);
        self.say(&ToDevice::Gap { topic, from, to });
    }

    /// Gives the outbox up.
    pub(super) fn drop_outbox(&self) {
        if let Some(outbox) = self.outbox.borrow_mut().take() {
            self.count_dequeued(outbox.bytes());
        }
    }

    /// The socket failed: the reading task will see its end, also where it waits for the outbox.
    pub(super) fn break_off(&self) {
        self.stage.set(Stage::Over);
        self.drop_outbox();
        self.transport.shutdown();
    }

    fn count_written(&self, bytes: usize) {
        self.worker.edge.metrics().message_bytes.add(Direction::Out, bytes as u64);
    }

    #[expect(clippy::cast_precision_loss, reason = "a queue has far fewer than 2^52 bytes")]
    fn count_queued(&self, bytes: usize) {
        self.worker.edge.metrics().send_queue_bytes.increment(bytes as f64);
    }

    #[expect(clippy::cast_precision_loss, reason = "a queue has far fewer than 2^52 bytes")]
    fn count_dequeued(&self, bytes: usize) {
        self.worker.edge.metrics().send_queue_bytes.decrement(bytes as f64);
    }
}

/// Writes a connection's outbox until it is empty. Exists only while there is one.
async fn flush(conn: Rc<Conn>) {
    loop {
        if conn.transport.writable().await.is_err() {
            return conn.break_off();
        }
        match conn.write_queued() {
            Ok(Written::All) => return conn.on_room(),
            Ok(Written::Some) => {}
            Err(_) => return conn.break_off(),
        }
    }
}
