//! What devices got and did, and what back ends saw, held against what is known of the command by
//! then. See `facts.rs` for how that is gathered.

use roost_types::CommandState;

use super::facts::Gatherer;
use super::rules::Rule;
use super::signed;
use crate::history::Row;

impl Gatherer<'_> {
    pub(super) fn deliver(&mut self, index: usize, row: &Row) {
        self.report.deliveries += 1;
        let Some(&place) = self.by_key.get(&(row.tenant, row.device, row.id)) else {
            return self.foreign(row, "the device got", &[index]);
        };
        let fact = &mut self.facts.commands[place];
        fact.delivered.get_or_insert(index);
        let (send, latest, end) = (fact.send, fact.expires.1, fact.end);
        let same = row.body.is_empty() || self.history.rows()[send].body == row.body;
        if !same && !self.others.contains_key(&(place, row.body)) {
            self.foreign(
                row,
                "with a body that was not sent with it, the device got",
                &[send, index],
            );
        }
        let handed = row.moment.map_or(signed(row.t) - self.in_flight, signed);
        if handed > latest.saturating_add(self.error) {
            self.late(row, "was handed to the device", handed - latest, &[send, index]);
        }
        if let Some((CommandState::Cancelled, shown)) = end
            && handed > signed(self.history.rows()[shown].t).saturating_add(self.error)
        {
            let what =
                format!("{} was handed to the device after it was cancelled", self.name(row));
            self.report.add(Rule::OneEnd, what, &[send, shown, index]);
        }
    }

    pub(super) fn execute(&mut self, index: usize, row: &Row) {
        let Some(fact) = self.find(row) else {
            return self.foreign(row, "the device executed", &[index]);
        };
        let (send, latest) = (fact.send, fact.expires.1);
        if signed(row.t) > latest.saturating_add(self.error) {
            self.late(row, "was executed", signed(row.t) - latest, &[send, index]);
        }
    }

    /// `row` shows the state of the command that `about` names.
    pub(super) fn observe(&mut self, index: usize, row: &Row, about: &Row, since: Option<u64>) {
        let Some(state) = row.state else {
            return;
        };
        let Some(fact) = self.find(about) else {
            return self.foreign(about, "a back end saw", &[index]);
        };
        let (send, end, earliest) = (fact.send, fact.end, fact.expires.0);
        let (acknowledged, durable) = (fact.acknowledged, fact.durable);
        let caused = match state {
            CommandState::Succeeded | CommandState::Failed | CommandState::Rejected => {
                fact.results & (1 << state as u16) != 0
            }
            CommandState::Cancelled => fact.cancel.is_some(),
            _ => true,
        };
        if state.is_terminal() {
            fact.end.get_or_insert((state, index));
        }
        let name = self.name(about);
        match end {
            // A failover may have taken the first end back.
            _ if self.is_excused(send, durable) => {}
            Some((first, shown)) if state.is_terminal() && state != first => {
                let what = format!("{name} ended twice: {} and {}", first.as_str(), state.as_str());
                self.report.add(Rule::OneEnd, what, &[send, shown, index]);
            }
            Some((first, shown))
                if !state.is_terminal() && since > Some(self.history.rows()[shown].t) =>
            {
                let what = format!("{name} was {}, then {}", first.as_str(), state.as_str());
                self.report.add(Rule::OneEnd, what, &[send, shown, index]);
            }
            _ => {}
        }
        if let Some(acknowledged) = acknowledged.filter(|_| end.is_none()) {
            self.check_result_kept(index, row, about, since, acknowledged);
        }
        if !caused {
            let what = format!("{name} is {} and nobody made it so", state.as_str());
            self.report.add(Rule::NoPhantom, what, &[send, index]);
        }
        if state == CommandState::Expired && signed(row.t).saturating_add(self.error) < earliest {
            let what = format!("{name} expired before its time");
            self.report.add(Rule::Deadline, what, &[send, index]);
        }
    }

    /// A result that was acknowledged is the command's end, unless that had another before.
    fn check_result_kept(
        &mut self,
        index: usize,
        row: &Row,
        about: &Row,
        since: Option<u64>,
        acknowledged: usize,
    ) {
        let error = self.error;
        let acknowledged_at = self.history.rows()[acknowledged].t;
        let fact = self.find(about).expect("the caller found it");
        let (send, earliest, durable) = (fact.send, fact.expires.0, fact.durable);
        let expired = row.state == Some(CommandState::Expired);
        let in_time = signed(acknowledged_at).saturating_add(error) < earliest;
        let open = row.state.is_some_and(|state| !state.is_terminal());
        let gone = (expired && in_time) || (open && since > Some(acknowledged_at));
        if gone && !self.is_excused(send, durable) {
            let what = format!("{}: its result was acknowledged and is gone", self.name(about));
            self.report.add(Rule::NothingLost, what, &[send, acknowledged, index]);
        }
    }

    /// As `Facts::may_be_gone`, of a command by its first send.
    pub(super) fn is_excused(&self, send: usize, durable: bool) -> bool {
        let asked = self.history.rows()[send].t;
        !durable && self.facts.failover.is_some_and(|failover| asked <= failover)
    }

    /// Something is about what nobody sent to this device; perhaps somebody sent it to another.
    pub(super) fn foreign(&mut self, row: &Row, what: &str, events: &[usize]) {
        let rows = self.history.rows();
        let owner = self.bodies.get(&row.body).copied();
        let other =
            owner.filter(|&at| (rows[at].tenant, rows[at].device) != (row.tenant, row.device));
        let crossed = other.filter(|&at| rows[at].tenant != row.tenant);
        let mut events = events.to_vec();
        events.extend(other);
        let name = self.name(row);
        let (rule, what) = match (crossed, other) {
            (Some(at), _) => {
                (Rule::Tenants, format!("{what} {name}, which is {}", self.name(&rows[at])))
            }
            (None, Some(at)) => {
                (Rule::NoPhantom, format!("{what} {name}, which is {}", self.name(&rows[at])))
            }
            (None, None) => (Rule::NoPhantom, format!("{what} {name}, which nobody sent")),
        };
        self.report.add(rule, what, &events);
    }

    fn late(&mut self, row: &Row, what: &str, by: i64, events: &[usize]) {
        let what = format!("{} {what} {} ms after it was over", self.name(row), by / 1_000);
        self.report.add(Rule::Deadline, what, events);
    }
}
