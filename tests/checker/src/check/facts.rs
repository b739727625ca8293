//! One pass over the history in the order of time: which answer belongs to which question, and what
//! became of each command. Contradictions that show on the way are reported at once.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use roost_types::CommandState;

use super::rules::{Report, Rule, label};
use super::{Options, micros, signed};
use crate::Kind;
use crate::history::{History, Name, Row};

/// What is known of one command.
#[derive(Debug)]
pub(super) struct Fact {
    /// The row of its first send; its tenant, device, id and key are the command's.
    pub(super) send: usize,
    /// How many sends it had.
    sends: u32,
    /// How many of these were refused.
    refused: u32,
    /// The row of the first answer that accepted it.
    pub(super) accepted: Option<usize>,
    /// The row of the first answer that says it was made then.
    created: Option<usize>,
    /// Its place in the device's order, and the row that says so.
    pub(super) seq: Option<(u64, usize)>,
    /// Whether an answer promised that it outlives a failover.
    pub(super) durable: bool,
    /// When it is over at the earliest and at the latest, on the run's clock: a send that was not
    /// answered may have been the one that counted.
    pub(super) expires: (i64, i64),
    /// The row of its first delivery.
    pub(super) delivered: Option<usize>,
    /// The row that first showed its end, and which.
    pub(super) end: Option<(CommandState, usize)>,
    /// The row of the first cancellation.
    pub(super) cancel: Option<usize>,
    /// Which ends its device reported: a bit for each state.
    pub(super) results: u16,
    /// The row of the first acknowledgement of such a report.
    pub(super) acknowledged: Option<usize>,
}

/// Everything that is known of the commands of a run.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) commands: Vec<Fact>,
    /// When the store last lost something that it had not promised to keep.
    pub(super) failover: Option<u64>,
}

type Key = (Name, Name, Name);

/// What the pass carries along. What it does with sightings is in `sightings.rs`.
pub(super) struct Gatherer<'a> {
    pub(super) history: &'a History,
    pub(super) report: &'a mut Report,
    pub(super) error: i64,
    pub(super) in_flight: i64,
    /// What is to be added to hub time in microseconds to get the run's clock.
    hub_offset: i64,
    pub(super) facts: Facts,
    pub(super) by_key: HashMap<Key, usize, RandomState>,
    open: HashMap<u64, usize, RandomState>,
    /// Whose a body is: the row of its first send. Says whether a foreign one crossed tenants.
    pub(super) bodies: HashMap<Name, usize, RandomState>,
    /// Further bodies that were sent under a command's id.
    pub(super) others: HashMap<(usize, Name), usize, RandomState>,
}

// === impl Facts ===

impl Facts {
    pub(super) fn gather(history: &History, options: &Options, report: &mut Report) -> Self {
        let rows = history.rows();
        let clock = rows.iter().find(|row| row.kind == Kind::Clock);
        let hub_offset = clock
            .map_or(0, |row| signed(row.t) - signed(row.number.unwrap_or(0)).saturating_mul(1_000));
        let failovers = rows.iter().filter(|row| row.kind == Kind::Failover);
        let failover = failovers.map(|row| row.t).max();
        let mut gatherer = Gatherer {
            history,
            report,
            error: micros(options.clock_error),
            in_flight: micros(options.in_flight),
            hub_offset,
            facts: Self { commands: Vec::new(), failover },
            by_key: HashMap::default(),
            open: HashMap::default(),
            bodies: HashMap::default(),
            others: HashMap::default(),
        };
        for (index, row) in rows.iter().enumerate() {
            gatherer.take(index, row);
        }
        gatherer.report.unknown += gatherer.open.len();
        gatherer.facts
    }

    /// Whether this command, or what became of it, may be gone without a trace: a failover takes nothing
    /// that was asked for after it.
    pub(super) fn may_be_gone(&self, history: &History, fact: &Fact) -> bool {
        let asked = history.rows()[fact.send].t;
        !fact.durable && self.failover.is_some_and(|failover| asked <= failover)
    }
}

// === impl Fact ===

impl Fact {
    fn new(send: usize) -> Self {
        Self {
            send,
            sends: 0,
            refused: 0,
            accepted: None,
            created: None,
            seq: None,
            durable: false,
            expires: (i64::MAX, i64::MIN),
            delivered: None,
            end: None,
            cancel: None,
            results: 0,
            acknowledged: None,
        }
    }

    /// Whether every one of its sends was refused: nothing may come of it.
    pub(super) fn was_refused(&self) -> bool {
        self.sends == self.refused
    }
}

// === impl Gatherer ===

impl Gatherer<'_> {
    fn take(&mut self, index: usize, row: &Row) {
        if matches!(row.kind, Kind::Send | Kind::Cancel | Kind::Result | Kind::Publish) {
            self.begin(index, row);
        }
        match row.kind {
            Kind::Send => self.send(index, row),
            Kind::Cancel => {
                if let Some(fact) = self.find(row) {
                    fact.cancel.get_or_insert(index);
                }
            }
            Kind::Result => {
                let bit = row.state.map_or(0, |state| 1 << state as u16);
                if let Some(fact) = self.find(row) {
                    fact.results |= bit;
                }
            }
            Kind::Ok | Kind::Fail | Kind::Unknown => self.answer(index, row),
            Kind::Deliver => self.deliver(index, row),
            Kind::Execute => self.execute(index, row),
            Kind::Observe => self.observe(index, row, row, row.moment),
            _ => {}
        }
    }

    fn begin(&mut self, index: usize, row: &Row) {
        self.report.operations += 1;
        let Some(op) = row.op else {
            return self.broken("an operation without a number", &[index]);
        };
        if let Some(other) = self.open.insert(op, index) {
            self.broken(&format!("operation {op} begins twice"), &[other, index]);
        }
    }

    fn send(&mut self, index: usize, row: &Row) {
        let key = (row.tenant, row.device, row.id);
        let next = self.facts.commands.len();
        let place = *self.by_key.entry(key).or_insert(next);
        if place == next {
            self.report.commands += 1;
            self.facts.commands.push(Fact::new(index));
        }
        let expires = row.number.map_or(i64::MAX, |ms| {
            signed(ms).saturating_mul(1_000).saturating_add(self.hub_offset)
        });
        let fact = &mut self.facts.commands[place];
        fact.sends += 1;
        fact.expires = (fact.expires.0.min(expires), fact.expires.1.max(expires));
        if self.history.rows()[fact.send].body != row.body {
            self.others.insert((place, row.body), index);
        }
        if !row.body.is_empty() {
            self.bodies.entry(row.body).or_insert(index);
        }
    }

    fn answer(&mut self, index: usize, row: &Row) {
        let Some(begun) = row.op.and_then(|op| self.open.remove(&op)) else {
            return self.broken("an answer to an operation that is not open", &[index]);
        };
        let question = &self.history.rows()[begun];
        match (row.kind, question.kind) {
            (Kind::Unknown, _) => self.report.unknown += 1,
            (Kind::Fail, Kind::Send) => {
                self.find(question).expect("its send was seen").refused += 1;
            }
            (Kind::Ok, Kind::Send) => self.accept(index, row, begun, question),
            (Kind::Ok, Kind::Result) => self.result_taken(index, begun, question),
            _ => {}
        }
        if row.kind == Kind::Ok && row.state.is_some() && question.kind != Kind::Result {
            self.observe(index, row, question, Some(question.t));
        }
    }

    fn accept(&mut self, index: usize, row: &Row, begun: usize, question: &Row) {
        let fact = self.find(question).expect("its send was seen");
        let (first, created, seq) = (fact.accepted, fact.created, fact.seq);
        fact.accepted.get_or_insert(index);
        fact.durable |= !row.volatile;
        if row.created == Some(true) {
            fact.created.get_or_insert(index);
        }
        if let Some(seq) = row.seq {
            fact.seq.get_or_insert((seq, index));
        }
        let (send, durable) = (fact.send, fact.durable);
        let may_be_gone = self.is_excused(send, durable);
        if first.is_none() {
            self.report.accepted += 1;
        }
        let name = label(self.history, question);
        if self.history.rows()[send].body != question.body && first.is_some() {
            let what = format!("{name} was accepted with two bodies");
            self.report.add(Rule::Idempotency, what, &[send, begun, index]);
        } else if may_be_gone {
            // A failover may have taken the first one; the second is then new with every right.
        } else if let Some(other) = created.filter(|_| row.created == Some(true)) {
            let what = format!("{name} was made twice under one id");
            self.report.add(Rule::Idempotency, what, &[send, other, begun, index]);
        } else if let Some((_, other)) = seq.filter(|(seq, _)| row.seq.is_some_and(|s| s != *seq)) {
            let what = format!("{name} has two places in its device's order");
            self.report.add(Rule::Idempotency, what, &[send, other, begun, index]);
        }
    }

    fn result_taken(&mut self, index: usize, begun: usize, question: &Row) {
        match self.find(question) {
            Some(fact) => {
                fact.acknowledged.get_or_insert(index);
            }
            None => self.foreign(question, "a result was taken for", &[begun, index]),
        }
    }

    pub(super) fn find(&mut self, row: &Row) -> Option<&mut Fact> {
        let place = self.by_key.get(&(row.tenant, row.device, row.id))?;
        Some(&mut self.facts.commands[*place])
    }

    fn broken(&mut self, what: &str, events: &[usize]) {
        self.report.add(Rule::History, what.to_owned(), events);
    }

    pub(super) fn name(&self, row: &Row) -> String {
        label(self.history, row)
    }
}
