//! At most one effective session per device, by the order of the store: only the session that the
//! store holds changes anything, and an older one never replaces a newer.

use super::rules::{Report, Rule, label};
use super::{Options, micros, signed};
use crate::Kind;
use crate::history::{History, Name, Row};

/// Whom the device belonged to from a place of the store's order on.
#[derive(Clone, Copy)]
struct Holding {
    pos: u64,
    /// The session and the row that gave it the device; `None` where it was taken away.
    session: Option<(Name, usize)>,
}

/// A failover, as places: from `at` on, what came after `back_to` never was.
type Failover = (u64, u64);

struct Walk<'a> {
    history: &'a History,
    failovers: &'a [Failover],
    limit: i64,
    holdings: Vec<Holding>,
    report: &'a mut Report,
}

pub(super) fn check(history: &History, options: &Options, report: &mut Report) {
    let rows = history.rows();
    let place = |index: usize| rows[index].pos.unwrap_or(rows[index].t);
    let mut failovers: Vec<Failover> = (0..rows.len())
        .filter(|&index| rows[index].kind == Kind::Failover)
        .map(|index| (place(index), rows[index].number.unwrap_or(0)))
        .collect();
    failovers.sort_unstable();
    let changes = [Kind::Claimed, Kind::Reclaimed, Kind::Released, Kind::Apply];
    let mut all: Vec<usize> =
        (0..rows.len()).filter(|&index| changes.contains(&rows[index].kind)).collect();
    let device = |index: usize| (rows[index].tenant, rows[index].device);
    all.sort_by_key(|&index| (device(index), place(index)));
    for of_device in all.chunk_by(|&a, &b| device(a) == device(b)) {
        let limit = micros(options.claim_limit + options.clock_error);
        let holdings = Vec::new();
        let mut walk =
            Walk { history, failovers: &failovers, limit, holdings, report: &mut *report };
        for &index in of_device {
            walk.step(index, &rows[index], place(index));
        }
    }
}

// === impl Walk ===

impl Walk<'_> {
    fn step(&mut self, index: usize, row: &Row, pos: u64) {
        self.go_back(pos);
        let holder = self.holdings.last().and_then(|holding| holding.session);
        match row.kind {
            Kind::Claimed | Kind::Reclaimed => {
                self.check_claim(index, row, holder);
                self.holdings.push(Holding { pos, session: Some((row.session, index)) });
            }
            Kind::Released => {
                self.check_holder(index, row, holder, "ended by");
                self.holdings.push(Holding { pos, session: None });
            }
            _ => self.check_holder(index, row, holder, "changed by"),
        }
    }

    /// Forgets what failovers before this place undid.
    fn go_back(&mut self, pos: u64) {
        let passed = self.failovers.partition_point(|&(at, _)| at < pos);
        for &(at, back_to) in &self.failovers[..passed] {
            // What is newer than the failover stands.
            if self.holdings.last().is_some_and(|last| last.pos <= at) {
                while self.holdings.last().is_some_and(|last| last.pos > back_to) {
                    self.holdings.pop();
                }
            }
        }
    }

    fn check_holder(&mut self, index: usize, row: &Row, holder: Option<(Name, usize)>, verb: &str) {
        if holder.is_some_and(|(session, _)| session == row.session) {
            return;
        }
        let session = self.history.text(row.session);
        let text = match holder {
            Some((other, _)) => format!("while {} had the device", self.history.text(other)),
            None => "while no session had the device".to_owned(),
        };
        let what = format!("{} was {verb} session {session} {text}", label(self.history, row));
        let events: Vec<usize> =
            holder.map(|(_, since)| since).into_iter().chain([index]).collect();
        self.report.add(Rule::OneSession, what, &events);
    }

    fn check_claim(&mut self, index: usize, row: &Row, holder: Option<(Name, usize)>) {
        let name = label(self.history, row);
        let session = self.history.text(row.session);
        let held = holder.map_or(Name::default(), |(session, _)| session);
        if !row.key.is_empty() && row.key != held {
            let said = self.history.text(row.key);
            let what =
                format!("{name}: session {session} replaced {said}, which had not the device");
            let since = holder.map(|(_, since)| since);
            let events: Vec<usize> = since.into_iter().chain([index]).collect();
            return self.report.add(Rule::OneSession, what, &events);
        }
        let Some((other, since)) = holder.filter(|(other, _)| *other != row.session) else {
            return;
        };
        // A session that is taken up again has no excuse: its time is compared in the store.
        let limit = if row.kind == Kind::Reclaimed { 0 } else { self.limit };
        let claimed = |row: &Row| row.number.map(|ms| signed(ms).saturating_mul(1_000));
        let (mine, theirs) = (claimed(row), claimed(&self.history.rows()[since]));
        if let (Some(mine), Some(theirs)) = (mine, theirs)
            && mine.saturating_add(limit) < theirs
        {
            let what = format!(
                "{name}: session {session} replaced {}, which is {} ms newer",
                self.history.text(other),
                (theirs - mine) / 1_000
            );
            self.report.add(Rule::OneSession, what, &[since, index]);
        }
    }
}
