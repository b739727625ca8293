//! What a violation is and how it is shown. The rules themselves are in the files beside this one.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use crate::Kind;
use crate::history::{History, Row};

/// A promise that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// G1: an accepted command is delivered, or ends in a state that says why.
    NothingLost,
    /// A device gets only what was sent to it; a state has what caused it.
    NoPhantom,
    /// G3: first deliveries come in the order accepted.
    Order,
    /// G4: one effective session per device, and the newest.
    OneSession,
    /// G5: nothing is handed over after its deadline, and nothing expires before it.
    Deadline,
    /// Exactly one terminal state.
    OneEnd,
    /// G2: one id, one command.
    Idempotency,
    /// G8: nothing crosses tenants.
    Tenants,
    /// G6: a publication that was acknowledged reaches who had subscribed, or they are told of a gap.
    Publications,
    /// The history contradicts itself: an answer to a question that nobody asked.
    History,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub rule: Rule,
    /// How, in words.
    pub what: String,
    /// The events that show it, as places in the history.
    pub events: Vec<usize>,
}

/// What a check found.
#[derive(Debug, Clone)]
pub struct Report {
    /// The first violations, in the order found.
    pub violations: Vec<Violation>,
    /// How many there are.
    pub found: usize,
    /// How many events the history has.
    pub events: usize,
    /// How many operations it has: invocations, answered or not.
    pub operations: usize,
    /// How many of these were never answered, or by `unknown`.
    pub unknown: usize,
    /// How many distinct commands were sent.
    pub commands: usize,
    /// How many of these were accepted.
    pub accepted: usize,
    /// How many of the accepted had no end, no delivery and time left when the history ended.
    pub pending: usize,
    /// How many of the accepted a failover took that nobody had promised would not.
    pub given_up: usize,
    /// How many deliveries there were.
    pub deliveries: usize,
    kept: usize,
}

// === impl Report ===

impl Report {
    pub(super) fn new(events: usize, kept: usize) -> Self {
        Self {
            violations: Vec::new(),
            found: 0,
            events,
            operations: 0,
            unknown: 0,
            commands: 0,
            accepted: 0,
            pending: 0,
            given_up: 0,
            deliveries: 0,
            kept,
        }
    }

    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.found == 0
    }

    /// The first violation of this rule.
    pub fn of(&self, rule: Rule) -> Option<&Violation> {
        self.violations.iter().find(|violation| violation.rule == rule)
    }

    /// The first `most` violations with an excerpt of the history each.
    pub fn explain(&self, history: &History, most: usize) -> String {
        let mut text = format!("{self}\n");
        for violation in self.violations.iter().take(most) {
            text.push_str(&violation.explain(history));
        }
        text
    }

    pub(super) fn add(&mut self, rule: Rule, what: String, events: &[usize]) {
        self.found += 1;
        if self.violations.len() < self.kept {
            self.violations.push(Violation { rule, what, events: events.to_vec() });
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} violations in {} events: {} operations ({} unknown), {} commands ({} accepted, {} pending, {} given up), {} deliveries",
            self.found,
            self.events,
            self.operations,
            self.unknown,
            self.commands,
            self.accepted,
            self.pending,
            self.given_up,
            self.deliveries
        )
    }
}

// === impl Violation ===

/// How many lines of the history an explanation has beside those of the violation itself.
const AROUND: usize = 12;

impl Violation {
    /// The violation in words, the events that show it (marked), and what else happened to the same
    /// command or device around them.
    pub fn explain(&self, history: &History) -> String {
        let mut text = format!("{:?}: {}\n", self.rule, self.what);
        for index in self.excerpt(history) {
            let mark = if self.events.contains(&index) { '>' } else { ' ' };
            writeln!(text, "{mark} {index:>7}  {}", history.line(index))
                .expect("writing to a string does not fail");
        }
        text
    }

    fn excerpt(&self, history: &History) -> BTreeSet<usize> {
        let rows = history.rows();
        let mine: Vec<&Row> = self.events.iter().map(|&index| &rows[index]).collect();
        let ops: BTreeSet<u64> = mine.iter().filter_map(|row| row.op).collect();
        let near = |row: &Row| {
            let same_device = |own: &&Row| {
                !own.device.is_empty() && own.device == row.device && own.tenant == row.tenant
            };
            let about = |own: &&Row| own.id == row.id || row.id.is_empty() || own.id.is_empty();
            row.kind == Kind::Failover
                || row.op.is_some_and(|op| ops.contains(&op))
                || mine.iter().any(|own| same_device(own) && about(own))
        };
        let distance = |index: usize| {
            self.events.iter().map(|&event| event.abs_diff(index)).min().unwrap_or(0)
        };
        let same_command =
            |row: &Row| mine.iter().any(|own| !own.id.is_empty() && own.id == row.id);
        let mut around: Vec<usize> = (0..rows.len()).filter(|&index| near(&rows[index])).collect();
        around.sort_by_key(|&index| (!same_command(&rows[index]), distance(index)));
        around.into_iter().take(AROUND).chain(self.events.iter().copied()).collect()
    }
}

/// `tenant/device command`, as a violation names it.
pub(super) fn label(history: &History, row: &Row) -> String {
    let [tenant, device, id] = [row.tenant, row.device, row.id].map(|name| history.text(name));
    let who = if tenant.is_empty() { device.to_owned() } else { format!("{tenant}/{device}") };
    match row.kind {
        _ if id.is_empty() => who,
        Kind::Publish | Kind::Message | Kind::Subscribed | Kind::Gap => format!("{who} on {id}"),
        _ => format!("{who} command {id}"),
    }
}
