//! What only shows at the end of a run: commands that are lost, and refused ones that came all the same.

use super::facts::Facts;
use super::rules::{Report, Rule, label};
use super::{Options, micros, signed};
use crate::history::History;

pub(super) fn check(history: &History, options: &Options, facts: &Facts, report: &mut Report) {
    let rows = history.rows();
    let end = rows.last().map_or(0, |row| signed(row.t));
    for fact in &facts.commands {
        let name = || label(history, &rows[fact.send]);
        if let Some(delivered) = fact.delivered.filter(|_| fact.was_refused()) {
            let what = format!("{} was refused and delivered", name());
            report.add(Rule::NoPhantom, what, &[fact.send, delivered]);
        }
        let Some(accepted) = fact.accepted else {
            continue;
        };
        if fact.delivered.is_some() || fact.end.is_some() {
            continue;
        }
        if facts.may_be_gone(history, fact) {
            report.given_up += 1;
        } else if end <= fact.expires.1.saturating_add(micros(options.clock_error)) {
            report.pending += 1;
        } else {
            let what = format!("{} was accepted, never delivered and did not end", name());
            report.add(Rule::NothingLost, what, &[fact.send, accepted]);
        }
    }
}
