//! A tiny hub without faults: makes random histories in which every promise is kept. The properties
//! are in `random.rs`.

use std::collections::VecDeque;

use roost_checker::{Event, Kind};
use roost_types::CommandState;

/// A generator of numbers that a seed determines (`SplitMix64`).
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("it is less than n")
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone)]
struct Command {
    id: String,
    body: String,
    expires_ms: u64,
    seq: u64,
}

#[derive(Default)]
struct Device {
    tenant: &'static str,
    name: &'static str,
    session: String,
    seq: u64,
    sent: Vec<(Command, bool)>,
    queue: VecDeque<Command>,
    open: Vec<Command>,
}

struct Model {
    rng: Rng,
    t: u64,
    op: u64,
    pos: u64,
    events: Vec<Event<'static>>,
}

/// The events of the run that this seed determines, in the order of time.
pub(crate) fn run(seed: u64) -> Vec<Event<'static>> {
    let mut model = Model { rng: Rng::new(seed), t: 1_000, op: 0, pos: 0, events: Vec::new() };
    let places = [("a", "d"), ("a", "e"), ("b", "d"), ("b", "f")];
    let mut devices = places.map(|(tenant, name)| Device { tenant, name, ..Device::default() });
    for _ in 0..600 {
        model.t += 1 + model.rng.next() % 2_000;
        let device = model.rng.below(devices.len());
        model.step(&mut devices[device]);
    }
    for device in &mut devices {
        while !device.queue.is_empty() {
            model.t += 500;
            model.deliver(device);
        }
    }
    let end = model.t + 10_000_000;
    model.push(Event::new(Kind::Clock).at(end));
    model.events.last_mut().expect("it was just added").hub_ms = Some(end / 1_000);
    model.events.sort_by_key(|event| event.t);
    model.events
}

fn of(kind: Kind, device: &Device, command: &Command) -> Event<'static> {
    let mut event = Event::of_device(kind, device.tenant, device.name);
    event.id = command.id.clone().into();
    event
}

impl Model {
    fn push(&mut self, event: Event<'static>) {
        self.events.push(event);
    }

    fn step(&mut self, device: &mut Device) {
        if device.session.is_empty() {
            return self.claim(device);
        }
        match self.rng.below(20) {
            0..=5 => self.send_new(device),
            6 => self.send_again(device),
            7..=12 => self.deliver(device),
            13 => self.redeliver(device),
            14..=16 => self.finish(device),
            17 => self.claim(device),
            18 => {
                self.pos += 1;
                let event = Event::of_device(Kind::Apply, device.tenant, device.name);
                let session = device.session.clone();
                self.push(Event { session: session.into(), ..event }.at(self.t).pos(self.pos));
            }
            _ => self.cancel(device),
        }
    }

    fn claim(&mut self, device: &mut Device) {
        self.pos += 1;
        let session = format!("s{}", self.pos);
        let old = std::mem::replace(&mut device.session, session.clone());
        let event = Event::of_device(Kind::Claimed, device.tenant, device.name);
        let mut event = event.at(self.t).pos(self.pos);
        (event.session, event.replaced) = (session.into(), old.into());
        event.claimed_ms = Some(self.t / 1_000);
        self.push(event);
    }

    fn begin(&mut self, event: Event<'static>) -> u64 {
        self.op += 1;
        self.push(event.at(self.t).op(self.op));
        self.op
    }

    fn answer(&mut self, kind: Kind, op: u64) -> Event<'static> {
        let later = 1 + self.rng.next() % 5_000;
        Event::answer(kind, op).at(self.t + later)
    }

    fn send_new(&mut self, device: &mut Device) {
        let number = device.sent.len();
        let command = Command {
            id: format!("c{number}"),
            body: format!("{}/{}/{number}", device.tenant, device.name),
            expires_ms: self.t / 1_000 + 20 + self.rng.next() % 500,
            seq: 0,
        };
        device.sent.push((command, false));
        self.send(device, number);
    }

    fn send_again(&mut self, device: &mut Device) {
        if !device.sent.is_empty() {
            let number = self.rng.below(device.sent.len());
            self.send(device, number);
        }
    }

    /// Sends the device's command of this number, for the first time or again.
    fn send(&mut self, device: &mut Device, number: usize) {
        let (command, accepted) = device.sent[number].clone();
        let mut event = of(Kind::Send, device, &command);
        event.body = command.body.clone().into();
        event.expires_ms = Some(command.expires_ms);
        let op = self.begin(event);
        let arrives = accepted || !self.rng.one_in(10);
        if arrives && !accepted {
            device.seq += 1;
            device.sent[number].0.seq = device.seq;
            device.sent[number].1 = true;
            device.queue.push_back(device.sent[number].0.clone());
        }
        let known = arrives && !self.rng.one_in(10);
        let mut answer = self.answer(if known { Kind::Ok } else { Kind::Unknown }, op);
        if known {
            answer.seq = Some(device.sent[number].0.seq);
            answer.created = Some(!accepted);
        }
        self.push(answer);
    }

    fn deliver(&mut self, device: &mut Device) {
        let Some(command) = device.queue.pop_front() else {
            return;
        };
        if self.t / 1_000 >= command.expires_ms {
            let event = of(Kind::Observe, device, &command).state(CommandState::Expired);
            return self.push(event.at(self.t));
        }
        self.hand_over(device, &command);
        self.push(of(Kind::Execute, device, &command).at(self.t));
        device.open.push(command);
    }

    fn hand_over(&mut self, device: &Device, command: &Command) {
        let mut event = of(Kind::Deliver, device, command).at(self.t);
        event.body = command.body.clone().into();
        event.handed = Some(self.t - self.rng.next() % 100);
        self.push(event);
    }

    fn redeliver(&mut self, device: &mut Device) {
        let Some(command) = device.open.first().cloned() else {
            return;
        };
        if self.t / 1_000 < command.expires_ms {
            self.hand_over(device, &command);
        }
    }

    fn finish(&mut self, device: &mut Device) {
        if device.open.is_empty() {
            return;
        }
        let command = device.open.remove(0);
        let mut event = of(Kind::Result, device, &command).state(CommandState::Succeeded);
        event.session = device.session.clone().into();
        let op = self.begin(event);
        let ok = self.answer(Kind::Ok, op);
        let shown = of(Kind::Observe, device, &command).state(CommandState::Succeeded).at(ok.t + 1);
        self.push(ok);
        self.push(shown);
    }

    fn cancel(&mut self, device: &mut Device) {
        let Some(command) = device.queue.pop_back() else {
            return;
        };
        let op = self.begin(of(Kind::Cancel, device, &command));
        let ok = self.answer(Kind::Ok, op).state(CommandState::Cancelled);
        self.push(ok);
    }
}
