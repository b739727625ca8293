//! Everything that takes part in a run, the one clock and the one queue. What each part does is in
//! the file of its name.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use roost_checker::{Event, History};
use roost_cluster::{NodeRef, StoreError};
use roost_types::{Command, CommandId, SessionId};

use crate::control::Order;
use crate::device::{Device, ToDevice};
use crate::edge::{Edge, FromDevice};
use crate::network::{Call, Held};
use crate::rng::Rng;
use crate::settings::{CALM, CHAOS, COMMANDS, DEVICES, EDGES, Part, Rates, SWEEP, Settings};
use crate::store::{Answer, ModelStore};

/// Something that happens at its time.
#[derive(Debug)]
pub(crate) enum Happening {
    AtStore(Call),
    Replicated { epoch: u64, place: usize },
    Answered(u64, Box<Answer>),
    GiveUp(u64),
    Edge(usize, AtEdge),
    Device(usize, ToDevice),
    Send(usize),
    Cancel(usize),
    Look(usize),
    Sweep,
    Faults,
}

/// Something that reaches an edge; one that is stopped gets it when it goes on.
#[derive(Debug)]
pub(crate) enum AtEdge {
    Beat,
    FailedOver,
    Answer(Purpose, Box<Answer>),
    Device { device: usize, number: u64, message: FromDevice },
    Push { session: SessionId, command: Box<Command>, prev: u64 },
    ReadMailbox(SessionId),
    Replaced(SessionId),
}

/// What a call to the store is for.
#[derive(Debug, Clone)]
pub(crate) enum Purpose {
    Beat { edge: usize, sent: u64 },
    Claim { edge: usize, session: SessionId },
    Confirm { edge: usize, session: SessionId, round: u64 },
    Read { edge: usize, session: SessionId },
    Tell { edge: usize, session: SessionId },
    Result { edge: usize, session: SessionId, id: CommandId },
    Release { edge: usize },
    Send { order: usize, op: u64 },
    Cancel { op: u64 },
    Look { order: usize, since: u64 },
    Sweep,
    Dead,
    End,
}

struct Entry {
    at: u64,
    number: u64,
    what: Happening,
}

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) rng: Rng,
    pub(crate) settings: Settings,
    queue: BinaryHeap<Reverse<Entry>>,
    entries: u64,
    pub(crate) ops: u64,
    pub(crate) calls: u64,
    pub(crate) pending: BTreeMap<u64, Purpose>,
    pub(crate) held: Vec<Held>,
    pub(crate) store: ModelStore,
    pub(crate) cut_until: u64,
    pub(crate) failed_over_at: u64,
    pub(crate) edges: Vec<Edge>,
    pub(crate) devices: Vec<Device>,
    pub(crate) orders: Vec<Order>,
    history: History,
}

// === impl Entry ===

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

// === impl World ===

impl World {
    pub(crate) fn new(seed: u64, settings: Settings) -> Self {
        let mut rng = Rng::new(seed);
        let edges = (0..EDGES)
            .map(|number| Edge::new(number, settings.has(Part::Leases), &mut rng))
            .collect();
        Self {
            now: 1,
            rng,
            store: ModelStore::new(&settings),
            settings,
            queue: BinaryHeap::new(),
            entries: 0,
            ops: 0,
            calls: 0,
            pending: BTreeMap::new(),
            held: Vec::new(),
            cut_until: 0,
            failed_over_at: 0,
            edges,
            devices: (0..DEVICES).map(Device::new).collect(),
            orders: Vec::new(),
            history: History::new(),
        }
    }

    pub(crate) fn run(mut self) -> History {
        for edge in 0..EDGES {
            self.after(0, Happening::Edge(edge, AtEdge::Beat));
        }
        for device in 0..DEVICES {
            let delay = self.rng.between(50, 500);
            self.after(delay, Happening::Device(device, ToDevice::Connect));
            self.after(delay, Happening::Device(device, ToDevice::Resend));
        }
        for _ in 0..COMMANDS {
            self.place_order();
        }
        self.after(SWEEP, Happening::Sweep);
        self.after(100, Happening::Faults);
        while let Some(Reverse(entry)) = self.queue.pop() {
            if entry.at > CHAOS + CALM {
                break;
            }
            self.now = entry.at;
            self.happen(entry.what);
        }
        self.now = CHAOS + CALM;
        self.look_at_all();
        self.history
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::AtStore(call) => self.at_store(&call),
            Happening::Replicated { epoch, place } => self.replicated(epoch, place),
            Happening::Answered(number, answer) => self.answered(number, *answer),
            Happening::GiveUp(number) => self.give_up(number),
            Happening::Edge(edge, message) => self.at_edge(edge, message),
            Happening::Device(device, message) => self.at_device(device, message),
            Happening::Send(order) => self.send(order),
            Happening::Cancel(order) => self.cancel(order),
            Happening::Look(order) => self.look(order),
            Happening::Sweep => self.sweep(),
            Happening::Faults => self.faults(),
        }
    }

    /// A stopped edge finds its messages, in order, when it goes on.
    fn at_edge(&mut self, edge: usize, message: AtEdge) {
        let until = self.edges[edge].stopped_until;
        if self.now < until {
            self.after(until - self.now, Happening::Edge(edge, message));
        } else {
            self.edge_gets(edge, message);
        }
    }

    /// The first answer to a call counts; giving it up is one.
    pub(crate) fn answered(&mut self, number: u64, answer: Answer) {
        let Some(purpose) = self.pending.remove(&number) else {
            return;
        };
        match purpose.edge() {
            Some(edge) => self.at_edge(edge, AtEdge::Answer(purpose, Box::new(answer))),
            None => self.control_answered(purpose, answer),
        }
    }

    pub(crate) fn after(&mut self, delay: u64, what: Happening) {
        self.entries += 1;
        self.queue.push(Reverse(Entry { at: self.now + delay, number: self.entries, what }));
    }

    /// From node to node, if it gets there.
    pub(crate) fn tell(&mut self, node: &NodeRef, message: AtEdge, delay: u64) {
        if self.rng.happens(self.rates().push_lost) {
            return;
        }
        if let Some(edge) = self.edges.iter().position(|edge| edge.node == *node) {
            let longest = if self.rng.happens(self.rates().push_stalled) { 4_000 } else { 20 };
            let delay = delay + self.rng.between(1, longest);
            self.after(delay, Happening::Edge(edge, message));
        }
    }

    /// How often what goes wrong now.
    pub(crate) fn rates(&self) -> Rates {
        if self.now < CHAOS {
            return self.settings.rates.clone();
        }
        Rates {
            lost: 0,
            doubled: 0,
            stalled: 0,
            push_lost: 0,
            push_stalled: 0,
            half_open: 0,
            pause: 0,
            cut: 0,
            failover: 0,
            moves: 0,
            poison: 0,
        }
    }

    /// Hub time as whoever makes this call has it.
    pub(crate) fn hub_time(&self, purpose: &Purpose) -> u64 {
        purpose.edge().map_or(self.now, |edge| self.edges[edge].hub_time(self.now))
    }

    pub(crate) fn next_op(&mut self) -> u64 {
        self.ops += 1;
        self.ops
    }

    pub(crate) fn note(&mut self, event: Event<'_>) {
        let t = self.now * 1_000;
        self.record(&event.at(t));
    }

    pub(crate) fn record(&mut self, event: &Event<'_>) {
        self.history.add(event).expect("a run has no states but those that there are");
    }
}

// === impl Purpose ===

impl Purpose {
    fn edge(&self) -> Option<usize> {
        match self {
            Self::Beat { edge, .. }
            | Self::Claim { edge, .. }
            | Self::Confirm { edge, .. }
            | Self::Read { edge, .. }
            | Self::Tell { edge, .. }
            | Self::Result { edge, .. }
            | Self::Release { edge } => Some(*edge),
            _ => None,
        }
    }
}

/// Whether the store says that the session is no longer the device's.
pub(crate) fn is_fenced(answer: &Answer) -> bool {
    matches!(answer, Err(StoreError::Fenced))
}
