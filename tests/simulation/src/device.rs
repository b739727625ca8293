//! Devices: they connect, move, remember which commands they had, and send results until they are
//! acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use roost_checker::{Event, Kind};
use roost_types::{CommandId, CommandSpec, DeviceId, DeviceKey, ResultStatus, SessionId, TenantId};

use crate::edge::FromDevice;
use crate::settings::EDGES;
use crate::world::{AtEdge, Happening, World};

/// What happens to a device. `number` says on which of its connections.
#[derive(Debug)]
pub(crate) enum ToDevice {
    Connect,
    /// Nobody welcomed it in time.
    Unwelcome {
        number: u64,
    },
    Welcome {
        number: u64,
    },
    Closed {
        number: u64,
    },
    Command {
        number: u64,
        session: SessionId,
        spec: Box<CommandSpec>,
        handed: u64,
    },
    Done {
        id: CommandId,
    },
    Ack {
        number: u64,
        id: CommandId,
    },
    Refused {
        number: u64,
        id: CommandId,
    },
    Resend,
}

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) key: DeviceKey,
    /// Its connections are numbered; only the last one is open.
    number: u64,
    edge: usize,
    welcome: bool,
    /// Commands that crash it, every time.
    pub(crate) poison: BTreeSet<CommandId>,
    /// Commands that it began.
    begun: BTreeSet<CommandId>,
    /// Results by command, with the operation in the history; `None` once acknowledged.
    results: BTreeMap<CommandId, (ResultStatus, Option<u64>)>,
}

// === impl Device ===

impl Device {
    /// Two tenants share each name.
    pub(crate) fn new(number: usize) -> Self {
        let tenant = TenantId::new(if number.is_multiple_of(2) { "a" } else { "b" });
        let device = DeviceId::new(format!("d{}", number / 2));
        let tenant = tenant.expect("a letter is an id");
        Self {
            key: DeviceKey::new(tenant, device.expect("a letter and a digit are an id")),
            number: 0,
            edge: 0,
            welcome: false,
            poison: BTreeSet::new(),
            begun: BTreeSet::new(),
            results: BTreeMap::new(),
        }
    }
}

// === impl World ===

impl World {
    pub(crate) fn at_device(&mut self, device: usize, message: ToDevice) {
        let current = self.devices[device].number;
        match message {
            ToDevice::Connect => self.connect(device),
            ToDevice::Unwelcome { number }
                if number == current && !self.devices[device].welcome =>
            {
                self.leave(device);
            }
            ToDevice::Resend => {
                self.resend(device);
                self.after(700, Happening::Device(device, ToDevice::Resend));
            }
            ToDevice::Done { id } => self.done(device, &id),
            ToDevice::Welcome { number } if number == current => {
                self.devices[device].welcome = true;
                self.resend(device);
            }
            ToDevice::Closed { number } if number == current => self.come_back(device),
            ToDevice::Command { number, session, spec, handed } if number == current => {
                self.take_command(device, session, &spec, handed);
            }
            ToDevice::Ack { number, id } if number == current => {
                self.result_over(device, &id, Kind::Ok);
            }
            ToDevice::Refused { number, id } if number == current => {
                self.result_over(device, &id, Kind::Fail);
            }
            // What comes on a connection that it left is not read.
            _ => {}
        }
    }

    fn connect(&mut self, device: usize) {
        let edge = self.rng.index(EDGES);
        let it = &mut self.devices[device];
        it.number += 1;
        (it.edge, it.welcome) = (edge, false);
        let number = it.number;
        self.say(device, FromDevice::Hello);
        self.after(700, Happening::Device(device, ToDevice::Unwelcome { number }));
    }

    fn say(&mut self, device: usize, message: FromDevice) {
        let Device { edge, number, .. } = self.devices[device];
        let delay = self.rng.between(1, 30);
        self.after(delay, Happening::Edge(edge, AtEdge::Device { device, number, message }));
    }

    /// Drops its connection, which the edge may not notice, and connects again.
    pub(crate) fn leave(&mut self, device: usize) {
        if !self.rng.happens(self.rates().half_open) {
            self.say(device, FromDevice::Gone);
        }
        self.come_back(device);
    }

    fn come_back(&mut self, device: usize) {
        let it = &mut self.devices[device];
        it.number += 1;
        it.welcome = false;
        let delay = self.rng.between(10, 400);
        self.after(delay, Happening::Device(device, ToDevice::Connect));
    }

    fn take_command(&mut self, device: usize, session: SessionId, spec: &CommandSpec, handed: u64) {
        let (key, session) = (self.devices[device].key.clone(), session.to_string());
        let event = Event::of_device(Kind::Deliver, key.tenant.as_str(), key.device.as_str());
        let body = spec.payload.as_ref().map(|payload| String::from_utf8_lossy(payload.data()));
        let event = Event {
            body: body.unwrap_or_default(),
            handed: Some(handed * 1_000),
            ..event.command(spec.id.as_str()).session(&session)
        };
        self.note(event);
        if self.devices[device].poison.contains(&spec.id) {
            return self.leave(device);
        }
        let late = self.now >= spec.expires.0;
        if self.devices[device].begun.contains(&spec.id) {
            // It had this one: what it answered it answers again.
            return self.send_result(device, &spec.id);
        }
        if late {
            return;
        }
        self.devices[device].begun.insert(spec.id.clone());
        let event = Event::of_device(Kind::Execute, key.tenant.as_str(), key.device.as_str());
        self.note(event.command(spec.id.as_str()));
        self.say(device, FromDevice::Received(spec.id.clone()));
        let work = self.rng.between(1, 2_000);
        self.after(work, Happening::Device(device, ToDevice::Done { id: spec.id.clone() }));
    }

    fn done(&mut self, device: usize, id: &CommandId) {
        let status = match self.rng.index(4) {
            0 => ResultStatus::Failed,
            1 => ResultStatus::Rejected,
            _ => ResultStatus::Succeeded,
        };
        let (op, key) = (self.next_op(), self.devices[device].key.clone());
        let event = Event::of_device(Kind::Result, key.tenant.as_str(), key.device.as_str());
        self.note(event.command(id.as_str()).state(status.state()).op(op));
        self.devices[device].results.insert(id.clone(), (status, Some(op)));
        self.send_result(device, id);
    }

    fn send_result(&mut self, device: usize, id: &CommandId) {
        let it = &self.devices[device];
        if let Some(&(status, _)) = it.results.get(id).filter(|_| it.welcome) {
            self.say(device, FromDevice::Result(id.clone(), status));
        }
    }

    fn resend(&mut self, device: usize) {
        let open = |(id, (_, op)): (&CommandId, &(_, Option<u64>))| op.map(|_| id.clone());
        let ids: Vec<CommandId> = self.devices[device].results.iter().filter_map(open).collect();
        for id in ids {
            self.send_result(device, &id);
        }
    }

    fn result_over(&mut self, device: usize, id: &CommandId, kind: Kind) {
        let result = self.devices[device].results.get_mut(id);
        if let Some(op) = result.and_then(|(_, op)| op.take()) {
            self.note(Event::answer(kind, op));
        }
    }
}
