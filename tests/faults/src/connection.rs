//! One connection of a device of the fleet: commands in, results out, each written down. What the device
//! keeps over its connections is in `device.rs`.

use std::collections::HashMap;
use std::time::Duration;

use roost_checker::{Event, Kind};
use roost_client::device::{Closed, Connection};
use roost_types::{CommandId, CommandState, Payload, ResultStatus};
use roost_wire::device::{FromDevice, ToDevice};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::device::{Device, Order, POISON};

/// How old a result must be to be sent again on the same connection.
const RESEND: Duration = Duration::from_secs(2);
/// How long after a retryable error a result is sent again.
const AGAIN: Duration = Duration::from_millis(500);
/// Pause between two looks at what is to be sent again.
const LOOK: Duration = Duration::from_millis(250);
/// Of a thousand commands, so many fail.
const FAILS: u64 = 30;

/// Why a connection ended.
pub(crate) enum End {
    Closed(Closed),
    Ordered(Order),
    /// The device crashed over a command.
    Crashed,
}

/// A result that was sent on this connection and is not answered.
struct Sent {
    /// `None` once the hub has answered that it may be taken later.
    op: Option<u64>,
    command: CommandId,
    /// When it is to be sent again.
    again: Instant,
}

/// A device on one of its connections.
struct Live<'a> {
    device: &'a mut Device,
    connection: Connection,
    session: &'a str,
    /// By the number of the request.
    sent: HashMap<u32, Sent>,
}

/// Serves a connection until it ends; gives it back.
pub(crate) async fn serve(
    device: &mut Device,
    connection: Connection,
    session: &str,
) -> (Connection, End) {
    let mut live = Live { device, connection, session, sent: HashMap::new() };
    let end = live.run().await;
    // What was not answered on this connection is sent on the next one.
    for op in live.sent.values().filter_map(|sent| sent.op) {
        live.device.around.journal.answer(Kind::Unknown, op);
    }
    (live.connection, end)
}

// === impl Live ===

impl Live<'_> {
    async fn run(&mut self) -> End {
        for command in self.device.unacknowledged.clone() {
            self.send_result(command);
        }
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                // First, or a busy connection would keep a scenario waiting.
                Some(order) = self.device.orders.recv() => return End::Ordered(order),
                _ = look.tick() => self.send_again(),
                said = self.connection.next() => match said {
                    Ok(said) => {
                        if let Some(end) = self.hear(said) {
                            return end;
                        }
                    }
                    Err(closed) => return End::Closed(closed),
                },
            }
        }
    }

    fn hear(&mut self, said: ToDevice) -> Option<End> {
        let device = &mut *self.device;
        match said {
            ToDevice::Command { command_id, name, payload, expires_ms, expires_in_ms, .. } => {
                let handed =
                    device.around.journal.at_hub_ms(expires_ms.0 - expires_in_ms.min(expires_ms.0));
                self.note_delivery(&command_id, payload.as_ref(), handed);
                if &*name == POISON {
                    return Some(End::Crashed);
                }
                let over = self.device.around.journal.hub_ms() > expires_ms.0;
                self.perform(command_id, over);
            }
            ToDevice::Ack { id: Some(id), .. } => self.settle(id, Kind::Ok, false),
            ToDevice::Error { id: Some(id), retryable, .. } => {
                // What may succeed later may have been done already.
                let kind = if retryable { Kind::Unknown } else { Kind::Fail };
                self.settle(id, kind, retryable);
            }
            ToDevice::Message(message) => {
                let body = text(&message.payload);
                device.around.journal.add(Event {
                    subscriber: device.name.device.as_str().into(),
                    topic: message.topic.to_string().into(),
                    tenant: device.name.tenant().into(),
                    body: body.into(),
                    ..Event::new(Kind::Message)
                });
            }
            _ => {}
        }
        None
    }

    fn note_delivery(&self, command: &CommandId, payload: Option<&Payload>, handed: u64) {
        let body = payload.map(text).unwrap_or_default();
        let event = self.device.name.event(Kind::Deliver).command(command.as_str());
        let event = event.body(&body).session(self.session);
        self.device.around.journal.add(Event { handed: Some(handed), ..event });
    }

    /// Does a command, once, and says how that went, as often as it is asked.
    fn perform(&mut self, command: CommandId, over: bool) {
        let device = &mut *self.device;
        let around = &device.around;
        if device.done.contains_key(&command) {
            around.journal.repeated.add();
        } else if over {
            // It lay in a buffer for too long: it is left alone, and the hub ends it.
            return;
        } else {
            around.journal.add(device.name.event(Kind::Execute).command(command.as_str()));
            around.journal.executed.add();
            let fails = around.rng.happens(FAILS);
            let status = if fails { ResultStatus::Failed } else { ResultStatus::Succeeded };
            device.done.insert(command.clone(), status);
        }
        if !device.unacknowledged.contains(&command) {
            device.unacknowledged.push_back(command.clone());
        }
        if !self.sent.values().any(|sent| sent.command == command) {
            self.send_result(command);
        }
    }

    fn send_result(&mut self, command: CommandId) {
        let device = &mut *self.device;
        let Some(status) = device.done.get(&command).copied() else { return };
        let state = match status {
            ResultStatus::Succeeded => CommandState::Succeeded,
            ResultStatus::Failed => CommandState::Failed,
            ResultStatus::Rejected => CommandState::Rejected,
        };
        let event = device.name.event(Kind::Result).command(command.as_str()).state(state);
        let op = device.around.journal.invoke(event.session(self.session));
        device.next_id = device.next_id.wrapping_add(1);
        let error = (status == ResultStatus::Failed).then(|| "it was meant to fail".into());
        self.connection.queue(&FromDevice::Result {
            id: Some(device.next_id),
            command_id: command.clone(),
            status,
            payload: None,
            error,
            trace: None,
        });
        let again = Instant::now() + RESEND;
        self.sent.insert(device.next_id, Sent { op: Some(op), command, again });
    }

    fn settle(&mut self, id: u32, kind: Kind, later: bool) {
        let Some(sent) = self.sent.get_mut(&id) else { return };
        if let Some(op) = sent.op.take() {
            self.device.around.journal.answer(kind, op);
        }
        if later {
            sent.again = Instant::now() + AGAIN;
        } else {
            let command = sent.command.clone();
            self.sent.remove(&id);
            self.device.unacknowledged.retain(|waiting| *waiting != command);
        }
    }

    fn send_again(&mut self) {
        let now = Instant::now();
        let due = self.sent.iter().filter(|(_, sent)| sent.again <= now).map(|(id, _)| *id);
        for id in due.collect::<Vec<_>>() {
            let sent = self.sent.remove(&id).expect("it was found a moment ago");
            if let Some(op) = sent.op {
                self.device.around.journal.answer(Kind::Unknown, op);
            }
            self.send_result(sent.command);
        }
    }
}

/// A payload as text: what tells it from every other one of the run.
pub(crate) fn text(payload: &Payload) -> String {
    String::from_utf8_lossy(payload.data()).into_owned()
}
