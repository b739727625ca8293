//! First deliveries come in the order accepted, per device and ordering key.
//!
//! The order accepted is known in part: by the place (`seq`) where both commands have one, and by the
//! clock where one was accepted before the other was asked for. Two at the same time may be in either.

use super::facts::{Fact, Facts};
use super::rules::{Report, Rule, label};
use crate::history::{History, Name};

/// A command of one ordering key, in the order of first deliveries.
struct Delivered<'a> {
    line: (Name, Name, Name),
    at: usize,
    fact: &'a Fact,
    /// Whether what was said of its acceptance holds whatever happened.
    sure: bool,
}

/// The least of some numbers, and whose it is.
type Least = Option<(u64, usize)>;

pub(super) fn check(history: &History, facts: &Facts, report: &mut Report) {
    let rows = history.rows();
    let delivered = |fact| -> Option<Delivered<'_>> {
        let fact: &Fact = fact;
        let send = &rows[fact.send];
        let line = (send.tenant, send.device, send.key);
        Some(Delivered { line, at: fact.delivered?, fact, sure: !facts.may_be_gone(history, fact) })
    };
    let mut all: Vec<_> = facts.commands.iter().filter_map(delivered).collect();
    all.sort_unstable_by_key(|one| (one.line, one.at));
    for line in all.chunk_by(|a, b| a.line == b.line) {
        check_line(history, line, report);
    }
}

/// From the last delivery to the first: was one of those that came later accepted before this one?
fn check_line(history: &History, line: &[Delivered<'_>], report: &mut Report) {
    let rows = history.rows();
    // Among the later ones: the least place, and the earliest acceptance.
    let (mut by_seq, mut by_time): (Least, Least) = (None, None);
    for (place, one) in line.iter().enumerate().rev() {
        let seq = one.fact.seq.filter(|_| one.sure).map(|(seq, _)| seq);
        let accepted = one.fact.accepted.filter(|_| one.sure).map(|row| rows[row].t);
        let overtaken = by_seq.filter(|&(least, _)| seq.is_some_and(|seq| least < seq));
        let overtaken =
            overtaken.or_else(|| by_time.filter(|&(earliest, _)| earliest < rows[one.fact.send].t));
        if let Some((_, other)) = overtaken {
            let other = &line[other];
            let what = format!(
                "{} was delivered before {}, which was accepted first",
                label(history, &rows[one.fact.send]),
                label(history, &rows[other.fact.send])
            );
            let accepted = [other.fact.accepted, one.fact.accepted];
            let mut events = vec![other.fact.send, one.fact.send, one.at, other.at];
            events.extend(accepted.into_iter().flatten());
            report.add(Rule::Order, what, &events);
        }
        let least = |old: Least, new: Option<u64>| {
            [old, new.map(|value| (value, place))].into_iter().flatten().min()
        };
        by_seq = least(by_seq, seq);
        by_time = least(by_time, accepted);
    }
}
