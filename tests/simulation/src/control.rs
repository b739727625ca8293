//! Control nodes: they send commands, retry with the same key what was not answered, cancel some, look
//! at what became of them, and sweep.

use roost_checker::{Event, Kind};
use roost_cluster::{Cancelled, Dispatch, Enqueued, SweepFinding};
use roost_types::{Command, CommandId, CommandSpec, CommandState, Payload, Text, UnixMillis};

use crate::settings::{CHAOS, LEASE, SWEEP, TTL, ms};
use crate::store::{Answer, Reply, Request};
use crate::world::{AtEdge, Happening, Purpose, World};

/// How often a back end tries.
const ATTEMPTS: u32 = 5;

/// What a back end wants done.
#[derive(Debug)]
pub(crate) struct Order {
    device: usize,
    id: CommandId,
    ttl: u64,
    attempts: u32,
    /// How often the hub may try; 0 for as often as it likes.
    max_attempts: u32,
    key: Option<&'static str>,
}

// === impl World ===

impl World {
    /// Plans a command: when it is sent, whether it is cancelled, when it is looked at.
    pub(crate) fn place_order(&mut self) {
        let order = self.orders.len();
        // Some names are used on several devices.
        let id = CommandId::new(format!("c{}", order - order % 2)).expect("a short name is an id");
        let device = (self.rng.index(2) + 2 * (order % 2)) % self.devices.len();
        let ttl = self.rng.between(TTL.0, TTL.1);
        let max_attempts = if self.rng.happens(300) { self.rng.between(1, 4) } else { 0 };
        let max_attempts = u32::try_from(max_attempts).expect("a few attempts");
        let key = [None, None, Some("k1"), Some("k2")][self.rng.index(4)];
        if self.rng.happens(self.rates().poison) {
            self.devices[device].poison.insert(id.clone());
        }
        self.orders.push(Order { device, id, ttl, attempts: 0, max_attempts, key });
        let at = self.rng.between(100, CHAOS);
        self.after(at, Happening::Send(order));
        if self.rng.happens(150) {
            let at = at + self.rng.between(1, 2_000);
            self.after(at, Happening::Cancel(order));
        }
        for _ in 0..3 {
            let at = at + self.rng.between(1, 10_000);
            self.after(at, Happening::Look(order));
        }
    }

    fn about(&self, kind: Kind, order: usize) -> Event<'static> {
        let Order { device, id, .. } = &self.orders[order];
        let key = &self.devices[*device].key;
        Event {
            tenant: key.tenant.to_string().into(),
            device: key.device.to_string().into(),
            id: id.to_string().into(),
            ..Event::new(kind)
        }
    }

    pub(crate) fn send(&mut self, order: usize) {
        let it = &mut self.orders[order];
        it.attempts += 1;
        let expires = UnixMillis(self.now + it.ttl);
        let body = format!("body of order {order}");
        let spec = CommandSpec {
            payload: Some(Payload::text(Text::from(&*body))),
            ordering_key: it.key.map(Into::into),
            max_attempts: it.max_attempts,
            ..CommandSpec::new(it.id.clone(), "do", expires)
        };
        let key = it.key.unwrap_or_default();
        let device = self.devices[it.device].key.clone();
        let op = self.next_op();
        let event = self.about(Kind::Send, order).op(op);
        let (body, key) = (body.into(), key.into());
        self.note(Event { body, key, expires_ms: Some(expires.0), ..event });
        self.call(Purpose::Send { order, op }, Request::Enqueue(device, spec));
    }

    pub(crate) fn cancel(&mut self, order: usize) {
        let op = self.next_op();
        self.note(self.about(Kind::Cancel, order).op(op));
        let it = &self.orders[order];
        let device = self.devices[it.device].key.clone();
        self.call(Purpose::Cancel { op }, Request::Cancel(device, it.id.clone()));
    }

    pub(crate) fn look(&mut self, order: usize) {
        let it = &self.orders[order];
        let request = Request::Get(self.devices[it.device].key.clone(), it.id.clone());
        self.call(Purpose::Look { order, since: self.now }, request);
    }

    /// At the end of the run: what became of each command.
    pub(crate) fn look_at_all(&mut self) {
        for order in 0..self.orders.len() {
            let it = &self.orders[order];
            let request = Request::Get(self.devices[it.device].key.clone(), it.id.clone());
            let (answer, _, _) = self.store.ask(self.now, &request, u64::MAX);
            self.looked(order, self.now, answer);
        }
    }

    pub(crate) fn sweep(&mut self) {
        self.call(Purpose::Sweep, Request::Sweep);
        // Nobody is dead before the store has answered for a whole lease.
        if self.now > self.failed_over_at + ms(LEASE) {
            self.call(Purpose::Dead, Request::Dead);
        }
        self.after(SWEEP, Happening::Sweep);
    }

    pub(crate) fn control_answered(&mut self, purpose: Purpose, answer: Answer) {
        match (purpose, answer) {
            (Purpose::Send { order, op }, answer) => self.sent(order, op, answer),
            (Purpose::Cancel { op }, Ok(Reply::Cancelled(cancelled))) => {
                self.cancelled(op, &cancelled);
            }
            (Purpose::Cancel { op }, _) => self.note(Event::answer(Kind::Unknown, op)),
            (Purpose::Look { order, since }, answer) => self.looked(order, since, answer),
            (Purpose::Sweep, Ok(Reply::Findings(findings))) => {
                for finding in findings {
                    if let SweepFinding::Undelivered { session, node, .. } = finding {
                        self.tell(&node, AtEdge::ReadMailbox(session), 0);
                    }
                }
            }
            (Purpose::Dead, Ok(Reply::Nodes(nodes))) => {
                for node in nodes {
                    self.call(Purpose::End, Request::EndSessionsOf(node));
                }
            }
            _ => {}
        }
    }

    fn sent(&mut self, order: usize, op: u64, answer: Answer) {
        let Ok(Reply::Enqueued(enqueued)) = answer else {
            // Too late counts as unknown here, since the request may have been doubled on its way.
            self.note(Event::answer(Kind::Unknown, op));
            if self.orders[order].attempts < ATTEMPTS {
                let delay = self.rng.between(50, 800);
                self.after(delay, Happening::Send(order));
            }
            return;
        };
        match enqueued {
            Enqueued::Accepted { command, dispatch, .. } => {
                self.accepted(op, &command, true);
                if let Some(Dispatch { node, session, prev }) = dispatch {
                    self.tell(&node, AtEdge::Push { session, command, prev }, 0);
                }
            }
            Enqueued::Existing { command, .. } => self.accepted(op, &command, false),
            Enqueued::Conflict | Enqueued::QueueFull { .. } => {
                self.note(Event::answer(Kind::Fail, op));
            }
        }
    }

    fn accepted(&mut self, op: u64, command: &Command, created: bool) {
        let event = Event::answer(Kind::Ok, op).state(command.state);
        self.note(Event { seq: Some(command.seq), created: Some(created), ..event });
    }

    fn cancelled(&mut self, op: u64, cancelled: &Cancelled) {
        match cancelled {
            Cancelled::Cancelled { command, .. }
            | Cancelled::TooLate { command, .. }
            | Cancelled::Ended(command) => {
                self.note(Event::answer(Kind::Ok, op).state(command.state));
            }
            Cancelled::Unknown => self.note(Event::answer(Kind::Fail, op)),
        }
    }

    fn looked(&mut self, order: usize, since: u64, answer: Answer) {
        if let Ok(Reply::Command(Some(command))) = answer {
            let state: CommandState = command.state;
            let event = self.about(Kind::Observe, order).state(state);
            self.note(Event { since: Some(since * 1_000), ..event });
        }
    }
}
